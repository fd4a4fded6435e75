"""What a NAT does, found out with nothing but an allocation of our own at one relay (RFC 5780's questions, §4.3, §4.4).

The relayed address is another port at the relay's address. What is sent there from the tunnel's port comes back through
the allocation, together with the address that the NAT gave it for that destination: the mapping. Before that the
allocation sends to the outside address that the relay itself saw: what comes in then, the NAT does not filter by port.

::

    tunnel's port ── Binding ──▶ relay:3478        the outside address for it is known (reflexive.py)
    relay:relayed ── indication ──▶ outside address      comes in, or not: filtering
    tunnel's port ── Binding ──▶ relay:relayed     the allocation names the outside address for it: mapping
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import TransportAddress
from warren.paths.values import Base
from warren.proto.stun.message import TRANSACTION_BYTES, Class, Method, encode
from warren.proto.wireguard.timers import Deadline
from warren.reach.courses import way_of

LISTEN_S: Final = 0.6
"""How long the NAT may take to let the indication in."""
REPEAT_S: Final = 0.3
TRIES: Final = 4
AGAIN_S: Final = 60.0
"""Between two series of knocks at an address that nothing came in by."""
MIRRORS_MAX: Final = 32
_OPENED_MAX: Final = 1024
_THROWS: Final = 2


@dataclass(frozen=True, slots=True)
class Throw:
    """``data`` goes from the allocation ``relay`` to ``peer``."""

    relay: Base
    peer: TransportAddress
    data: bytes


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Sent from ``base`` to ``relayed`` it came from ``mapped``. ``heard``: what came from there before was let in."""

    base: Base
    relayed: TransportAddress
    mapped: TransportAddress
    heard: bool


@dataclass(frozen=True, slots=True)
class Knocked:
    """What an allocation sent to ``address``, a way in that a gateway gave, has come in."""

    address: TransportAddress


@dataclass(slots=True)
class _Knock:
    relay: Base
    relayed: TransportAddress
    transaction: bytes
    at: float
    sent: int = 0


@dataclass(slots=True)
class _Mirror:
    base: Base
    relay: Base
    relayed: TransportAddress
    outside: TransportAddress
    there: bytes
    """The transaction of the indication."""
    back: bytes
    """That of the requests."""
    at: float
    thrown: int = 0
    sent: int = 0
    heard: bool = False


class Mirrors:
    """Single owner; never fails. Each pair of base and relayed address is looked at once until :meth:`forget`."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._under_way: dict[tuple[Base, TransportAddress], _Mirror] = {}
        self._done: set[tuple[Base, TransportAddress]] = set()
        self._opened: set[tuple[Base, TransportAddress]] = set()
        """Where something was sent to before: that it comes in from there says nothing of the filter any more."""
        self._transmits: list[ControlDatagram | Throw] = []
        self._knocks: dict[TransportAddress, _Knock] = {}
        self._events: list[Mirrored | Knocked] = []

    def look(self, base: Base, relay: Base, relayed: TransportAddress, outside: TransportAddress, now: float) -> None:
        """``outside``: how the relay's server sees ``base``. ``relayed``: the address of the allocation ``relay``."""
        pair = base, relayed
        if pair in self._done or pair in self._under_way or len(self._under_way) >= MIRRORS_MAX:
            return
        there, back = self._random(TRANSACTION_BYTES), self._random(TRANSACTION_BYTES)
        self._under_way[pair] = _Mirror(base, relay, relayed, outside, there, back, now)
        if pair in self._opened:
            self._under_way[pair].thrown = _THROWS

    def knock(self, relay: Base, relayed: TransportAddress, address: TransportAddress, now: float) -> None:
        """See whether what is sent to ``address`` comes in; asked once while the answer is open."""
        if address not in self._knocks and len(self._knocks) < MIRRORS_MAX:
            self._knocks[address] = _Knock(relay, relayed, self._random(TRANSACTION_BYTES), now)

    def forget(self) -> None:
        """The network is another one."""
        self._under_way.clear()
        self._knocks.clear()
        self._done.clear()
        if len(self._opened) > _OPENED_MAX:  # of so many allocations the old ones are long gone
            self._opened.clear()

    def receive(self, data: bytes, remote: TransportAddress) -> bool:
        """Something came to the tunnel's port. False: it is not from here."""
        for one in self._under_way.values():
            if data[8:20] == one.there and remote == one.relayed:
                one.heard = one.heard or not one.sent
                return True
        for address, knock in list(self._knocks.items()):
            if data[8:20] == knock.transaction and remote == knock.relayed:
                del self._knocks[address]
                self._events.append(Knocked(address))
                return True
        return False

    def came(self, relay: Base, peer: TransportAddress, data: bytes) -> bool:
        """Something came through the allocation ``relay``. False: it is not from here."""
        for pair, one in list(self._under_way.items()):
            if data[8:20] == one.back and one.relay == relay:
                del self._under_way[pair]
                self._done.add(pair)
                self._events.append(Mirrored(one.base, one.relayed, peer, one.heard))
                return True
        return False

    def handle_timeout(self, now: float) -> None:
        for address, knock in list(self._knocks.items()):
            if now < knock.at:
                continue
            knock.sent += 1
            knock.at = now + (REPEAT_S if knock.sent < TRIES else AGAIN_S)
            knock.sent = knock.sent % TRIES
            data = encode(Method.BINDING, Class.INDICATION, knock.transaction, ())
            self._transmits.append(Throw(knock.relay, address, data))
        for pair, one in list(self._under_way.items()):
            if now < one.at:
                continue
            if one.thrown < _THROWS:
                one.thrown += 1
                one.at = now + LISTEN_S / 2
                data = encode(Method.BINDING, Class.INDICATION, one.there, ())
                self._transmits.append(Throw(one.relay, one.outside, data))
            elif one.sent < TRIES:
                one.sent += 1
                self._opened.add(pair)
                one.at = now + REPEAT_S
                data = encode(Method.BINDING, Class.REQUEST, one.back, ())
                self._transmits.append(ControlDatagram(data, one.relayed, way_of(one.base)))
            else:
                del self._under_way[pair]
                self._done.add(pair)

    def next_deadline(self) -> Deadline | None:
        moments = [one.at for one in self._under_way.values()] + [one.at for one in self._knocks.values()]
        return Deadline(min(moments), "the NAT is looked at in a mirror") if moments else None

    def take_transmits(self) -> list[ControlDatagram | Throw]:
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Mirrored | Knocked]:
        taken, self._events = self._events, []
        return taken
