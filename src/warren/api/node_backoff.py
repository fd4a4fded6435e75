"""When to come back to a coordinator: soon when one node lost its way, spread out when all of them did.

Full jitter: each wait is drawn evenly from a window that begins at zero, so that the nodes of a coordinator that
restarted come back at an even rate, whatever their number does at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

LOST_S: Final = 10.0
"""The window after a session was lost, to the same address: a tenth of all nodes in the first second at most."""
MOVE_S: Final = 3.0
"""The window when there is another address to go to; the other replicas are up already."""
FIRST_S: Final = 1.0
"""The window after the first attempt in vain; it doubles each time."""
CEILING_S: Final = 10.0
"""The window it grows to: who comes back after hours is heard within 10 s."""
MEMBERS_PER_S: Final = 100
"""How many nodes a coordinator of two cores takes in a second; the ceiling grows with networks larger than that."""
CEILING_MAX_S: Final = 60.0
STEADY_S: Final = 30.0
"""A session that lasted that long counts as a success."""
FINAL_S: Final = 600.0
"""The window after a refusal that trying again will not change, until an operator does something."""
RETRY_AFTER_MAX_S: Final = 3600.0


class Backoff:
    """The waits of one link. ``random`` gives numbers from 0 to below 1; ``members`` is how many may come at once."""

    def __init__(self, random: Callable[[], float]) -> None:
        self.members = 0
        self._random = random
        self._failures = 0

    def failed(self) -> float:
        """Seconds to wait after an attempt in vain, or a session that did not last."""
        window = min(self._ceiling_s(), FIRST_S * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return window * self._random()

    def lost(self, lasted_s: float, *, elsewhere: bool) -> float:
        """Seconds to wait after a session of ``lasted_s``; ``elsewhere``: it will be tried at another address."""
        if lasted_s < STEADY_S and self._failures:
            return self.failed()
        self._failures = 1
        return (MOVE_S if elsewhere else self._ceiling_s(LOST_S)) * self._random()

    def refused(self, retry_after_s: float | None) -> float:
        """Seconds to wait after a refusal; it is never before what the coordinator asked for."""
        if retry_after_s is None:
            return FINAL_S * (0.5 + 0.5 * self._random())
        asked_s = min(max(retry_after_s, 0.0), RETRY_AFTER_MAX_S)
        return asked_s + self.failed()

    def _ceiling_s(self, least: float = CEILING_S) -> float:
        return min(max(least, self.members / MEMBERS_PER_S), CEILING_MAX_S)
