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
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.values import Base
from warren.proto.turn.client_events import Bound, Data, Failed, Lost, Ready
from warren.proto.wireguard.timers import Deadline
from warren.reach.leg import Leg, MakeClient
from warren.reach.probes import Answered, Probes, Silent
from warren.reach.relay_values import (
    BasesChanged,
    Came,
    ChannelBound,
    Connect,
    Disconnect,
    Event,
    Reflected,
    RelayPlace,
    RelayStatus,
    Resolve,
    Transport,
    UdpBlocked,
    Wish,
)

LEGS: Final = 2
"""One is used, the other takes over when it dies."""
RELAYS_MAX: Final = 32
"""Sixteen of the NetworkSpec and as many members."""
HEARTBEAT_S: Final = 3.0
"""How often a relay in use is asked whether it lives while there is traffic: with the silence of two seconds, a dead
one is left within five.
"""
HEARTBEAT_IDLE_S: Final = 25.0
"""Without traffic, which also keeps the NAT's mapping of the tunnel's port."""
ASK_AGAIN_S: Final = 20.0
"""How often one that does not answer over UDP is asked again."""
STANDBY_S: Final = 120.0
RETRY_FIRST_S: Final = 2.0
RETRY_MAX_S: Final = 60.0
REFUSED_S: Final = 300.0
"""The longest pause between refusals that trying again hardly helps against: a member's relay may only not have heard
of this node yet. Other credentials end it.
"""
OVERLAP_S: Final = 6.0
"""A stream goes on so long after UDP works again: paths move in the meantime."""

_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Relay:
    place: RelayPlace
    addresses: tuple[IPAddress, ...] = ()
    resolved: bool = False
    udp: Literal["asking", "answers", "silent"] = "asking"
    server: TransportAddress | None = None
    rtt_s: float | None = None
    ask_at: float = _NEVER
    legs: dict[Transport, Leg] = field(default_factory=dict)
    connecting: Transport | None = None
    tries: int = 0
    retry_at: dict[Transport, float] = field(default_factory=dict)
    wait_s: dict[Transport, float] = field(default_factory=dict)
    drop_at: float | None = None
    why: str = ""

    def servers(self) -> list[TransportAddress]:
        port = self.place.udp_port
        return [] if port is None else [TransportAddress(ip, port) for ip in self.addresses]

    def may(self, transport: Transport, now: float) -> bool:
        """Whether enough time has passed since it failed."""
        return now >= self.retry_at.get(transport, 0.0)


class Relays:
    """Single owner; never fails. What needs a socket or a name server is a :class:`Wish`, answered by the methods named
    in it.
    """

    def __init__(self, random: Callable[[int], bytes], make_client: MakeClient) -> None:
        self._active = False
        self._probes: Probes[tuple[Transport, str]] = Probes(random)
        self._make_client = make_client
        self._relays: dict[str, _Relay] = {}
        self._wishes: list[Wish] = []
        self._events: list[Event] = []
        self._last_words: list[ControlDatagram] = []
        self._blocked = False

    # From outside

    def keep(self, places: Iterable[RelayPlace], now: float) -> None:
        """These may be used from now on, and no others."""
        wanted = {place.name: place for place in list(places)[:RELAYS_MAX]}
        if all(name in self._relays and self._relays[name].place == place for name, place in wanted.items()) and len(
            wanted
        ) == len(self._relays):
            return
        for name in [name for name in self._relays if name not in wanted]:
            self._forget(self._relays.pop(name), now)
        for name, place in wanted.items():
            known = self._relays.get(name)
            if known is not None and known.place == place:
                continue
            if known is not None and replace(known.place, username=place.username, password=place.password) == place:
                self._use_credentials(known, place, now)
                continue
            if known is not None:
                self._forget(known, now)
            self._relays[name] = _Relay(place)
            self._wishes.append(Resolve(name, place.hosts))
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
            self._ask(relay, now)
        else:
            relay.udp = "silent"
            relay.why = why if not relay.addresses else ""
            relay.ask_at = _NEVER if relay.addresses else now + ASK_AGAIN_S
        self._consider(now)

    def connected(self, name: str, transport: Transport, server: TransportAddress, now: float) -> None:
        """The stream is there; the data plane reaches its near end at ``server``."""
        relay = self._relays.get(name)
        if relay is None or relay.connecting != transport:
            self._wishes.append(Disconnect(name, transport))
            return
        relay.connecting = None
        self._begin(relay, transport, server, now)

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
            self._drop(relay, leg, close=False)
        self._back_off(relay, transport, now, why)
        self._consider(now)

    def network_changed(self, now: float) -> None:
        """Addresses or routes of this host are others: see at once what of it still works."""
        self._probes.forget()
        for relay in self._relays.values():
            relay.retry_at.clear()
            relay.wait_s.clear()
            if not relay.addresses and relay.resolved:
                self._wishes.append(Resolve(relay.place.name, relay.place.hosts))
            self._ask(relay, now)
        self._consider(now)

    def set_active(self, active: bool, now: float) -> None:
        """Whether there is traffic: relays in use are then asked more often."""
        began, self._active = active and not self._active, active
        for relay in self._relays.values():
            if relay.legs and began:
                relay.ask_at = min(relay.ask_at, now + HEARTBEAT_S)

    def doubt(self, base: Base | None, now: float) -> None:
        """Nothing comes through that allocation any more (None: through any): see whether the relay is there."""
        for relay in self._relays.values():
            if any(base is None or leg.base == base for leg in relay.legs.values()):
                self._ask(relay, now)

    def close(self, now: float) -> None:
        """Give all allocations back."""
        for relay in self._relays.values():
            self._forget(relay, now)
        self._relays.clear()

    # What is there

    def legs(self) -> Iterator[Leg]:
        for relay in self._relays.values():
            yield from relay.legs.values()

    def leg(self, base: Base) -> Leg | None:
        return next((leg for leg in self.legs() if leg.base == base), None)

    def leg_at(self, server: TransportAddress) -> Leg | None:
        """The one whose server it is."""
        return next((leg for leg in self.legs() if leg.server == server), None)

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
        return tuple(_status(relay) for relay in self._relays.values())

    # The machine's verbs

    def receive(self, data: bytes, remote: TransportAddress, now: float) -> bool:
        """False: it is not from a relay, or not of an allocation."""
        if self._probes.receive(data, remote, now):
            self._take_answers(now)
            return True
        leg = self.leg_at(remote)
        if leg is None or not leg.client.receive(data, now):
            return False
        self._take_news(leg, now)
        return True

    def handle_timeout(self, now: float) -> None:
        self._probes.handle_timeout(now)
        self._take_answers(now)
        for leg in list(self.legs()):
            leg.client.handle_timeout(now)
            self._take_news(leg, now)
        for relay in self._relays.values():
            if now >= relay.ask_at:
                if not relay.addresses:
                    self._wishes.append(Resolve(relay.place.name, relay.place.hosts))
                self._ask(relay, now)
            relay.retry_at = {one: at for one, at in relay.retry_at.items() if at > now}
        self._consider(now)

    def next_deadline(self) -> Deadline | None:
        moments = [self._probes.next_deadline(), *(leg.client.next_deadline() for leg in self.legs())]
        for relay in self._relays.values():
            at = min(relay.ask_at, _NEVER if relay.drop_at is None else relay.drop_at, *relay.retry_at.values())
            moments.append(Deadline(at, f"the relay {relay.place.name} is to be asked"))
        return min((one for one in moments if one is not None and one.at != _NEVER), default=None)

    def take_transmits(self) -> list[ControlDatagram]:
        taken, self._last_words = self._last_words, []
        taken += self._probes.take_transmits()
        for leg in self.legs():
            taken += leg.take_transmits()
        return taken

    def take_events(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    def take_wishes(self) -> list[Wish]:
        taken, self._wishes = self._wishes, []
        return taken

    # Asking

    def _ask(self, relay: _Relay, now: float) -> None:
        name = relay.place.name
        leg = relay.legs.get("udp")
        for server in [leg.server] if leg is not None else relay.servers():
            self._probes.ask(server, ("udp", name), now)
        for transport, other in relay.legs.items():
            if transport != "udp":
                self._probes.ask(other.server, (transport, name), now)
        relay.ask_at = now + self._pause(relay)

    def _pause(self, relay: _Relay) -> float:
        if relay.legs:
            return HEARTBEAT_S if self._active else HEARTBEAT_IDLE_S
        return STANDBY_S if relay.udp == "answers" else ASK_AGAIN_S

    def _take_answers(self, now: float) -> None:
        for event in self._probes.take_events():
            transport, name = event.tag
            relay = self._relays.get(name)
            if relay is None:
                continue
            if isinstance(event, Silent):
                self._silent(relay, transport, event.server, now)
            elif transport == "udp":
                self._answers(relay, event)
            elif (leg := relay.legs.get(transport)) is not None and leg.server == event.server:
                relay.rtt_s = event.rtt_s
        self._consider(now)

    def _answers(self, relay: _Relay, event: Answered[tuple[Transport, str]]) -> None:
        if relay.udp != "answers" and "udp" not in relay.retry_at:
            relay.why = ""
        if relay.server in {None, event.server} or relay.udp != "answers":
            relay.server, relay.rtt_s = event.server, event.rtt_s
        relay.udp = "answers"
        leg = relay.legs.get("udp")
        if leg is not None and leg.ready and leg.client.mapped not in {None, event.mapped}:
            self._drop(relay, leg, close=False)  # another address, or a NAT that forgot: the allocation is not ours now
        self._events.append(Reflected(relay.place.name, event.mapped))

    def _silent(self, relay: _Relay, transport: Transport, server: TransportAddress, now: float) -> None:
        name = relay.place.name
        leg = relay.legs.get(transport)
        if leg is not None and leg.server == server:
            self._drop(relay, leg, close=True)
            relay.why = f"the relay {name} does not answer any more"
            if transport == "udp":
                relay.udp, relay.server = "asking", None
                self._ask(relay, now)  # by its other addresses too
            else:
                self._back_off(relay, transport, now, relay.why)
        elif transport == "udp" and not any(self._probes.asks(("udp", name), one) for one in relay.servers()):
            if relay.udp == "answers" and relay.server != server:
                return
            relay.udp, relay.server = "silent", None
            relay.why = relay.why or f"the relay {name} does not answer over UDP"

    # Allocations

    def _consider(self, now: float) -> None:
        usable = [relay for relay in self._relays.values() if relay.place.username]
        count = sum(1 for relay in usable if "udp" in relay.legs)
        for relay in sorted(usable, key=lambda relay: relay.rtt_s or 0.0):
            if count < LEGS and "udp" not in relay.legs and relay.server is not None and relay.may("udp", now):
                self._begin(relay, "udp", relay.server, now)
                count += 1
        self._consider_streams(usable, now)
        silent = any(relay.udp == "silent" and relay.servers() for relay in self._relays.values())
        blocked = silent and not any(relay.udp == "answers" for relay in self._relays.values())
        if blocked != self._blocked:
            self._blocked = blocked
            self._events.append(UdpBlocked(blocked))

    def _consider_streams(self, usable: list[_Relay], now: float) -> None:
        ready = sum(1 for relay in usable if "udp" in relay.legs and relay.legs["udp"].ready)
        missing = LEGS - sum(1 for relay in usable if relay.legs or relay.connecting)
        for relay in usable:
            streams: list[Transport] = [transport for transport in relay.legs if transport != "udp"]
            has_udp = "udp" in relay.legs and relay.legs["udp"].ready
            if not streams or not (has_udp or ready >= LEGS):
                relay.drop_at = None
            elif relay.drop_at is None:
                relay.drop_at = now + OVERLAP_S
            elif now >= relay.drop_at:
                relay.drop_at = None
                for transport in streams:
                    self._drop(relay, relay.legs[transport], close=True)
            if missing > 0 and relay.udp == "silent" and not relay.legs and relay.connecting is None:
                missing -= self._connect(relay, now)

    def _connect(self, relay: _Relay, now: float) -> bool:
        streams = relay.place.streams()
        transport = streams[relay.tries % len(streams)] if streams else None
        if transport is None or not relay.may(transport, now):
            return False
        relay.connecting = transport
        self._wishes.append(Connect(relay.place, transport))
        return True

    def _begin(self, relay: _Relay, transport: Transport, server: TransportAddress, now: float) -> None:
        client = self._make_client(server, relay.place, transport, now)
        relay.legs[transport] = Leg(relay.place, transport, server, client)
        relay.ask_at = min(relay.ask_at, now + self._pause(relay))

    def _drop(self, relay: _Relay, leg: Leg, *, close: bool) -> None:
        """``close``: also the stream below."""
        relay.legs.pop(leg.transport, None)
        if leg.transport != "udp" and close:
            self._wishes.append(Disconnect(relay.place.name, leg.transport))
        if leg.ready:
            self._events.append(BasesChanged())

    def _forget(self, relay: _Relay, now: float) -> None:
        if relay.connecting is not None:
            self._wishes.append(Disconnect(relay.place.name, relay.connecting))
        for leg in list(relay.legs.values()):
            leg.client.close(now)
            self._last_words += leg.take_transmits()
            self._drop(relay, leg, close=True)

    def _take_news(self, leg: Leg, now: float) -> None:
        relay = self._relays.get(leg.relay)
        if relay is None:
            return
        for event in leg.client.take_events():
            match event:
                case Data(peer, data):
                    self._events.append(Came(leg.base, peer, data))
                case Bound(peer, _):
                    self._events.append(ChannelBound(leg.base, peer))
                case Ready():
                    leg.ready = True
                    relay.why, relay.tries = "", 0
                    relay.wait_s.pop(leg.transport, None)
                    self._events.append(BasesChanged())
                case Failed(why, final):
                    self._drop(relay, leg, close=True)
                    self._back_off(relay, leg.transport, now, why, final=final)
                case Lost(why):
                    self._drop(relay, leg, close=True)
                    self._back_off(relay, leg.transport, now, why)
                    self._ask(relay, now)

    def _back_off(self, relay: _Relay, transport: Transport, now: float, why: str, *, final: bool = False) -> None:
        relay.why = why
        wait_s = relay.wait_s.get(transport, RETRY_FIRST_S)
        relay.wait_s[transport] = min(4 * wait_s, REFUSED_S) if final else min(2 * wait_s, RETRY_MAX_S)
        relay.retry_at[transport] = now + wait_s

    def _use_credentials(self, relay: _Relay, place: RelayPlace, now: float) -> None:
        relay.place = place
        relay.retry_at.clear()
        relay.wait_s.clear()
        for leg in relay.legs.values():
            leg.client.credentials(place.username, place.password, now)


def _status(relay: _Relay) -> RelayStatus:
    leg = next((leg for leg in relay.legs.values() if leg.ready), None) or next(iter(relay.legs.values()), None)
    state: Literal["ready", "asking", "standby", "failed"] = "standby"
    if leg is not None:
        state = "ready" if leg.ready else "asking"
    elif relay.why:
        state = "failed"
    elif relay.udp == "asking" or relay.connecting is not None:
        state = "asking"
    return RelayStatus(
        name=relay.place.name,
        state=state,
        transport=leg.transport if leg is not None else relay.connecting,
        address=leg.server if leg is not None and leg.transport == "udp" else relay.server,
        relayed=leg.client.relayed if leg is not None and leg.ready else (),
        rtt_s=relay.rtt_s,
        why=relay.why if leg is None or not leg.ready else "",
    )
