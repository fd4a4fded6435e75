"""The relays by the way that the routes lead, and, where this host has another uplink, by that too.

The routes lead all that goes to relays by one uplink. When it dies behind its router, where this host does not see it,
all its allocations die with it. So a host with several uplinks has one allocation more: the best by another one, which
costs a heartbeat, and is there when it is needed. Which allocation is used path selection decides, as of any others.

==========  ============================================================  ==============================================
a standby   is when                                                       leads to
==========  ============================================================  ==============================================
none        relays answer by one interface only, or have not yet          one, when they answered by an interface that
                                                                          the routes do not take
there       it keeps one allocation, at the relay that is nearest by it   none, at once when its addresses are gone
redundant   the routes lead there now, too                                none after a minute; an allocation that the
                                                                          routes lead to as well is taken over
==========  ============================================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Final

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, IPAddress, TransportAddress, Way
from warren.paths.values import Base
from warren.proto.wireguard.timers import Deadline
from warren.reach.leg import Leg, MakeClient
from warren.reach.relay_values import Event, Reflected, RelayPlace, RelayStatus, Transport, UdpBlocked, Wish
from warren.reach.relays import Relays
from warren.reach.uplink import Uplink, uplinks_of

STANDBY_LEGS: Final = 1
REDUNDANT_S: Final = 60.0
"""An uplink that comes and goes changes nothing for so long; a path by the allocation can move meanwhile."""
SILENT_S: Final = 60.0
"""By an uplink by which no relay answers for so long the standby is given up for another one."""


class Uplinks:
    """:class:`Relays` and, perhaps, a second one. Single owner; never fails."""

    def __init__(self, random: Callable[[int], bytes], make_client: MakeClient) -> None:
        self._random = random
        self._make_client = make_client
        self._main = Relays(random, make_client, others=self._give_up)
        self._standby: Relays | None = None
        self._uplink: Uplink | None = None
        """The standby's."""
        self._going_at: float | None = None
        """Then the standby is given up."""
        self._bases: tuple[Base, ...] = ()
        self._proven: dict[Base, None] = {}
        """From where a relay was reached, the last one at the end."""
        self._places: tuple[RelayPlace, ...] = ()
        self._active = False
        self._last_words: list[ControlDatagram] = []
        self._events: list[Event] = []
        self._blocked = self._told_blocked = False

    # From outside

    def set_bases(self, bases: tuple[Base, ...], now: float) -> None:
        """The addresses of this host that packets may leave from."""
        self._bases = bases
        self._proven = {base: None for base in self._proven if base in bases}
        self._consider(now)

    def proven(self, base: Base, now: float) -> None:
        """A relay has answered what left from ``base``."""
        if base in self._bases:
            self._proven.pop(base, None)
            self._proven[base] = None
            self._consider(now)

    def keep(self, places: Iterable[RelayPlace], now: float) -> None:
        """These may be used from now on, and no others."""
        self._places = tuple(places)
        self._main.keep(self._places, now)
        if self._standby is not None:
            self._standby.keep(map(_udp_only, self._places), now)

    def resolved(self, name: str, addresses: Iterable[IPAddress], now: float, why: str = "") -> None:
        found = tuple(addresses)
        self._main.resolved(name, found, now, why)
        if self._standby is not None and self._uplink is not None:
            self._standby.resolved(name, filter(self._uplink.reaches, found), now, why)

    def connected(self, name: str, transport: Transport, server: TransportAddress, now: float) -> None:
        self._main.connected(name, transport, server, now)

    def not_connected(self, name: str, transport: Transport, why: str, now: float) -> None:
        self._main.not_connected(name, transport, why, now)

    def network_changed(self, now: float) -> None:
        for machine in self._machines():
            machine.network_changed(now)

    def set_active(self, active: bool, now: float) -> None:
        self._active = active
        for machine in self._machines():
            machine.set_active(active, now)

    def doubt(self, base: Base | None, now: float) -> None:
        for machine in self._machines():
            machine.doubt(base, now)

    def close(self, now: float) -> None:
        self._end_standby(now)
        self._main.close(now)

    # What is there

    def legs(self) -> Iterator[Leg]:
        """All; those that the routes lead to come first."""
        return chain.from_iterable(machine.legs() for machine in self._machines())

    def leg(self, base: Base) -> Leg | None:
        return next((leg for leg in self.legs() if leg.base == base), None)

    def leg_at(self, server: TransportAddress, way: Way = PLAIN) -> Leg | None:
        """The one whose server it is, and which what came by ``way`` is for."""
        found = (leg for machine in self._by_way(way) if (leg := machine.leg_at(server, way)) is not None)
        return next(found, None)

    def places(self) -> list[RelayPlace]:
        return self._main.places()

    def reflectors(self) -> tuple[TransportAddress, ...]:
        return tuple(dict.fromkeys(one for machine in self._machines() for one in machine.reflectors()))

    @property
    def settled(self) -> bool:
        return self._main.settled

    def status(self) -> tuple[RelayStatus, ...]:
        """Of each relay as it is used best."""
        standby = {one.name: one for one in self._standby.status()} if self._standby is not None else {}
        return tuple(
            other if one.state != "ready" and (other := standby.get(one.name, one)).state == "ready" else one
            for one in self._main.status()
        )

    # The machine's verbs

    def receive(self, data: bytes, remote: TransportAddress, now: float, way: Way = PLAIN) -> bool:
        if not any(machine.receive(data, remote, now, way) for machine in self._by_way(way)):
            return False
        self._consider(now)
        return True

    def handle_timeout(self, now: float) -> None:
        for machine in self._machines():
            machine.handle_timeout(now)
        self._consider(now)

    def next_deadline(self) -> Deadline | None:
        going = None if self._going_at is None else Deadline(self._going_at, "an allocation is not needed any more")
        moments = [going, *(machine.next_deadline() for machine in self._machines())]
        return min((one for one in moments if one is not None), default=None)

    def take_transmits(self) -> list[ControlDatagram]:
        taken, self._last_words = self._last_words, []
        return taken + [one for machine in self._machines() for one in machine.take_transmits()]

    def take_events(self) -> list[Event]:
        taken, self._events = self._events, []
        for event in self._main.take_events():
            if isinstance(event, UdpBlocked):
                self._blocked = event.blocked
            else:
                taken.append(event)
        if self._standby is not None:
            taken += _of_standby(self._standby)
        blocked = self._blocked and not (self._standby is not None and self._standby.answers())
        if blocked != self._told_blocked:
            self._told_blocked = blocked
            taken.append(UdpBlocked(blocked))
        return taken

    def take_wishes(self) -> list[Wish]:
        if self._standby is not None:
            self._standby.take_wishes()  # names are looked up once, and streams go as the routes have it
        return self._main.take_wishes()

    # The standby

    def _machines(self) -> list[Relays]:
        return [self._main] if self._standby is None else [self._main, self._standby]

    def _by_way(self, way: Way) -> list[Relays]:
        """The one first which what came by ``way`` is likely for."""
        machines = self._machines()
        return machines[::-1] if self._uplink is not None and way.interface == self._uplink.interface else machines

    def _give_up(self, relay: str, interface: int, now: float) -> Leg | None:
        """The routes lead to ``relay`` by ``interface`` now: its allocation by that uplink is the main machine's."""
        if self._standby is None or self._uplink is None or self._uplink.interface != interface:
            return None
        taken = self._standby.give_up(relay)
        if taken is not None:
            self._end_standby(now)  # it would ask for another, which the relay takes for the same
        return taken

    def _consider(self, now: float) -> None:
        """Whether there is to be a standby, and by which uplink."""
        used = self._main.interfaces()
        there = {one.interface: one for one in uplinks_of(self._bases)}
        proven = dict.fromkeys(base.interface for base in reversed(self._proven))
        possible = [there[one] for one in proven if one in there and one not in used] if used else []
        uplink = self._uplink
        if self._standby is None or uplink is None:
            if possible:
                self._begin_standby(possible[0], now)
        elif there.get(uplink.interface) != uplink:
            self._end_standby(now)
        elif uplink.interface in used:
            self._go(REDUNDANT_S, now)
        elif not self._standby.answers() and any(one.interface != uplink.interface for one in possible):
            self._go(SILENT_S, now)
        else:
            self._going_at = None

    def _go(self, after_s: float, now: float) -> None:
        if self._going_at is None:
            self._going_at = now + after_s
        elif now >= self._going_at:
            if self._uplink is not None:  # another's turn, until it answers again
                self._proven = {base: None for base in self._proven if base.interface != self._uplink.interface}
            self._end_standby(now)

    def _begin_standby(self, uplink: Uplink, now: float) -> None:
        self._uplink = uplink
        self._standby = Relays(self._random, self._make_client, uplink=uplink, legs=STANDBY_LEGS)
        self._standby.set_active(self._active, now)
        self._standby.keep(map(_udp_only, self._places), now)
        for name, addresses in self._main.addresses().items():
            self._standby.resolved(name, filter(uplink.reaches, addresses), now)

    def _end_standby(self, now: float) -> None:
        standby, self._standby, self._uplink, self._going_at = self._standby, None, None, None
        if standby is not None:
            standby.close(now)
            self._last_words += standby.take_transmits()
            self._events += _of_standby(standby)


def _udp_only(place: RelayPlace) -> RelayPlace:
    return replace(place, tcp_port=None, tls_port=None)


def _of_standby(standby: Relays) -> list[Event]:
    """What it has to tell; how this host looks by that uplink is asked for elsewhere (reflexive.py)."""
    return [event for event in standby.take_events() if not isinstance(event, Reflected | UdpBlocked)]
