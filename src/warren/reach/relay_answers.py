"""What follows from a relay's answer to a probe, or from none: whether it lives, which way it is, and what is left of
the allocation there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from warren.model.tunnel import TransportAddress
from warren.reach.leg import Leg
from warren.reach.probes import Answered, Silent
from warren.reach.relay_allocations import Allocations
from warren.reach.relay_asking import Asking
from warren.reach.relay_state import RelayState
from warren.reach.relay_values import BasesChanged, Reflected, Transport

Others = Callable[[str, int, float], Leg | None]
"""Gives up the allocation that another machine has at the relay of a name by an interface, if there is one, now."""


class Answers:
    """Part of :class:`warren.reach.relays.Relays`, whose states it changes."""

    def __init__(self, asking: Asking, allocations: Allocations, others: Others | None) -> None:
        self._asking = asking
        self._allocations = allocations
        self._others = others

    def take(self, relays: Mapping[str, RelayState], now: float) -> None:
        """Whatever the probes have to tell."""
        for event in self._asking.probes.take_events():
            transport, name = event.tag
            relay = relays.get(name)
            if relay is None:
                continue
            if isinstance(event, Silent):
                self._silent(relay, transport, event.server, now)
            elif transport == "udp":
                self._answers(relay, event, now)
            elif (leg := relay.legs.get(transport)) is not None and leg.server == event.server:
                relay.rtt_s = event.rtt_s

    def _answers(self, relay: RelayState, event: Answered[tuple[Transport, str]], now: float) -> None:
        if relay.udp != "answers" and "udp" not in relay.retry_at:
            relay.why = ""
        if relay.server in {None, event.server} or relay.udp != "answers":
            relay.server, relay.rtt_s = event.server, event.rtt_s
        relay.udp = "answers"
        self._came_by(relay, event.interface, now)
        leg = relay.legs.get("udp")
        if leg is not None and leg.ready and leg.client.mapped not in {None, event.mapped}:
            # Another address, or a NAT that forgot: the allocation is not ours now.
            self._allocations.drop(relay, leg, close=False)
        self._allocations.events.append(Reflected(relay.place.name, event.mapped))

    def _came_by(self, relay: RelayState, interface: int, now: float) -> None:
        """The relay answered by that interface: what follows the routes goes there by it, too."""
        if not interface or interface == relay.interface:
            return
        relay.interface = interface
        taken = None if self._others is None else self._others(relay.place.name, interface, now)
        if taken is not None:  # two from one address and port are one to the relay: it would refuse another
            self._allocations.take_over(relay, taken)
        leg = relay.legs.get("udp")
        if leg is not None and not leg.way.interface and leg.interface != interface:
            leg.interface = interface
            self._allocations.events.append(BasesChanged())

    def _silent(self, relay: RelayState, transport: Transport, server: TransportAddress, now: float) -> None:
        name = relay.place.name
        leg = relay.legs.get(transport)
        if leg is not None and leg.server == server:
            self._allocations.drop(relay, leg, close=True)
            relay.why = f"the relay {name} does not answer any more"
            if transport == "udp":
                relay.udp, relay.server = "asking", None
                self._asking.ask(relay, now)  # by its other addresses too
            else:
                relay.back_off(transport, now, relay.why)
        elif transport == "udp" and not self._asking.asks(relay):
            if relay.udp == "answers" and relay.server != server:
                return
            relay.udp, relay.server = "silent", None
            relay.why = relay.why or f"the relay {name} does not answer over UDP"
