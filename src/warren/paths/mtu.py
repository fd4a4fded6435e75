"""Which packets a path carries: a search with padded, authenticated checks (RFC 8899). ICMP has no say in it.

Sizes are those of inner packets. A check of ``size + 32`` bytes is on the wire what WireGuard makes of such a packet
(a header of 16 bytes and a tag of 16), whatever relays and tunnels put around both.

=============  =====================================================  ======================================
state          is when                                                a probe that was lost three times
=============  =====================================================  ======================================
``base``       nothing is proven: 1280 and the largest are probed     1280: ``pieces``
``pieces``     1280 is probed so that it may be fragmented, as data   too small, for a minute; on lossy paths
               may be: by this host (RFC 8200 §5), or on IPv4 by a    after up to 12, for chance's sake
               router; confirmed like ``done``, and after 10 min
               begun anew from ``base``
``searching``  sizes in between are probed, halving                   that size is too large
``done``       every 10 s the proven size is confirmed while used;    confirmation: a black hole, from ``base``
               every 10 min the search begins anew above it
=============  =====================================================  ======================================
"""

from __future__ import annotations

import math
from typing import Final, Literal

FLOOR: Final = 1280
"""Smaller inner packets IPv6 does not allow (RFC 8200 §5)."""
OVERHEAD: Final = 32
STEP: Final = 16
"""Sizes between the floor and the largest are multiples of it, because WireGuard pads packets to such."""
PROBES_MAX: Final = 3  # MAX_PROBES, RFC 8899 §5.1.2
PIECES_MAX: Final = 12
"""The same for the last word, on a path on which half of all checks are lost, or more: see :func:`_enough`."""
CHANCE: Final = 1 / 1000
CONFIRM_S: Final = 10.0
RAISE_S: Final = 600.0  # PMTU_RAISE_TIMER, RFC 8899 §5.1.1
TIMEOUT_S: Final = 0.7
"""At the least, or two round trips: how long a probe is waited for."""
AGAIN_S: Final = 60.0
"""A path that was too small is tried again this late."""

NEVER: Final = float("inf")


class MtuSearch:
    """One machine per path. The owner sends a probe of :meth:`wanted`, says :meth:`sent`, and hands in its answer."""

    __slots__ = (
        "_due",
        "_high",
        "_lost",
        "_raise_at",
        "_size",
        "_top",
        "answered_at",
        "proven",
        "sent_at",
        "state",
        "too_small",
        "too_small_since",
        "waits",
    )

    def __init__(self, link_mtu: int, version: int, now: float) -> None:
        """``version``: of IP on the path's first hop."""
        room = link_mtu - (40 if version == 6 else 20) - 8 - OVERHEAD
        self._top = max(FLOOR, room & ~3)
        self._high = self._top
        """The largest that may still get through."""
        self.state: Literal["base", "pieces", "searching", "done"] = "base"
        self.proven: int | None = None
        self.too_small = False
        self.answered_at = self.too_small_since = -NEVER
        self._size = FLOOR
        self._lost = 0
        self.sent_at = now
        self.waits = False
        """A probe is not answered yet; it left at ``sent_at``."""
        self._due = now
        self._raise_at = now + RAISE_S

    def next_due(self, *, used: bool) -> float:
        """When a probe is due; ``used``: the path has traffic, so that a proven size is confirmed from time to time."""
        rests = self.state == "done" or (self.state == "pieces" and self.proven is not None)
        return NEVER if rests and not used else self._due

    @property
    def whole(self) -> bool:
        """The next probe must not be fragmented."""
        return self.state != "pieces"

    def wanted(self, now: float, *, used: bool) -> int | None:
        """The size to probe now, or None."""
        if now < self.next_due(used=used):
            return None
        if self.state == "done" and now >= self._raise_at and self._high < self._top:
            self._high = self._top
            self._search(now)
        if self.state == "pieces" and self.proven is not None and now >= self._raise_at:
            self.state = "base"
        return self._size

    def sent(self, now: float, rtt_s: float) -> None:
        """A probe left; a small check should leave with it."""
        self.sent_at, self.waits = now, True
        self._due = now + max(TIMEOUT_S, 2 * rtt_s)

    def overdue(self, now: float, *, alive: bool, loss: float = 0.0) -> bool:
        """A probe was not answered in time. Changes the state; True: what is proven changed.

        ``alive``: a small check that was sent at ``sent_at`` or later was answered. Otherwise the loss says nothing of
        sizes and does not count. ``loss``: the share of the small ones that was not answered of late.
        """
        if not self.waits or now < self._due:
            return False
        self.waits = False
        self._lost += alive
        if self._lost < (_enough(loss) if self.state == "pieces" else PROBES_MAX):
            return False
        self._lost = 0
        if self._size == FLOOR and self.state == "base":
            self.state, self._due = "pieces", now
            self._raise_at = now + RAISE_S
            return False
        if self.state == "pieces":
            self.state = "base"
            self.too_small_since = self.too_small_since if self.too_small else now
            self.too_small, self.proven = True, None
            self._due = now + AGAIN_S
            return True
        if self.state == "done":  # a black hole (RFC 8899 §4.3)
            self.state, self._size, self.proven = "base", FLOOR, FLOOR
            self._high = self._top
            self._due = now
            return True
        self._high = max(FLOOR, (self._size - 1) // STEP * STEP)
        self._search(now)
        return False

    def answered(self, size: int, now: float) -> bool:
        """A probe of ``size`` got through. True: what is proven changed."""
        before = None if self.too_small else self.proven
        self.too_small = self.waits = False
        self.answered_at = now
        if self.state == "done" and size == self.proven:
            self._lost = 0
            self._due = now + CONFIRM_S
            return False
        if self.state == "pieces":
            self._lost, self.proven = 0, FLOOR
            self._due = now + CONFIRM_S
            return before != FLOOR
        if before is None or size > before or self.state == "base":
            self.proven = max(size, FLOOR if before is None or self.state == "base" else before)
        self._lost = 0
        self._search(now)
        return self.proven != before

    def doubt(self, now: float) -> None:
        """Something about the path is odd: confirm what is proven at once."""
        if not self.waits:
            self._due = min(self._due, now)

    @property
    def loses(self) -> bool:
        """Probes of what was proven were lost: perhaps it does not get through any more."""
        return self._lost > 0 and self.state != "searching"

    def _search(self, now: float) -> None:
        """Choose the next size: first the largest, then in the middle."""
        low = self.proven or FLOOR
        if self._high <= low:
            self.state, self._size = "done", low
            self._due = now + CONFIRM_S
            self._raise_at = now + RAISE_S
            return
        self.state = "searching"
        middle = (low + (self._high - low) // 2) // STEP * STEP
        self._size = self._high if self._high == self._top else max(low + STEP, middle)
        self._due = now


def _enough(loss: float) -> int:
    """So many in a row are hardly lost by chance."""
    if loss <= CHANCE:
        return PROBES_MAX
    return PIECES_MAX if loss >= 0.5 else min(PIECES_MAX, max(PROBES_MAX, math.ceil(math.log(CHANCE, loss))))
