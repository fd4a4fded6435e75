"""Binding requests to servers that anybody may ask (RFC 8489 §3): does it answer, how fast, and from where it sees us.

Sent and repeated faster than §6.2.1 has it, since what waits for the answer is a person who has just joined; four
datagrams of 28 bytes in all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from warren.errors import MalformedPacket
from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.proto.stun.attributes import unpack_xor_address_untrusted
from warren.proto.stun.message import TRANSACTION_BYTES, Attribute, Class, Method, decode_untrusted, encode
from warren.proto.wireguard.timers import Deadline

Tag = TypeVar("Tag")

REPEAT_S: Final = 0.4
TRIES: Final = 4
SILENT_AFTER_S: Final = 2.0
PROBES_MAX: Final = 256
"""Sixteen relays, each asked from every address of a host with a dozen."""


@dataclass(frozen=True, slots=True)
class Answered(Generic[Tag]):
    """``server`` sees what was sent by ``way`` as coming from ``mapped``."""

    tag: Tag
    server: TransportAddress
    way: Way
    mapped: TransportAddress
    rtt_s: float
    interface: int = 0
    """The index of the one by which the answer came; 0: it is not known."""


@dataclass(frozen=True, slots=True)
class Silent(Generic[Tag]):
    """It did not answer within :data:`SILENT_AFTER_S`."""

    tag: Tag
    server: TransportAddress
    way: Way


@dataclass(slots=True)
class _Probe(Generic[Tag]):
    tag: Tag
    server: TransportAddress
    way: Way
    began: float
    sent: int = 0
    sent_at: float = 0.0


class Probes(Generic[Tag]):
    """Never fails. An answer is only believed with the transaction of a request to that server."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._under_way: dict[bytes, _Probe[Tag]] = {}
        self._transmits: list[ControlDatagram] = []
        self._events: list[Answered[Tag] | Silent[Tag]] = []

    def ask(self, server: TransportAddress, tag: Tag, now: float, way: Way = PLAIN) -> None:
        """Nothing happens when the same is asked already, or too much is under way."""
        if len(self._under_way) >= PROBES_MAX or self.asks(tag, server, way):
            return
        probe = _Probe(tag, server, way, now)
        transaction = self._random(TRANSACTION_BYTES)
        self._under_way[transaction] = probe
        self._send(transaction, probe, now)

    def asks(self, tag: Tag, server: TransportAddress, way: Way = PLAIN) -> bool:
        """Whether that is under way."""
        return any((p.tag, p.server, p.way) == (tag, server, way) for p in self._under_way.values())

    def forget(self) -> None:
        """What is under way was in vain: the network is another one."""
        self._under_way.clear()

    def receive(self, data: bytes, remote: TransportAddress, now: float, way: Way = PLAIN) -> bool:
        """``way``: how it came. False: it is not an answer to a probe."""
        probe = self._under_way.get(bytes(data[8:20]))
        if probe is None or remote != probe.server:
            return False
        try:
            message = decode_untrusted(data)
            value = message.get(Attribute.XOR_MAPPED_ADDRESS)
            if message.method != Method.BINDING or message.cls is not Class.SUCCESS or value is None:
                return True
            mapped = unpack_xor_address_untrusted(value, message.transaction)
        except MalformedPacket:
            return True
        del self._under_way[message.transaction]
        rtt_s = now - (probe.sent_at if probe.sent == 1 else probe.began)
        self._events.append(Answered(probe.tag, probe.server, probe.way, mapped, rtt_s, way.interface))
        return True

    def handle_timeout(self, now: float) -> None:
        for transaction, probe in list(self._under_way.items()):
            if now >= probe.began + SILENT_AFTER_S:
                del self._under_way[transaction]
                self._events.append(Silent(probe.tag, probe.server, probe.way))
            elif probe.sent < TRIES and now >= probe.sent_at + REPEAT_S:
                self._send(transaction, probe, now)

    def next_deadline(self) -> Deadline | None:
        moments = [
            probe.sent_at + REPEAT_S if probe.sent < TRIES else probe.began + SILENT_AFTER_S
            for probe in self._under_way.values()
        ]
        return Deadline(min(moments), "a server has not answered yet") if moments else None

    def take_transmits(self) -> list[ControlDatagram]:
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Answered[Tag] | Silent[Tag]]:
        taken, self._events = self._events, []
        return taken

    def _send(self, transaction: bytes, probe: _Probe[Tag], now: float) -> None:
        probe.sent += 1
        probe.sent_at = now
        data = encode(Method.BINDING, Class.REQUEST, transaction, ())
        self._transmits.append(ControlDatagram(data, probe.server, probe.way))
