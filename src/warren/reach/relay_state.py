"""How this node stands with one relay: what is known of it, what is used of it, and when it is next asked or tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from warren.model.tunnel import IPAddress, TransportAddress
from warren.reach.leg import Leg
from warren.reach.relay_values import RelayPlace, RelayStatus, Transport

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
NEVER: Final = float("inf")


@dataclass(slots=True)
class RelayState:
    """Its owner is :class:`warren.reach.relays.Relays`."""

    place: RelayPlace
    addresses: tuple[IPAddress, ...] = ()
    resolved: bool = False
    udp: Literal["asking", "answers", "silent"] = "asking"
    server: TransportAddress | None = None
    interface: int = 0
    """The index of the one by which it answered last; 0: it is not known."""
    rtt_s: float | None = None
    ask_at: float = NEVER
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

    def pause(self, *, active: bool) -> float:
        """How long until it is asked again. ``active``: there is traffic."""
        if self.legs:
            return HEARTBEAT_S if active else HEARTBEAT_IDLE_S
        return STANDBY_S if self.udp == "answers" else ASK_AGAIN_S

    def back_off(self, transport: Transport, now: float, why: str, *, final: bool = False) -> None:
        """It failed over ``transport``, and is left alone for a while. ``final``: it refused."""
        self.why = why
        wait_s = self.wait_s.get(transport, RETRY_FIRST_S)
        self.wait_s[transport] = min(4 * wait_s, REFUSED_S) if final else min(2 * wait_s, RETRY_MAX_S)
        self.retry_at[transport] = now + wait_s

    def use_credentials(self, place: RelayPlace, now: float) -> None:
        """``place`` is the one of before with other credentials: allocations go on with them."""
        self.place = place
        self.retry_at.clear()
        self.wait_s.clear()
        for leg in self.legs.values():
            leg.client.credentials(place.username, place.password, now)

    def status(self) -> RelayStatus:
        """The same for people."""
        leg = next((leg for leg in self.legs.values() if leg.ready), None) or next(iter(self.legs.values()), None)
        state: Literal["ready", "asking", "standby", "failed"] = "standby"
        if leg is not None:
            state = "ready" if leg.ready else "asking"
        elif self.why:
            state = "failed"
        elif self.udp == "asking" or self.connecting is not None:
            state = "asking"
        return RelayStatus(
            name=self.place.name,
            state=state,
            transport=leg.transport if leg is not None else self.connecting,
            address=leg.server if leg is not None and leg.transport == "udp" else self.server,
            relayed=leg.client.relayed if leg is not None and leg.ready else (),
            rtt_s=self.rtt_s,
            why=self.why if leg is None or not leg.ready else "",
        )
