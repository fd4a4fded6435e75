"""How often an idle path is kept open: every 15 s, or sooner if a NAT on it was seen to forget in between."""

from __future__ import annotations

from typing import Final

from warren.paths.nat import Situation

SHARE: Final = 0.5
"""Of the lifetime that a NAT is known to have."""
GROWS_S: Final = 1800.0
"""So long without trouble, and it is tried half as often again: what looked like a forgetful NAT may have been a
reboot. Twice as long after each time that it was not.
"""


class Keepalive:
    """One peer's. ``interval_s`` is what to use."""

    def __init__(self, usual_s: float, min_s: float, now: float) -> None:
        self._usual_s = usual_s
        self._most_s = usual_s
        self._min_s = min_s
        self._patience_s = GROWS_S
        self._changed_at = now
        self.interval_s = usual_s

    def learn(self, *sides: Situation | None) -> None:
        """What the two nodes say of their NATs."""
        lifetimes = [
            one.lifetime_s
            for side in sides
            if side is not None
            for one in (side.v4, side.v6)
            if one is not None and one.lifetime_s
        ]
        self._most_s = max(self._min_s, min([self._usual_s, *(life * SHARE for life in lifetimes)]))
        self.interval_s = min(self.interval_s, self._most_s)

    def forgotten(self, now: float) -> None:
        """The path had changed, or died, after it was idle for an interval."""
        self.interval_s = max(self._min_s, self.interval_s / 2)
        self._patience_s *= 2
        self._changed_at = now

    def kept(self, now: float) -> None:
        """A keepalive on the idle path was answered, and nothing had changed."""
        if self.interval_s < self._most_s and now - self._changed_at >= self._patience_s:
            self.interval_s = min(self._most_s, self.interval_s * 2)
            self._changed_at = now

    def renew(self, now: float) -> None:
        """Our place in the network is another: nothing is known of its NATs."""
        self.interval_s, self._patience_s, self._changed_at = self._most_s, GROWS_S, now
