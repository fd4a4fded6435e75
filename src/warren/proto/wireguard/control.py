"""Control datagrams of one device: those on its port that are not WireGuard's but its controller's (STUN, RFC 7983 §7).

Nothing here is authenticated, so what waits is bounded and comes at a bounded pace: a flood of STUN costs the data
little and the controller not much more. Answers from whom the controller wrote to have a share of their own, which
strangers cannot use up.
"""

from __future__ import annotations

from typing import NamedTuple

from warren.model.datagrams import DATAGRAM_BYTES_MAX, ControlDatagram
from warren.proto.stun.message import HEADER_BYTES, Method
from warren.proto.turn.channel import CHANNEL_MAX, CHANNEL_MIN
from warren.proto.wireguard.addresses import (
    SocketAddress,
    pack_local,
    server_of,
    socket_address,
    transport_address,
    way_of,
)
from warren.proto.wireguard.ratelimit import RateLimiter
from warren.proto.wireguard.relays import Relays

WAITING_MAX = 512
"""Control datagrams kept until they are taken: a tenth of a second of the pace below, and 1 MB at most."""
STRANGERS_PER_S = 1000.0
"""Control datagrams from addresses that the controller did not write to; at some 100 µs each a tenth of its core."""
ANSWERS_PER_S = 5000.0
"""Control datagrams from those it did: more than it asks in a second when it opens many ways at once."""
WRITTEN_TO_MAX = 4096
"""Addresses remembered as written to; the oldest is forgotten for a new one."""

_STRANGERS, _ANSWERS = 0, 1
_CHANNEL_BIND = bytes((0, Method.CHANNEL_BIND))  # of class request: the message type is the method (RFC 8489 §5)


class Arrival(NamedTuple):
    """A control datagram: from whom, to which of our addresses (empty: unknown)."""

    data: bytes
    source: SocketAddress
    local: bytes

    def datagram(self, local: bytes) -> ControlDatagram:
        """It as the controller hears it; ``local`` may say more than it knows itself: the interface."""
        return ControlDatagram(self.data, transport_address(self.source), way_of(self.source, local))


def routed(datagram: ControlDatagram) -> tuple[SocketAddress, bytes]:
    """The address and ``local`` by which ``datagram`` leaves. Raises ValueError when it cannot: it has no bytes or too
    many, no such channel exists, or its source is of the other family.
    """
    way = datagram.way
    if not 0 < len(datagram.data) <= DATAGRAM_BYTES_MAX or not (
        way.channel == 0 or CHANNEL_MIN <= way.channel <= CHANNEL_MAX
    ):
        raise ValueError("a control datagram is too short or long, or its channel is none")
    address = socket_address(datagram.remote, way)
    return address, pack_local(way, address[0])


class ControlQueue:
    """``listening``: somebody takes what arrives; otherwise it is dropped and counted."""

    __slots__ = ("_counters", "_limits", "_relays", "_written_to", "listening", "waiting")

    def __init__(self, relays: Relays, counters: dict[str, int]) -> None:
        self.listening = False
        self.waiting: list[Arrival] = []
        self._relays = relays
        self._counters = counters
        self._limits = (
            RateLimiter(STRANGERS_PER_S, STRANGERS_PER_S / 4),
            RateLimiter(ANSWERS_PER_S, ANSWERS_PER_S / 4),
        )
        self._written_to: dict[SocketAddress, None] = {}

    def receive(self, message: memoryview, source: SocketAddress, local: bytes, now: float) -> None:
        """Take one message that looks like STUN; ``message`` may be reused on return."""
        if not self.listening:
            self._counters["control_unheard"] += 1
        elif len(message) > DATAGRAM_BYTES_MAX:
            self._counters["udp_malformed"] += 1
        elif len(self.waiting) >= WAITING_MAX or not self._allows(source, now):
            self._counters["control_limited"] += 1
        else:
            self._counters["control_received"] += 1
            self.waiting.append(Arrival(bytes(message), source, local))

    def _allows(self, source: SocketAddress, now: float) -> bool:
        return self._limits[source in self._written_to].allows(0, now)

    def sent(self, data: bytes, destination: SocketAddress) -> None:
        """The controller sends ``data`` to ``destination``: answers from there are awaited, ChannelData as well when
        it asks for a channel or uses one.
        """
        known = self._written_to
        known.pop(destination, None)
        known[destination] = None
        if len(known) > WRITTEN_TO_MAX:
            del known[next(iter(known))]
        server = server_of(destination)
        if server is not None:
            self._relays.register(server)
        elif data[:2] == _CHANNEL_BIND and len(data) >= HEADER_BYTES:
            self._relays.register(destination)

    def listen(self, listening: bool) -> None:
        """A controller begins or ceases to listen; what the one before was told or asked for counts no more."""
        self.listening = listening
        self.waiting.clear()
        self._written_to.clear()
        self._relays.forget_registered()

    def take(self) -> list[Arrival]:
        """Everything that waits, oldest first."""
        waiting = self.waiting
        if waiting:
            self.waiting = []
        return waiting
