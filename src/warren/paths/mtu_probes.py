"""Probes of the path MTU of the pairs with one peer: of the one in use, and of those found too small, which may change.
How one pair is searched is in mtu.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warren.paths.mtu import MtuSearch
from warren.paths.pair import NEVER, Pair

if TYPE_CHECKING:
    from warren.paths.peer import PeerPaths


class MtuProbes:
    """Owned by one PeerPaths."""

    def __init__(self, peer: PeerPaths) -> None:
        self._peer = peer

    def is_narrow(self) -> bool:
        """Large packets do not get there by a path that was tried, and since then have not by the one in use."""
        selected = self._peer.choice.pair
        if selected is None or selected.mtu is None:
            return False
        since = [pair.mtu.too_small_since for pair in self._peer.pairs if pair.mtu is not None and pair.mtu.too_small]
        return selected.mtu.answered_at < max(since, default=-NEVER)

    def is_wide(self, since: float) -> bool:
        """A large packet got there by the path in use, and was answered at ``since`` or later."""
        selected = self._peer.choice.pair
        search = None if selected is None else selected.mtu
        return search is not None and not search.too_small and search.answered_at >= since

    def handle_timeout(self, now: float) -> None:
        selected = self._peer.choice.pair
        due = self._too_small(now)
        if selected is not None and selected.mtu is not None and not selected.mtu.too_small:
            due.append((selected, selected.mtu))
        for pair, search in due:
            alive = pair.answered_sent_at >= search.sent_at
            if search.overdue(now, alive=alive, loss=pair.loss) and pair is selected:
                self._peer.choice.tell_mtu()
            size = search.wanted(now, used=self._peer.demand.is_active(now))
            if size is not None:
                self._peer.checking.send(pair, now, size, whole=search.whole)
                search.sent(now, pair.srtt or 0.0)
                pair.due = min(pair.due, now)  # whether a small one gets through at this moment

    def next_at(self, now: float) -> float:
        """Of those found too small; of the pair in use Choice says it."""
        return min((search.next_due(used=True) for _, search in self._too_small(now)), default=NEVER)

    def _too_small(self, now: float) -> list[tuple[Pair, MtuSearch]]:
        """Pairs that work, but not for large packets: that may change."""
        if not self._peer.demand.is_active(now):
            return []
        found = [(pair, pair.mtu) for pair in self._peer.pairs if pair.state == "valid"]
        return [(pair, search) for pair, search in found if search is not None and search.too_small]
