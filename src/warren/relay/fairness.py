"""Who gets how much of a relay: deficit round robin over users, counted in bytes (Shreedhar and Varghese, 1996), and
token buckets for what a user, and all together, may send.

Each round a user with something to relay may have a quantum of bytes moved; what a large train takes too much is
missing in the next rounds. So under overload all who want more get the same, whatever sizes they send in and through
however many allocations; who wants less gets all of it. What waits meanwhile waits in the kernel's buffers of the
user's own sockets.
"""

from __future__ import annotations

from typing import Final

QUANTUM_BYTES: Final = 65_536
"""One full train: with one of them a round per user, nobody waits for more than that of each other."""
DATAGRAM_COST_BYTES: Final = 60
"""Added for each datagram: it costs time too, and headers on the wire."""
BURST_S: Final = 0.1
"""How much of its rate a bucket holds."""
BURST_BYTES_MIN: Final = 131_072.0


class Bucket:
    """``rate`` bytes a second in the long run, 0: any; what was taken too much has to be waited for."""

    __slots__ = ("_at", "_burst", "_level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._burst = max(rate * BURST_S, BURST_BYTES_MIN)
        self._level = self._burst
        self._at = now

    def take(self, size: int, now: float) -> float:
        """Take ``size`` bytes that have been moved; returns for how many seconds nothing more may be."""
        if not self.rate:
            return 0.0
        self._level = min(self._burst, self._level + (now - self._at) * self.rate) - size
        self._at = now
        return -self._level / self.rate if self._level < 0 else 0.0


class Share:
    """One user's place in the round. ``holders`` counts its allocations."""

    __slots__ = ("bucket", "deficit", "holders", "identity", "paused_until", "turn")

    def __init__(self, identity: str, rate: float, now: float) -> None:
        self.identity = identity
        self.bucket = Bucket(rate, now)
        self.deficit = 0
        self.turn = -1
        self.holders = 0
        self.paused_until = 0.0

    def begin(self, turn: int) -> None:
        """Called when the user has something to relay in round ``turn``: nothing is saved up by being idle."""
        if self.turn != turn:
            self.deficit = min(self.deficit + QUANTUM_BYTES, QUANTUM_BYTES) if self.turn == turn - 1 else QUANTUM_BYTES
            self.turn = turn


def skip_rounds(shares: list[Share]) -> None:
    """When each of those who want something has had too much: as many rounds pass at once as let one of them go on."""
    rounds = min(-share.deficit for share in shares) // QUANTUM_BYTES + 1
    for share in shares:
        share.deficit += rounds * QUANTUM_BYTES
