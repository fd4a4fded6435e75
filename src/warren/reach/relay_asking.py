"""Asks relays whether they answer, and how this node looks from there."""

from __future__ import annotations

from collections.abc import Callable

from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.reach.probes import Probes
from warren.reach.relay_state import RelayState
from warren.reach.relay_values import Transport
from warren.reach.uplink import Uplink


class Asking:
    """``probes`` is the machine below, each request tagged with transport and name of the relay. ``uplink``: the one by
    which UDP goes; None: as the routes have it.
    """

    def __init__(self, random: Callable[[int], bytes], uplink: Uplink | None = None) -> None:
        self._uplink = uplink
        self.probes: Probes[tuple[Transport, str]] = Probes(random)
        self.active = False
        """There is traffic: relays in use are asked more often."""

    def ask(self, relay: RelayState, now: float) -> None:
        """Whether it answers, over all that is used of it, or by all its addresses."""
        name = relay.place.name
        leg = relay.legs.get("udp")
        for server in [leg.server] if leg is not None else relay.servers():
            self.probes.ask(server, ("udp", name), now, self.way_to(server))
        for transport, other in relay.legs.items():
            if transport != "udp":
                self.probes.ask(other.server, (transport, name), now)
        relay.ask_at = now + relay.pause(active=self.active)

    def asks(self, relay: RelayState) -> bool:
        """Whether an answer over UDP is still waited for."""
        return any(self.probes.asks(("udp", relay.place.name), one, self.way_to(one)) for one in relay.servers())

    def way_to(self, server: TransportAddress) -> Way:
        """How UDP gets there."""
        return PLAIN if self._uplink is None else self._uplink.way_to(server)
