"""The lease that is held at a gateway: how long, what is known of it, and when it is to be looked after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.proto.portmap.standing import Event, Gained, Lost, Standing
from warren.proto.portmap.values import Gateway, Lease, Mapped
from warren.proto.wireguard.timers import NEVER, Deadline

WATCH_S: Final = 300.0
"""Between two looks whether a lease still holds: a gateway that lost it in a restart is noticed within this."""
RENEW_AGAIN_LEAST_S: Final = 4.0  # RFC 6887 §11.2.1
RECOVER_FIRST_S: Final = 4.0
RECOVER_MOST_S: Final = 600.0
"""Between two renewals for the gateway having begun anew: the pause doubles, so that a storm of epochs costs little."""


class Holding:
    """At most one lease. ``draw`` gives a number from 0 to 1, by which hosts that began together drift apart.

    ``renew_at`` and ``watch_at`` say when that is due; ``expires_at`` when all is over.
    """

    def __init__(self, gateway: Gateway, draw: Callable[[], float]) -> None:
        self.lease: Lease | None = None
        self.standing: Standing | None = None
        """Of the protocol it was given by; there is one exactly when there is a lease."""
        self.renew_at = self.watch_at = self.expires_at = NEVER
        self._gateway = gateway
        self._draw = draw
        self._verified = False
        self._other_outside = False
        self._recovered_at = -NEVER
        self._pause_s = RECOVER_FIRST_S

    # Having it

    def take(self, standing: Standing, lease: Lease, now: float) -> list[Event]:
        """From now on this is held; what that changes for others."""
        events: list[Event] = []
        if self.lease is None or self.lease.external != lease.external:
            events = [*self.drop("has given another address or port"), Gained(self._gateway, lease)]
        self.lease, self.standing = lease, standing
        self.expires_at = now + lease.lifetime_s
        self.renew_at = now + lease.lifetime_s * (1 / 2 + self._draw() / 8)  # RFC 6887 §11.2.1
        self.watch_later(now)
        return events

    def drop(self, why: str) -> list[Event]:
        """Nothing is held any more; ``why`` completes "the gateway …"."""
        lost: list[Event] = [] if self.lease is None else [Lost(self._gateway, self.lease, why)]
        self.lease = self.standing = None
        self._verified = self._other_outside = False
        self.renew_at = self.watch_at = self.expires_at = NEVER
        return lost

    # Looking after it

    def renew_again(self, now: float) -> None:
        """A renewal was not answered: again at half of what is left (RFC 6887 §11.2.1)."""
        self.renew_at = now + max(RENEW_AGAIN_LEAST_S, (self.expires_at - now) / 2)

    def watch_later(self, now: float) -> None:
        self.watch_at = now + WATCH_S * (0.9 + self._draw() / 5)

    def watch_by(self, at: float) -> None:
        """Look whether it is still there at that time, or earlier."""
        if self.lease is not None:
            self.watch_at = min(self.watch_at, at)

    def recover(self, now: float, delay_s: float) -> None:
        """The gateway seems to have lost it: renew it after ``delay_s``, or when it is in order again."""
        if self.lease is None:
            return
        if now - self._recovered_at > RECOVER_MOST_S:
            self._pause_s = RECOVER_FIRST_S
        at = max(now + delay_s, self._recovered_at + self._pause_s)
        if at < self.renew_at:
            self.renew_at = self._recovered_at = at
            self._pause_s = min(2 * self._pause_s, RECOVER_MOST_S)

    def deadlines(self, *, is_busy: bool) -> list[Deadline]:
        """``is_busy``: it is being looked after right now."""
        if self.lease is None:
            return []
        over = Deadline(self.expires_at, "the lease was not renewed")
        if is_busy:
            return [over]
        renew = Deadline(self.renew_at, "half of the lease is over, or the gateway began anew")
        return [over, renew, Deadline(self.watch_at, "does the gateway still hold the lease?")]

    # Knowing of it

    def mapped(self, now: float) -> Mapped | None:
        lease = self.lease
        if lease is None:
            return None
        double_nat = lease.double_nat or self._other_outside
        left_s = max(0.0, self.expires_at - now)
        return Mapped(lease.external, lease.protocol, left_s, self._verified, double_nat, self._gateway)

    def confirm(self, address: TransportAddress) -> bool:
        """Something came in from outside by ``address``. Whether that is this lease."""
        ours = self.lease is not None and self.lease.external == address
        self._verified |= ours
        return ours

    def observed(self, address: TransportAddress, *, through_this: bool) -> bool:
        """The outside sees this host's port at ``address``; ``through_this``: certainly through this gateway. Whether
        that changes what is known.
        """
        lease = self.lease
        if lease is None or lease.external.ip.version != address.ip.version:
            return False
        before = self._verified, self._other_outside
        if address == lease.external:
            self._verified, self._other_outside = True, False
        elif through_this:
            self._other_outside = address.ip != lease.external.ip
        return before != (self._verified, self._other_outside)
