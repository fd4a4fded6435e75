"""When data may move: the rounds of fairness, the pauses of users above their rate, and of all above the total rate."""

from __future__ import annotations

import heapq

from warren.relay.data_sockets import DataSockets
from warren.relay.fairness import Bucket, Share

NEVER = float("inf")


class Pace:
    """``round`` counts rounds in which data may move. ``resumes_at`` is when the first pause ends."""

    def __init__(self, sockets: DataSockets, total_rate: float, now: float) -> None:
        self.round = 0
        self.held_until = 0.0
        """Until then no data moves at all."""
        self.resumes_at = NEVER
        self._sockets = sockets
        self._total = Bucket(total_rate, now)
        self._paused: list[tuple[float, int, Share]] = []

    def charge(self, share: Share, cost: int, now: float) -> None:
        """``cost`` bytes of this user have been moved."""
        share.deficit -= cost
        if share.bucket.rate:
            wait = share.bucket.take(cost, now)
            if wait > 0:
                self._pause(share, now + wait)
        if self._total.rate:
            self.held_until = max(self.held_until, now + self._total.take(cost, now))

    def resume(self, now: float) -> None:
        """End the pauses whose time is up."""
        while self._paused and self._paused[0][0] <= now:
            self._sockets.listen_to(heapq.heappop(self._paused)[2], listen=True)
        self.resumes_at = self._paused[0][0] if self._paused else NEVER

    def _pause(self, share: Share, until: float) -> None:
        share.paused_until = until
        self._sockets.listen_to(share, listen=False)
        heapq.heappush(self._paused, (until, id(share), share))
        self.resumes_at = self._paused[0][0]
