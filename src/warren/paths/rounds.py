"""When all pairs with a peer are checked: rounds of eight seconds, and the pauses between them.

=================================  ==================================================  ===============================
while there is                     the next round begins                               and the peer is signalled
=================================  ==================================================  ===============================
no path, and one is wanted         after a pause that grows from nothing to 30 s       yes
a relayed path in use              after a pause that grows from 2 to 30 s             yes
a relayed path, idle               after five minutes                                  yes
a direct path in use               after five minutes: is there a shorter one by now?  no
no path, and none is wanted;       never                                               –
a direct path, idle
=================================  ==================================================  ===============================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from warren.paths.context import Context
from warren.paths.pair import NEVER
from warren.paths.pairing import in_order

if TYPE_CHECKING:
    from warren.paths.peer import PeerPaths

ROUND_S: Final = 8.0
PAUSE_S: Final = (0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0, 30.0)
BETTER_S: Final = (2.0, 5.0, 10.0, 20.0, 30.0)
BETTER_IDLE_S: Final = 300.0
LOOK_S: Final = 300.0


class Rounds:
    """Owned by one PeerPaths."""

    def __init__(self, context: Context, peer: PeerPaths) -> None:
        self._context = context
        self._peer = peer
        self.number = 0
        """Since something changed that gives hope."""
        self.until = -NEVER
        """When the last one ends, or ended."""
        self.next_at = NEVER

    def search(self, now: float) -> None:
        """A round, and the peer is told to do the same."""
        self.begin(now)
        self._peer.signal(asks=True)

    def begin(self, now: float) -> None:
        """Check all pairs, the best first, and plan the next round."""
        self.number += 1
        self.until = now + ROUND_S
        for place, pair in enumerate(in_order(self._peer.pairs)):
            pair.begin(now + place * self._context.settings.pace_s, self.until)
        self.plan(now)
        if not self._peer.choice.is_direct():
            self._peer.hard.round_began(now)

    def hope(self, now: float | None = None) -> None:
        """Something changed: pauses are short again. With ``now``: the next round begins as soon as this one ends."""
        self.number = 0
        if now is not None:
            self.next_at = min(self.next_at, max(now, self.until))

    def plan(self, now: float) -> None:
        """When the next one begins, as things are now."""
        pair = self._peer.choice.pair
        self.next_at = NEVER
        if pair is None:
            if self._peer.demand.is_wanted(now):
                self.next_at = now + ROUND_S + _of(PAUSE_S, self.number)
        elif self._peer.demand.is_active(now):
            self.next_at = now + (ROUND_S + _of(BETTER_S, self.number) if pair.relayed else LOOK_S)
        elif pair.relayed:
            self.next_at = now + BETTER_IDLE_S

    def handle_timeout(self, now: float) -> None:
        if now < self.next_at:
            return
        if self._peer.choice.is_direct():
            self.begin(now)
        else:
            self.search(now)


def _of(pauses: tuple[float, ...], number: int) -> float:
    return pauses[min(max(number, 1), len(pauses)) - 1]
