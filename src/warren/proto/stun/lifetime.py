"""How long a NAT keeps a mapping that nobody uses (RFC 5780 §4.6).

Each probe is a socket that asks the server once and then falls silent for a time of its own; then another socket asks
the server to answer to that socket's outer port (RESPONSE-PORT), and either the answer comes in or the mapping is gone.
All probes wait at the same time, so that the longest wait is the whole duration; a search one after another would take
several times as long. The first probe waits no time at all: without its answer the server cannot help.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_port
from warren.proto.stun.behaviour_discovery import PROBING, Transmit
from warren.proto.stun.binding import mapped_untrusted, pack_binding_request
from warren.proto.stun.message import Attribute, Class, decode_untrusted
from warren.proto.stun.transactions import Schedule, TimedOut, Transactions
from warren.proto.wireguard.timers import Deadline

WAITS_S: Final = (5.0, 10.0, 20.0, 28.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0)
"""Around what NATs do: 20 and 30 s of the worst, 120 s that RFC 4787 §4.3 asks for at least, 300 s that it advises."""
PROBES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A mapping that nobody uses lives ``at_least_s``, and not as long as ``below_s`` (None: that was not seen)."""

    at_least_s: float
    below_s: float | None


@dataclass(frozen=True, slots=True)
class _Probe:
    kind: Literal["opening", "asking"]
    number: int


class LifetimeDiscovery:
    """One discovery. It begins when it is made. Socket 0 asks, sockets 1 to ``sockets - 1`` are the probes."""

    def __init__(
        self,
        *,
        server: TransportAddress,
        waits_s: Sequence[float],
        random: Callable[[int], bytes],
        now: float,
        schedule: Schedule = PROBING,
    ) -> None:
        self._server = server
        self._random = random
        self._waits_s = (0.0, *sorted(waits_s)[: PROBES_MAX - 1])
        self._transactions = Transactions(schedule)
        self._mapped: dict[int, TransportAddress] = {}
        self._ask_at: dict[int, float] = {}
        self._asked: dict[bytes, int] = {}  # transaction → the probe at which the answer should come in
        self._alive_s: float | None = None
        self._dead_s: float | None = None
        self._over = False
        for number in range(1, self.sockets):
            self._open(number, now)

    @property
    def sockets(self) -> int:
        return len(self._waits_s) + 1

    @property
    def done(self) -> bool:
        return self._over or not (len(self._transactions) or self._ask_at)

    @property
    def lifetime(self) -> Lifetime | None:
        """What is known by now; None: nothing, or the server cannot help."""
        return None if self._alive_s is None else Lifetime(self._alive_s, self._dead_s)

    def receive(self, data: bytes, remote: TransportAddress, socket: int, now: float) -> bool:
        """``data`` came to socket number ``socket``. Whether it was for us."""
        try:
            message = decode_untrusted(data)
        except MalformedPacket:
            return False
        asked = self._asked.get(message.transaction)
        if asked is not None and socket != asked and message.cls == Class.SUCCESS:
            return False  # a server that passes RESPONSE-PORT over tells nothing about the mapping
        taken = self._transactions.receive(message, remote, now)
        self._proceed(now)
        return taken

    def handle_timeout(self, now: float) -> None:
        self._transactions.handle_timeout(now)
        for number in [number for number, at in self._ask_at.items() if at <= now]:
            del self._ask_at[number]
            data = pack_binding_request(
                self._random(12), [(Attribute.RESPONSE_PORT, pack_port(self._mapped[number].port))]
            )
            self._asked[data[8:20]] = number
            self._transactions.start(data, _Probe("asking", number), self._server, now)
        self._proceed(now)

    def next_deadline(self) -> Deadline | None:
        if self._over:
            return None
        deadline = self._transactions.next_deadline()
        at = min(self._ask_at.values(), default=None)
        if at is not None and (deadline is None or at < deadline.at):
            return Deadline(at, "a silent mapping is looked at")
        return deadline

    def take_transmits(self) -> list[Transmit]:
        transmits = []
        for request in self._transactions.take_transmits():
            probe = request.tag
            if isinstance(probe, _Probe):
                socket = probe.number if probe.kind == "opening" else 0
                transmits.append(Transmit(socket, request.remote, request.data))
        return transmits

    def _open(self, number: int, now: float) -> None:
        data = pack_binding_request(self._random(12))
        self._transactions.start(data, _Probe("opening", number), self._server, now)

    def _proceed(self, now: float) -> None:
        for event in self._transactions.take_events():
            probe = event.tag
            if not isinstance(probe, _Probe):
                continue
            wait_s = self._waits_s[probe.number - 1]
            alive = not isinstance(event, TimedOut) and event.message.cls == Class.SUCCESS
            if probe.kind == "opening":
                if alive and not isinstance(event, TimedOut):
                    try:
                        self._mapped[probe.number] = mapped_untrusted(event.message)
                    except MalformedPacket:
                        continue
                    self._ask_at[probe.number] = now + wait_s
            elif alive:
                self._alive_s = wait_s if self._alive_s is None else max(self._alive_s, wait_s)
            elif self._alive_s is None:
                self._over = True  # not even at once: the server cannot help
            else:
                self._dead_s = wait_s if self._dead_s is None else min(self._dead_s, wait_s)
                self._over = True  # what waits longer is gone as well
