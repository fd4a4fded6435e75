"""Which relays are used, and over which transport: the machine that keeps the best two allocations alive.

Every relay is asked over UDP whether it answers; the two that answer fastest get an allocation each. One that does not
answer within two seconds is tried over TLS and TCP if it has them, and goes on being asked over UDP, so that a network
that lets UDP through again is noticed. A relay that dies is replaced.

===========  ===============================================================  =======================
of a relay   is when                                                          leads to
===========  ===============================================================  =======================
asking       it was asked over UDP and has not answered                       answers or silent
answers      a Binding request was answered                                   an allocation, if it is among the best
silent       nothing came for two seconds                                     a stream, if it offers one; asked again
===========  ===============================================================  =======================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, IPAddress, TransportAddress, Way
from warren.paths.values import Base
from warren.proto.wireguard.timers import Deadline
from warren.reach.leg import Leg, MakeClient
from warren.reach.relay_allocations import LEGS, Allocations
from warren.reach.relay_answers import Answers, Others
from warren.reach.relay_asking import Asking
from warren.reach.relay_state import ASK_AGAIN_S, HEARTBEAT_S, NEVER, RelayState
from warren.reach.relay_values import (
    Disconnect,
    Event,
    RelayPlace,
    RelayStatus,
    Resolve,
    Transport,
    Wish,
)
from warren.reach.uplink import Uplink

RELAYS_MAX: Final = 32
"""Sixteen of the NetworkSpec and as many members."""


class Relays:
    """Single owner; never fails. What needs a socket or a name server is a :class:`Wish`, answered by the methods named
    in it.
    """

    def __init__(
        self,
        random: Callable[[int], bytes],
        make_client: MakeClient,
        *,
        uplink: Uplink | None = None,
        legs: int = LEGS,
        others: Others | None = None,
    ) -> None:
        """``legs``: how many allocations it keeps, by ``uplink``, or as the routes have it. ``others``: see
        relay_answers.py.
        """
        self._asking = Asking(random, uplink)
        self._allocations = Allocations(make_client, self._asking, legs)
        self._answers = Answers(self._asking, self._allocations, others)
        self._relays: dict[str, RelayState] = {}

    # From outside

    def keep(self, places: Iterable[RelayPlace], now: float) -> None:
        """These may be used from now on, and no others."""
        wanted = {place.name: place for place in list(places)[:RELAYS_MAX]}
        if all(name in self._relays and self._relays[name].place == place for name, place in wanted.items()) and len(
            wanted
        ) == len(self._relays):
            return
        for name in [name for name in self._relays if name not in wanted]:
            self._allocations.forget(self._relays.pop(name), now)
        for name, place in wanted.items():
            known = self._relays.get(name)
            if known is not None and known.place == place:
                continue
            if known is not None and replace(known.place, username=place.username, password=place.password) == place:
                known.use_credentials(place, now)
                continue
            if known is not None:
                self._allocations.forget(known, now)
            self._relays[name] = RelayState(place)
            self._allocations.wishes.append(Resolve(name, place.hosts))
        self._consider(now)

    def resolved(self, name: str, addresses: Iterable[IPAddress], now: float, why: str = "") -> None:
        """The addresses of the relay that this host can send to; none, and ``why``, when there are none."""
        relay = self._relays.get(name)
        if relay is None:
            return
        relay.resolved = True
        relay.addresses = tuple(addresses)
        if relay.servers():
            relay.why = ""
            relay.udp = "asking"
            self._asking.ask(relay, now)
        else:
            relay.udp = "silent"
            relay.why = why if not relay.addresses else ""
            relay.ask_at = NEVER if relay.addresses else now + ASK_AGAIN_S
        self._consider(now)

    def connected(self, name: str, transport: Transport, server: TransportAddress, now: float) -> None:
        """The stream is there; the data plane reaches its near end at ``server``."""
        relay = self._relays.get(name)
        if relay is None or relay.connecting != transport:
            self._allocations.wishes.append(Disconnect(name, transport))
            return
        relay.connecting = None
        self._allocations.begin(relay, transport, server, now)

    def not_connected(self, name: str, transport: Transport, why: str, now: float) -> None:
        """The stream could not be opened, or has ended. ``why``: a sentence."""
        relay = self._relays.get(name)
        if relay is None:
            return
        if relay.connecting == transport:
            relay.connecting = None
            relay.tries += 1
        leg = relay.legs.get(transport)
        if leg is not None:
            self._allocations.drop(relay, leg, close=False)
        relay.back_off(transport, now, why)
        self._consider(now)

    def network_changed(self, now: float) -> None:
        """Addresses or routes of this host are others: see at once what of it still works."""
        self._asking.probes.forget()
        for relay in self._relays.values():
            relay.retry_at.clear()
            relay.wait_s.clear()
            if not relay.addresses and relay.resolved:
                self._allocations.wishes.append(Resolve(relay.place.name, relay.place.hosts))
            self._asking.ask(relay, now)
        self._consider(now)

    def set_active(self, active: bool, now: float) -> None:
        """Whether there is traffic: relays in use are then asked more often."""
        began, self._asking.active = active and not self._asking.active, active
        for relay in self._relays.values():
            if relay.legs and began:
                relay.ask_at = min(relay.ask_at, now + HEARTBEAT_S)

    def doubt(self, base: Base | None, now: float) -> None:
        """Nothing comes through that allocation any more (None: through any): see whether the relay is there."""
        for relay in self._relays.values():
            if any(base is None or leg.base == base for leg in relay.legs.values()):
                self._asking.ask(relay, now)

    def close(self, now: float) -> None:
        """Give all allocations back."""
        for relay in self._relays.values():
            self._allocations.forget(relay, now)
        self._relays.clear()

    # What is there

    def legs(self) -> Iterator[Leg]:
        for relay in self._relays.values():
            yield from relay.legs.values()

    def leg(self, base: Base) -> Leg | None:
        return next((leg for leg in self.legs() if leg.base == base), None)

    def leg_at(self, server: TransportAddress, way: Way = PLAIN) -> Leg | None:
        """The one whose server it is, and which what came by ``way`` is for."""
        for leg in self.legs():
            if leg.server == server and (None in {leg.way.source, way.source} or leg.way.source == way.source):
                return leg
        return None

    def addresses(self) -> dict[str, tuple[IPAddress, ...]]:
        """Of each relay whose names were looked up."""
        return {name: relay.addresses for name, relay in self._relays.items() if relay.resolved}

    def interfaces(self) -> set[int]:
        """By which the relays in use answer; where none is, all relays, as they did last."""
        known = [relay for relay in self._relays.values() if relay.interface]
        return {relay.interface for relay in known if relay.legs} or {relay.interface for relay in known}

    def answers(self) -> bool:
        """Whether any relay does, over UDP."""
        return any(relay.udp == "answers" for relay in self._relays.values())

    def give_up(self, name: str) -> Leg | None:
        """Its allocation over UDP belongs to whoever calls this; None: there is none."""
        relay = self._relays.get(name)
        return None if relay is None else relay.legs.pop("udp", None)

    def places(self) -> list[RelayPlace]:
        """The relays as they may be used, those in use first."""
        relays = sorted(self._relays.values(), key=lambda relay: not relay.legs)
        return [relay.place for relay in relays]

    def reflectors(self) -> tuple[TransportAddress, ...]:
        """Every address at which a relay that answers over UDP can be asked how this node looks from outside."""
        answering = (relay for relay in self._relays.values() if relay.server is not None)
        return tuple(dict.fromkeys(server for relay in answering for server in relay.servers()))

    @property
    def settled(self) -> bool:
        """Every relay has been asked, and what was begun has come to something."""
        return not any(
            relay.udp == "asking"
            or relay.connecting is not None
            or not relay.resolved
            or any(not leg.ready for leg in relay.legs.values())
            for relay in self._relays.values()
        )

    def status(self) -> tuple[RelayStatus, ...]:
        return tuple(relay.status() for relay in self._relays.values())

    # The machine's verbs

    def receive(self, data: bytes, remote: TransportAddress, now: float, way: Way = PLAIN) -> bool:
        """``way``: how it came. False: it is not from a relay, or not of an allocation."""
        if self._asking.probes.receive(data, remote, now, way):
            self._take_answers(now)
            return True
        leg = self.leg_at(remote, way)
        if leg is None or not leg.client.receive(data, now):
            return False
        self._take_news(leg, now)
        return True

    def handle_timeout(self, now: float) -> None:
        self._asking.probes.handle_timeout(now)
        self._take_answers(now)
        for leg in list(self.legs()):
            leg.client.handle_timeout(now)
            self._take_news(leg, now)
        for relay in self._relays.values():
            if now >= relay.ask_at:
                if not relay.addresses:
                    self._allocations.wishes.append(Resolve(relay.place.name, relay.place.hosts))
                self._asking.ask(relay, now)
            relay.retry_at = {one: at for one, at in relay.retry_at.items() if at > now}
        self._consider(now)

    def next_deadline(self) -> Deadline | None:
        moments = [self._asking.probes.next_deadline(), *(leg.client.next_deadline() for leg in self.legs())]
        for relay in self._relays.values():
            at = min(relay.ask_at, NEVER if relay.drop_at is None else relay.drop_at, *relay.retry_at.values())
            moments.append(Deadline(at, f"the relay {relay.place.name} is to be asked"))
        return min((one for one in moments if one is not None and one.at != NEVER), default=None)

    def take_transmits(self) -> list[ControlDatagram]:
        taken, self._allocations.last_words = self._allocations.last_words, []
        taken += self._asking.probes.take_transmits()
        for leg in self.legs():
            taken += leg.take_transmits()
        return taken

    def take_events(self) -> list[Event]:
        taken, self._allocations.events = self._allocations.events, []
        return taken

    def take_wishes(self) -> list[Wish]:
        taken, self._allocations.wishes = self._allocations.wishes, []
        return taken

    def _take_answers(self, now: float) -> None:
        self._answers.take(self._relays, now)
        self._consider(now)

    def _take_news(self, leg: Leg, now: float) -> None:
        relay = self._relays.get(leg.relay)
        if relay is not None:
            self._allocations.take_news(relay, leg, now)

    def _consider(self, now: float) -> None:
        self._allocations.consider(self._relays.values(), now)
