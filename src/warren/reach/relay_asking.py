"""Asks relays whether they answer, and how this node looks from there."""

from __future__ import annotations

from collections.abc import Callable

from warren.reach.probes import Probes
from warren.reach.relay_state import RelayState
from warren.reach.relay_values import Transport


class Asking:
    """``probes`` is the machine below, each request tagged with transport and name of the relay."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self.probes: Probes[tuple[Transport, str]] = Probes(random)
        self.active = False
        """There is traffic: relays in use are asked more often."""

    def ask(self, relay: RelayState, now: float) -> None:
        """Whether it answers, over all that is used of it, or by all its addresses."""
        name = relay.place.name
        leg = relay.legs.get("udp")
        for server in [leg.server] if leg is not None else relay.servers():
            self.probes.ask(server, ("udp", name), now)
        for transport, other in relay.legs.items():
            if transport != "udp":
                self.probes.ask(other.server, (transport, name), now)
        relay.ask_at = now + relay.pause(active=self.active)

    def asks(self, relay: RelayState) -> bool:
        """Whether an answer over UDP is still waited for."""
        return any(self.probes.asks(("udp", relay.place.name), one) for one in relay.servers())
