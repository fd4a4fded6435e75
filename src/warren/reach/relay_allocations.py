"""The allocations at relays: two over UDP where that passes, else one more over a stream, and what becomes of each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress
from warren.proto.turn.client_events import Bound, Data, Failed, Lost, Ready
from warren.reach.leg import Leg, MakeClient
from warren.reach.relay_asking import Asking
from warren.reach.relay_state import RelayState
from warren.reach.relay_values import (
    BasesChanged,
    Came,
    ChannelBound,
    Connect,
    Disconnect,
    Event,
    Transport,
    UdpBlocked,
    Wish,
)

LEGS: Final = 2
"""One is used, the other takes over when it dies."""
OVERLAP_S: Final = 6.0
"""A stream goes on so long after UDP works again: paths move in the meantime."""


class Allocations:
    """``wishes``, ``events`` and ``last_words``, of allocations given back, are for the owner to take."""

    def __init__(self, make_client: MakeClient, asking: Asking, legs: int = LEGS) -> None:
        self.wishes: list[Wish] = []
        self.events: list[Event] = []
        self.last_words: list[ControlDatagram] = []
        self._make_client = make_client
        self._asking = asking
        self._legs = legs
        self._blocked = False

    def consider(self, relays: Collection[RelayState], now: float) -> None:
        """Begin what is missing of the best two, give up streams that are needed no more, tell whether UDP passes."""
        usable = [relay for relay in relays if relay.place.username]
        count = sum(1 for relay in usable if "udp" in relay.legs)
        for relay in sorted(usable, key=lambda relay: relay.rtt_s or 0.0):
            if count < self._legs and "udp" not in relay.legs and relay.server is not None and relay.may("udp", now):
                self.begin(relay, "udp", relay.server, now)
                count += 1
        self._consider_streams(usable, now)
        silent = any(relay.udp == "silent" and relay.servers() for relay in relays)
        blocked = silent and not any(relay.udp == "answers" for relay in relays)
        if blocked != self._blocked:
            self._blocked = blocked
            self.events.append(UdpBlocked(blocked))

    def _consider_streams(self, usable: list[RelayState], now: float) -> None:
        ready = sum(1 for relay in usable if "udp" in relay.legs and relay.legs["udp"].ready)
        missing = self._legs - sum(1 for relay in usable if relay.legs or relay.connecting)
        for relay in usable:
            streams: list[Transport] = [transport for transport in relay.legs if transport != "udp"]
            has_udp = "udp" in relay.legs and relay.legs["udp"].ready
            if not streams or not (has_udp or ready >= self._legs):
                relay.drop_at = None
            elif relay.drop_at is None:
                relay.drop_at = now + OVERLAP_S
            elif now >= relay.drop_at:
                relay.drop_at = None
                for transport in streams:
                    self.drop(relay, relay.legs[transport], close=True)
            if missing > 0 and relay.udp == "silent" and not relay.legs and relay.connecting is None:
                missing -= self._connect(relay, now)

    def _connect(self, relay: RelayState, now: float) -> bool:
        streams = relay.place.streams()
        transport = streams[relay.tries % len(streams)] if streams else None
        if transport is None or not relay.may(transport, now):
            return False
        relay.connecting = transport
        self.wishes.append(Connect(relay.place, transport))
        return True

    def begin(self, relay: RelayState, transport: Transport, server: TransportAddress, now: float) -> None:
        """Ask for an allocation."""
        client = self._make_client(server, relay.place, transport, now)
        way = self._asking.way_to(server) if transport == "udp" else PLAIN
        leg = relay.legs[transport] = Leg(relay.place, transport, server, client, way)
        if transport == "udp":
            leg.interface = way.interface or relay.interface
        relay.ask_at = min(relay.ask_at, now + relay.pause(active=self._asking.active))

    def take_over(self, relay: RelayState, leg: Leg) -> None:
        """``leg``, which was another owner's, is used from now on, in place of what is used over UDP."""
        before = relay.legs.get("udp")
        if before is not None:
            self.drop(relay, before, close=False)
        relay.legs["udp"] = leg
        if leg.ready:
            self.events.append(BasesChanged())

    def drop(self, relay: RelayState, leg: Leg, *, close: bool) -> None:
        """The allocation is no more. ``close``: neither is the stream below."""
        relay.legs.pop(leg.transport, None)
        if leg.transport != "udp" and close:
            self.wishes.append(Disconnect(relay.place.name, leg.transport))
        if leg.ready:
            self.events.append(BasesChanged())

    def forget(self, relay: RelayState, now: float) -> None:
        """Give all that is used of it back."""
        if relay.connecting is not None:
            self.wishes.append(Disconnect(relay.place.name, relay.connecting))
        for leg in list(relay.legs.values()):
            leg.client.close(now)
            self.last_words += leg.take_transmits()
            self.drop(relay, leg, close=True)

    def take_news(self, relay: RelayState, leg: Leg, now: float) -> None:
        """What the TURN client of ``leg`` has to say."""
        for event in leg.client.take_events():
            match event:
                case Data(peer, data):
                    self.events.append(Came(leg.base, peer, data))
                case Bound(peer, _):
                    self.events.append(ChannelBound(leg.base, peer))
                case Ready():
                    leg.ready = True
                    relay.why, relay.tries = "", 0
                    relay.wait_s.pop(leg.transport, None)
                    self.events.append(BasesChanged())
                case Failed(why, final):
                    self.drop(relay, leg, close=True)
                    relay.back_off(leg.transport, now, why, final=final)
                case Lost(why):
                    self.drop(relay, leg, close=True)
                    relay.back_off(leg.transport, now, why)
                    self._asking.ask(relay, now)
