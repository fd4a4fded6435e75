"""A token bucket for work that must not crowd out other work."""

from __future__ import annotations


class Budget:
    """``rate`` units of work per second, at most ``burst`` saved up. Time is passed in, in seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, now: float, most: int) -> int:
        """How many units may be done now, at most ``most``; they count as done."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        granted = min(most, int(self._tokens))
        self._tokens -= granted
        return granted

    def wait(self, now: float) -> float:
        """Seconds until :meth:`take` grants at least one unit."""
        tokens = self._tokens + (now - self._at) * self._rate
        return 0.0 if tokens >= 1 else (1 - tokens) / self._rate
