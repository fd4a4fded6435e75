"""How many packets may leave in a while."""

from __future__ import annotations


class Bucket:
    """A token bucket: ``per_s`` on average, ``burst`` at once. Time is handed in."""

    __slots__ = ("_at", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self.per_s = per_s
        self.burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, count: float = 1.0) -> bool:
        """Whether it may be done now; if so it is counted."""
        self._fill(now)
        if self._tokens < count - 1e-6:  # what `wait` said must be enough, whatever rounding does
            return False
        self._tokens -= count
        return True

    def wait(self, now: float, count: float = 1.0) -> float:
        """How many seconds until :meth:`take` succeeds if nobody else takes."""
        self._fill(now)
        return max(0.0, (count - self._tokens) / self.per_s)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_s)
            self._at = now
