"""Whether the data that is sent to a peer gets there: its answers to checks say how much has come (checks.py).

A path may carry checks and no data: a hostile relay, a firewall that knows WireGuard. That shows when the peer's count
stands still although data was sent, by a path whose checks are answered at the same time.

=============  ==============================================================  =====================================
state          is when                                                         leads to
=============  ==============================================================  =====================================
content        nothing was sent since the peer's last count, or it grows       nothing
waiting        data was sent and not counted yet                               after DOUBT_S the path MTU is doubted
damning        so for LEFT_S, and too often for chance                         another path
=============  ==============================================================  =====================================

The peer may also refuse what is sent: Linux does not count a packet whose source it does not expect, as from a subnet
that the peer leaves out. No path helps then. So the next path is given twice the time if nothing was counted since one
was left, and so on.

By chance: each second in which data was sent and none counted may be a loss, as likely as checks are lost there now, or
were of late. A path that loses every third packet is not left for that, one that answers all checks soon is.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from warren.paths.checks import Receipt
from warren.paths.pair import Pair

DOUBT_S: Final = 1.0
LEFT_S: Final = 3.5
"""Longer than a hole of two seconds with the second in which data is counted; shorter than anybody's patience."""
DOUBLED_MAX: Final = 7
"""Seven and a half minutes: then all paths that were left are not held back any more."""
CHANCE: Final = 1 / 1000
"""That so much was lost by chance: then it was."""
SENT_MAX: Final = 32
"""Spans of time in which data was sent, a second each or more."""
BEGINS_S: Final = 20.0
"""After the peer, or its data plane, began anew: it knows no session, and drops what we send until we notice, which
takes WireGuard 15 s (KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, §6.2).
"""
KNOWN_S: Final = 30.0
"""So long after the last receipt the peer counts as one that gives them."""
FLIGHT_S: Final = 0.2
"""Data that was sent less than this before the peer counted may still be on the way."""

_NEVER: Final = float("inf")


class Receipts:
    """One peer's, over the path in use. Times are seconds of one clock that does not go back."""

    __slots__ = (
        "_begins_until",
        "_count",
        "_counted_at",
        "_damned",
        "_damned_since",
        "_doubted",
        "_received_at",
        "_sent",
        "_since",
        "_then",
    )

    def __init__(self) -> None:
        self._sent: deque[tuple[float, float]] = deque(maxlen=SENT_MAX)
        """Between which times data was sent that the peer has not counted."""
        self._since = _NEVER
        """The end of the first of them."""
        self._then = (0, 0)
        """Checks sent and answered by the pair at that time."""
        self._count: int | None = None
        self._counted_at = -_NEVER
        """Data sent before it is counted, if it got there."""
        self._received_at = -_NEVER
        self._begins_until = -_NEVER
        self._doubted = False
        self._damned = 0
        """How often since the peer counted something."""
        self._damned_since = _NEVER
        """``_since`` of the last time."""

    def known(self, now: float) -> bool:
        """The peer says what comes to it."""
        return now - self._received_at < KNOWN_S

    def sent(self, looked_at: float | None, now: float, pair: Pair | None) -> None:
        """Data was sent, by ``pair``, since somebody looked the last time."""
        if pair is None or looked_at is None:
            return
        if not self._sent:
            self._since, self._then = now, (pair.sent, pair.answered)
        self._sent.append((looked_at, now))

    def received(self, receipt: Receipt, asked_at: float, pair: Pair, now: float) -> None:
        """The peer answered with ``receipt`` to a check of ours that was sent at ``asked_at``; ``pair`` is in use."""
        counted_at = asked_at - receipt.age_s
        self._received_at = now
        if counted_at < self._counted_at:
            return  # overtaken by a newer one
        before, self._count, self._counted_at = self._count, receipt.bytes, counted_at
        if receipt.bytes == before:
            return
        self._damned = 0
        if before is not None and receipt.bytes < before and before - receipt.bytes < 1 << 31:
            self.peer_began(now)  # else it came round to 0
        newer = [span for span in self._sent if span[0] >= counted_at]
        self.forget()
        if newer:
            self._sent.extend(newer)
            self._since, self._then = newer[0][1], (pair.sent, pair.answered)

    def peer_began(self, now: float) -> None:
        """The peer is another than before, or its data plane is."""
        self._begins_until = now + BEGINS_S
        self._count = None
        self._counted_at = -_NEVER
        self.forget()

    def forget(self) -> None:
        """What was sent went another way, or is accounted for."""
        self._sent.clear()
        self._since, self._doubted = _NEVER, False

    def take_doubt(self) -> bool:
        """Something that was sent did not come, perhaps. Said once."""
        doubted = not self._doubted and self._counted_at - self._since >= DOUBT_S
        self._doubted |= doubted
        return doubted

    def damning(self, pair: Pair) -> bool:
        """Data does not get through by ``pair``, by which it was sent, and checks do."""
        again = self._since == self._damned_since
        patience_s = LEFT_S * 2 ** min(self._damned - again, DOUBLED_MAX)
        if self._counted_at - self._since < patience_s or self._received_at < self._begins_until:
            return False
        seconds = sum(1 for _, end in self._sent if end <= self._counted_at - FLIGHT_S)
        sent, answered = pair.sent - self._then[0], pair.answered - self._then[1]
        lost = max(0, sent - answered - 1)  # one may be on the way
        loss = max((lost + 1) / (sent + 2), pair.loss)  # of now, by Laplace's rule, or of late
        damning = loss**seconds < CHANCE
        if damning and not again:
            self._damned += 1
            self._damned_since = self._since
        return damning
