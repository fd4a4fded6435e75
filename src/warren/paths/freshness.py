"""Whether a request is new: replays are answered, as RFC 8489 wants of a server, and have no other effect."""

from __future__ import annotations

from typing import Final

from warren.paths.pacing import Bucket

WINDOW: Final = 1024
"""Requests that overtook each other by so many numbers still count; a birthday spreads 256 over several paths."""
STRANGE_PER_S: Final = 2.0
"""Requests of an epoch that no answer has proven yet: a peer that just started, or a very old replay."""
STRANGE_BURST: Final = 32.0


class Freshness:
    """One peer's. Its epoch is proven by an answer to a check of ours: nobody else can make one, and none is old."""

    def __init__(self, now: float) -> None:
        self._epoch: int | None = None
        self._newest = 0
        self._seen: set[int] = set()
        self._strange = Bucket(STRANGE_PER_S, STRANGE_BURST, now)

    def proven(self, epoch: int) -> bool:
        """Returns whether the peer began anew since the last time."""
        if epoch == self._epoch:
            return False
        anew = self._epoch is not None
        self._epoch, self._newest = epoch, 0
        self._seen.clear()
        return anew

    def accepts(self, epoch: int, order: int, now: float) -> bool:
        if epoch != self._epoch:
            return self._strange.take(now)
        if order in self._seen or order + WINDOW <= self._newest:
            return False
        self._seen.add(order)
        if order > self._newest:
            self._newest = order
            if len(self._seen) > 2 * WINDOW:
                self._seen = {one for one in self._seen if one + WINDOW > order}
        return True
