"""Whether anybody wants a path to one peer, and whether data flows by it."""

from __future__ import annotations

from typing import Final

from warren.paths.pair import NEVER

WANTED_S: Final = 30.0
LOST_WANTED_S: Final = 120.0
"""A path that was lost is looked for so long even if no data flows: the peer may want to send."""
ACTIVE_S: Final = 10.0


class Demand:
    """Owned by one PeerPaths."""

    def __init__(self) -> None:
        self._wanted_until = -NEVER
        self._active_until = -NEVER

    def is_wanted(self, now: float) -> bool:
        return now < self._wanted_until

    def is_active(self, now: float) -> bool:
        return now < self._active_until

    def want(self, now: float, for_s: float = WANTED_S) -> None:
        self._wanted_until = max(self._wanted_until, now + for_s)

    def use(self, now: float) -> None:
        """Data flows."""
        self._active_until = now + ACTIVE_S
        self.want(now, ACTIVE_S)
