"""How often one side of a control connection may do something: both sides of :mod:`messages` agree on these figures.

The coordinator enforces them (``server``); an honest node keeps below them by itself (``client``), so that it never
meets a refusal however often its addresses change.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Pace(NamedTuple):
    """``burst`` at once, and then one every ``interval_s``."""

    burst: int
    interval_s: float


PUBLISH: Final = Pace(20, 3.0)
"""A record is stored, signed for and sent to every member: a roaming node makes a few a minute."""
REPORT: Final = Pace(20, 2.0)
"""A report is stored: at most 64 KiB each."""
SIGNAL: Final = Pace(128, 1 / 32)
"""A signal costs the coordinator one message: enough to talk to 100 peers at once after a change of address."""
MESSAGES: Final = Pace(512, 1 / 64)
"""Everything together, also what is passed over; who sends more is cut off."""


_ONE: Final = 1.0 - 1e-6  # so that one is ready at the very moment that ready_at named, however floats round


class Allowance:
    """A token bucket of one party."""

    __slots__ = ("_at", "_pace", "_tokens")

    def __init__(self, pace: Pace, now: float, *, share: float = 1.0) -> None:
        """Full at ``now``. ``share`` of the pace: who keeps below a limit on purpose leaves room for delays between
        the two clocks, which make regular messages arrive in bunches.
        """
        self._pace = Pace(max(1, int(pace.burst * share)), pace.interval_s / share)
        self._tokens = float(self._pace.burst)
        self._at = now

    def take(self, now: float) -> bool:
        """Whether one more is in order now; if so, it is counted."""
        self._refill(now)
        if self._tokens < _ONE:
            return False
        self._tokens -= 1.0
        return True

    def ready_at(self, now: float) -> float:
        """When :meth:`take` will be in order: now, or later."""
        self._refill(now)
        return now if self._tokens >= _ONE else now + (1.0 - self._tokens) * self._pace.interval_s

    def _refill(self, now: float) -> None:
        gained = (now - self._at) / self._pace.interval_s
        if gained > 0:
            self._tokens = min(float(self._pace.burst), self._tokens + gained)
            self._at = now
