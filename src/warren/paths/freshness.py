"""Whether a request or a signal is new. Replayed requests are answered, as RFC 8489 wants of a server, and have no
other effect; replayed signals have none.
"""

from __future__ import annotations

from typing import Final

from warren.paths.pacing import Bucket

WINDOW: Final = 1024
"""Requests that overtook each other by so many numbers still count; a birthday spreads 256 over several paths."""
STRANGE_PER_S: Final = 2.0
"""Requests of an epoch that no answer has proven yet: a peer that just started, or a very old replay."""
STRANGE_BURST: Final = 32.0
EPOCHS_MAX: Final = 8
"""Of one peer, of which it is remembered which signals came: as often as it was started again lately."""
_PAST: Final = 1 << 32
"""More than any number of a signal."""


class Freshness:
    """One peer's. Its epoch is proven by an answer to a check of ours: nobody else can make one, and none is old."""

    def __init__(self, now: float) -> None:
        self._epoch: int | None = None
        self._newest = 0
        self._seen: set[int] = set()
        self._strange = Bucket(STRANGE_PER_S, STRANGE_BURST, now)

    @property
    def epoch(self) -> int | None:
        """The proven one."""
        return self._epoch

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


class SignalOrder:
    """One peer's: an old signal never takes the place of a newer one, whoever kept it and brings it now.

    Epochs have no order among themselves. One is over when an answer has proven another; of an old one of which nobody
    here has heard each signal is believed once.
    """

    def __init__(self) -> None:
        self._newest: dict[int, int] = {}

    def accepts(self, epoch: int, order: int) -> bool:
        """``epoch`` 0: it is not numbered, and believed of peers that never number theirs."""
        if not epoch:
            return not self._newest
        newest = self._newest.get(epoch)
        if newest is not None and order <= newest:
            return False
        self._note(epoch, order)
        return True

    def over(self, epoch: int) -> None:
        """The peer was started again: there is nothing new of that epoch any more."""
        self._note(epoch, _PAST)

    def _note(self, epoch: int, order: int) -> None:
        self._newest.pop(epoch, None)
        self._newest[epoch] = order
        if len(self._newest) > EPOCHS_MAX:
            del self._newest[next(iter(self._newest))]
