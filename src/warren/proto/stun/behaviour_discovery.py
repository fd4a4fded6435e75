"""How the NATs before this host behave, found out with the help of STUN servers (RFC 5780 §4, RFC 4787).

Two sockets are used. Mapping is looked at from the first, filtering from the second, since what the first sends to the
server's other address would open the filter; each also sends to where the other appears outside, for hairpinning.

======================  ==========================================================================================
test                    what it tells
======================  ==========================================================================================
mapping I               first socket → every server: mapped at all, translated, the same for all of them?
mapping II, III         first socket → the server's other address, with both its ports: EIM, ADM or APDM (§4.3)
filtering I             second socket → server: opens the filter for that address and port
filtering II, III       "answer from your other address and port", "… from your other port": EIF, ADF, APDF (§4.4)
hairpin                 each socket → the outer address of the other (§4.5)
======================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import ChangeRequest, pack_change_request, unpack_address_untrusted
from warren.proto.stun.behaviour import Behaviour, Filtering, allocation_of, mapping_of
from warren.proto.stun.binding import mapped_untrusted, pack_binding_request
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted
from warren.proto.stun.transactions import Answered, Schedule, TimedOut, Transactions
from warren.proto.wireguard.timers import Deadline

SERVERS_MAX: Final = 8
"""Servers asked: two tell all there is to tell, the others are there in case those do not answer."""
PROBING: Final = Schedule(rto_s=0.25, requests_max=5, last_wait=3.0)
"""4.5 s: five requests, so that a filter is not seen in what was loss (2 % of it both ways: one time in 10 million)."""


@dataclass(frozen=True, slots=True)
class Transmit:
    """``data`` goes to ``remote`` from socket number ``socket``."""

    socket: int
    remote: TransportAddress
    data: bytes


@dataclass(frozen=True, slots=True)
class _Test:
    kind: Literal["mapping", "filtering", "opening", "hairpin"]
    socket: int
    remote: TransportAddress
    change: ChangeRequest | None = None


_BOTH: Final = ChangeRequest(address=True, port=True)
_PORT: Final = ChangeRequest(address=False, port=True)


class BehaviourDiscovery:
    """One discovery. It begins when it is made; ``behaviour`` says what is known, for good once ``done``."""

    SOCKETS: Final = 2

    def __init__(
        self,
        *,
        servers: Sequence[TransportAddress],
        local: tuple[TransportAddress, TransportAddress],
        random: Callable[[int], bytes],
        now: float,
        schedule: Schedule = PROBING,
    ) -> None:
        """``servers`` are of one family, the best first. ``local``: what the two sockets send from, with the address
        that the routes give them (never the unspecified one).
        """
        self._local = local
        self._random = random
        self._transactions = Transactions(schedule)
        self._mapped: dict[TransportAddress, TransportAddress] = {}  # by where the first socket sent to, in this order
        self._servers = tuple(dict.fromkeys(servers))[:SERVERS_MAX]
        self._answered: list[TransportAddress] = []
        self._rtt_s: float | None = None
        self._helper: TransportAddress | None = None
        self._other: TransportAddress | None = None
        self._second_mapped: TransportAddress | None = None
        self._opening = False
        self._passed: set[ChangeRequest] = set()
        self._failed: set[ChangeRequest] = set()
        self._hairpin: bool | None = None
        self._hairpins: dict[bytes, int] = {}  # transaction → the socket at which it should come in
        for server in self._servers:
            self._begin(_Test("mapping", 0, server), now)

    @property
    def done(self) -> bool:
        return not len(self._transactions)

    def receive(self, data: bytes, remote: TransportAddress, socket: int, now: float) -> bool:
        """``data`` came to socket number ``socket``. Whether it was for us."""
        try:
            message = decode_untrusted(data)
        except MalformedPacket:
            return False
        if message.cls == Class.REQUEST:
            return self._hairpinned(message, socket)
        taken = self._transactions.receive(message, remote, now)
        self._proceed(now)
        return taken

    def handle_timeout(self, now: float) -> None:
        self._transactions.handle_timeout(now)
        self._proceed(now)

    def next_deadline(self) -> Deadline | None:
        return self._transactions.next_deadline()

    def take_transmits(self) -> list[Transmit]:
        transmits = []
        for request in self._transactions.take_transmits():
            test = request.tag
            if isinstance(test, _Test):
                transmits.append(Transmit(test.socket, request.remote, request.data))
        return transmits

    @property
    def behaviour(self) -> Behaviour:
        """What is known by now."""
        mapped = next(iter(self._mapped.values()), None)
        return Behaviour(
            local=self._local[0],
            mapped=mapped,
            translated=None if mapped is None else mapped != self._local[0],
            mapping=mapping_of(self._mapped, self._local[0]),
            filtering=self._filtering(),
            allocation=allocation_of(self._mapped.values(), self._second_mapped, self._local[0]),
            hairpin=self._hairpin,
            answered=tuple(self._answered),
            rtt_s=self._rtt_s,
            discovery=self._helper,
        )

    def _begin(self, test: _Test, now: float) -> None:
        attributes = []
        if test.change is not None:
            attributes.append((int(Attribute.CHANGE_REQUEST), pack_change_request(test.change)))
        data = pack_binding_request(self._random(12), attributes)
        if test.kind == "hairpin":
            self._hairpins[data[8:20]] = 1 - test.socket
        expected = test.remote
        if test.change is not None and self._other is not None:
            ip = self._other.ip if test.change.address else test.remote.ip
            expected = TransportAddress(ip, self._other.port, test.remote.scope)
        self._transactions.start(
            data,
            test,
            test.remote,
            now,
            accepts=lambda _, remote: (remote.ip, remote.port) == (expected.ip, expected.port),
        )

    def _hairpinned(self, message: Message, socket: int) -> bool:
        if message.method != Method.BINDING or self._hairpins.get(message.transaction) != socket:
            return False
        self._hairpin = True
        for test in self._hairpin_tests():
            self._transactions.cancel(test)
        return True

    def _hairpin_tests(self) -> tuple[_Test, ...]:
        mapped = next(iter(self._mapped.values()), None)
        if mapped is None or self._second_mapped is None:
            return ()
        return _Test("hairpin", 0, self._second_mapped), _Test("hairpin", 1, mapped)

    def _proceed(self, now: float) -> None:
        for event in self._transactions.take_events():
            if isinstance(event.tag, _Test):
                if isinstance(event, TimedOut):
                    self._came_to_nothing(event.tag)
                else:
                    self._came_to(event.tag, event, now)

    def _came_to_nothing(self, test: _Test) -> None:
        if test.change is not None:
            self._failed.add(test.change)
        elif test.kind == "hairpin" and self._hairpin is None:
            self._hairpin = False

    def _came_to(self, test: _Test, answer: Answered, now: float) -> None:
        if answer.message.cls == Class.ERROR:
            return  # the server refuses to help: nothing is known by it
        if test.change is not None:
            self._passed.add(test.change)
            return
        try:
            mapped = mapped_untrusted(answer.message)
        except MalformedPacket:
            return
        if test.kind == "mapping":
            self._mapped[test.remote] = mapped
            if test.remote in self._servers:
                self._server_answered(test.remote, answer, now)
        elif test.kind == "opening":
            self._second_mapped = mapped
            if self._other is not None and test.remote == self._helper:
                for change in (_BOTH, _PORT):
                    self._begin(_Test("filtering", 1, test.remote, change), now)
            if next(iter(self._mapped.values())) != self._local[0]:
                for hairpin in self._hairpin_tests():
                    self._begin(hairpin, now)

    def _server_answered(self, server: TransportAddress, answer: Answered, now: float) -> None:
        self._answered.append(server)
        if answer.rtt_s is not None:
            self._rtt_s = answer.rtt_s if self._rtt_s is None else min(self._rtt_s, answer.rtt_s)
        if self._helper is None:
            self._other = _other_untrusted(server, answer.message)
            if self._other is not None:
                self._helper = server
                self._begin(_Test("mapping", 0, TransportAddress(self._other.ip, server.port)), now)
                self._begin(_Test("mapping", 0, self._other), now)
                self._opening = True
                self._begin(_Test("opening", 1, server), now)
                return
        if not self._opening and len(self._answered) == len(self._servers):
            self._opening = True  # nobody helps: only for hairpinning
            self._begin(_Test("opening", 1, server), now)

    def _filtering(self) -> Filtering | None:
        if _BOTH in self._passed:
            return "eif"
        if self._other not in self._mapped or _BOTH not in self._failed:
            return None  # who does not answer at its other address cannot answer from there
        if _PORT in self._passed:
            return "adf"
        return "apdf" if _PORT in self._failed else None


def _other_untrusted(server: TransportAddress, message: Message) -> TransportAddress | None:
    """The other address and port of the server, if it has one that differs in both, as RFC 5780 §7.4 wants."""
    value = message.get(Attribute.OTHER_ADDRESS)
    if value is None:
        return None
    try:
        other = unpack_address_untrusted(value)
    except MalformedPacket:
        return None
    if other.ip.version != server.ip.version or other.ip == server.ip or other.port in {0, server.port}:
        return None
    return other
