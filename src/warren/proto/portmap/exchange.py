"""Asking one thing after another: a *script* yields what it asks, and goes on when there is an answer or none.

A script is a generator of steps. It asks by ``answer = yield from ask(…)`` and returns its outcome; it knows neither
time nor transport. :class:`Exchange` runs one: it sends, repeats, gives up, and lets nothing but the gateway answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.portmap.http import Response
from warren.proto.portmap.values import Gateway
from warren.proto.wireguard.timers import Deadline

Read = TypeVar("Read")
Outcome = TypeVar("Outcome")

ANSWERS_MAX: Final = 32
"""Wrong answers to one question, after which a right one would not be believed either: somebody is guessing."""
FETCH_S: Final = 5.0
"""For one HTTP exchange, connecting included."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """To be sent by the gateway's interface. What comes back goes to ``receive`` with the same ``lane``."""

    lane: int
    gateway: Gateway
    remote: TransportAddress
    data: bytes
    source: IPAddress | None
    """Where it is sent from; None: an address of the interface that fits the destination."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """To be sent over a new TCP connection from the gateway's ``source`` to ``remote``. The answer, or None, goes to
    ``fetched`` with ``lane`` and ``number``.
    """

    lane: int
    gateway: Gateway
    number: int
    remote: TransportAddress
    request: bytes
    timeout_s: float = FETCH_S


@dataclass(frozen=True, slots=True)
class Ended:
    """The exchange of ``lane`` is over: its socket or connection is of no more use."""

    lane: int


Transmit = Datagram | Fetching | Ended


class Ask:
    """Datagrams that are sent again after each of ``waits_s`` but the last, until ``take`` says that it has an answer.

    ``from_port``: the gateway's port that answers; None: any.
    """

    def __init__(
        self,
        datagrams: tuple[tuple[TransportAddress, bytes], ...],
        waits_s: tuple[float, ...],
        take: Callable[[bytes, float], bool],
        from_port: int | None,
    ) -> None:
        self.datagrams = datagrams
        self.waits_s = waits_s
        self.take = take
        self.from_port = from_port


class Fetch:
    """One HTTP request to a port of the gateway."""

    def __init__(self, port: int, request: bytes) -> None:
        self.port = port
        self.request = request
        self.response: Response | None = None


Script = Generator[Ask | Fetch, None, Outcome]


def ask(
    datagrams: tuple[tuple[TransportAddress, bytes], ...],
    waits_s: tuple[float, ...],
    read: Callable[[bytes, float], Read | None],
    from_port: int | None,
) -> Script[Read | None]:
    """A step of a script, see :class:`Ask`. ``read`` gets the bytes and ``now``; it returns None, or raises
    MalformedPacket, for what is not the answer. None: there was no answer.
    """
    answers: list[Read] = []

    def take(data: bytes, now: float) -> bool:
        try:
            answer = read(data, now)
        except MalformedPacket:
            return False
        if answer is not None:
            answers.append(answer)
        return answer is not None

    yield Ask(datagrams, waits_s, take, from_port)
    return answers[0] if answers else None


def fetch(port: int, request: bytes) -> Script[Response | None]:
    """A step of a script; None: there was no answer, or none that parses."""
    step = Fetch(port, request)
    yield step
    return step.response


class Exchange(Generic[Outcome]):
    """One script under way at one gateway. :attr:`over` it holds the outcome and does nothing more."""

    def __init__(self, lane: int, gateway: Gateway, script: Script[Outcome], now: float) -> None:
        self.over = False
        self.outcome: Outcome | None = None
        self._lane = lane
        self._gateway = gateway
        self._script = script
        self._step: Ask | Fetch | None = None
        self._number = 0
        self._sent = 0
        self._wrong = 0
        self._at = now
        self._transmits: list[Transmit] = []
        self._go_on(now)

    # The five verbs

    def receive(self, data: bytes, remote: TransportAddress, now: float) -> None:
        """A datagram came to the lane's socket. What does not come from the gateway's own address is dropped."""
        step = self._step
        if not isinstance(step, Ask) or self._wrong >= ANSWERS_MAX:
            return
        if remote.ip != self._gateway.address or step.from_port not in {None, remote.port}:
            return
        if step.take(data, now):
            self._go_on(now)
        else:
            self._wrong += 1

    def fetched(self, number: int, response: Response | None, now: float) -> None:
        """What came of a :class:`Fetching`; None: nothing."""
        if isinstance(self._step, Fetch) and number == self._number:
            self._step.response = response
            self._go_on(now)

    def handle_timeout(self, now: float) -> None:
        step = self._step
        if step is None or now < self._at:
            return
        if isinstance(step, Ask) and self._sent < len(step.waits_s):
            self._send(step, now)
        else:
            self._go_on(now)

    def next_deadline(self) -> Deadline | None:
        return None if self.over else Deadline(self._at, "the gateway has not answered")

    def take_transmits(self) -> list[Transmit]:
        taken, self._transmits = self._transmits, []
        return taken

    def abandon(self) -> None:
        """End it without an outcome."""
        if not self.over:
            self._script.close()
            self._end()

    # Inside

    def _go_on(self, now: float) -> None:
        try:
            step = next(self._script)
        except StopIteration as end:
            self.outcome = end.value
            self._end()
            return
        self._step, self._sent, self._wrong = step, 0, 0
        self._number += 1
        if isinstance(step, Ask):
            self._send(step, now)
        else:
            remote = TransportAddress(self._gateway.address, step.port, self._scope(self._gateway.address))
            self._at = now + FETCH_S + 1.0  # the driver's own limit comes first
            self._transmits.append(Fetching(self._lane, self._gateway, self._number, remote, step.request))

    def _send(self, step: Ask, now: float) -> None:
        self._at = now + step.waits_s[self._sent]
        self._sent += 1
        for remote, data in step.datagrams:
            # An IPv6 gateway answers a search from its link-local address only if it comes from one.
            searches6 = step.from_port is None and remote.ip.version == 6
            source = None if searches6 else self._gateway.source
            remote = TransportAddress(remote.ip, remote.port, self._scope(remote.ip))
            self._transmits.append(Datagram(self._lane, self._gateway, remote, data, source))

    def _scope(self, address: IPAddress) -> int:
        local = address.version == 6 and (address.is_link_local or address.is_multicast)
        return self._gateway.interface if local else 0

    def _end(self) -> None:
        self._step, self.over = None, True
        self._transmits.append(Ended(self._lane))
