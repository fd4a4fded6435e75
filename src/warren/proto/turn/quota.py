"""How much anybody gets before and after proving who he is.

:class:`ReplyBudget` bounds what the server sends to addresses that may be forged. :class:`Quotas` counts allocations.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from warren.proto.wireguard.ratelimit import RateLimiter, source_prefix

REPLIES_PER_S: Final = 20_000.0
"""To all unproven clients together: a tenth of a core."""
REPLIES_PER_PREFIX_PER_S: Final = 200.0
"""To one IPv4 /24 or IPv6 /48, whatever they ask."""
GIFT_BYTES: Final = 4096.0
"""What one such prefix may be sent beyond what it sent: 40 clients that ask with the shortest requests there are."""
GIFT_BYTES_PER_S: Final = 800.0
GIFTS_BYTES: Final = 131_072.0
GIFTS_BYTES_PER_S: Final = 65_536.0
"""To all prefixes together: whoever forges a new source for each request gets no more out of it."""
RETURN: Final = 0.5
"""Of what a prefix sends, so much may go back to it. So over time less goes out than came in, whatever is asked, and
the gift stays within the other half for everybody but who sends next to nothing.
"""
PREFIXES_MAX: Final = 4096
_PREFIX_BITS: Final = (24, 48)
_USER_PREFIX_BITS: Final = (32, 64)


class ReplyBudget:
    """Whether a request that proves nothing gets its answer: no more goes to a prefix than came from there, but for a
    small gift, and only so many answers a second.

    An answer that is no larger than its request needs no gift: a client that pads its first request is always heard.
    """

    __slots__ = ("_all", "_credit", "_gifts", "_gifts_at", "_prefixes")

    def __init__(self) -> None:
        self._all = RateLimiter(REPLIES_PER_S, REPLIES_PER_S / 10)
        self._prefixes = RateLimiter(REPLIES_PER_PREFIX_PER_S, REPLIES_PER_PREFIX_PER_S)
        self._gifts, self._gifts_at = GIFTS_BYTES, 0.0
        self._credit: dict[int, tuple[float, float]] = {}  # prefix → bytes it may still be sent, at which time

    def allows(self, host: str, request_bytes: int, reply_bytes: int, now: float) -> bool:
        prefix = source_prefix(host, *_PREFIX_BITS)
        if not self._prefixes.allows(prefix, now):
            return False
        if reply_bytes > request_bytes and not self._spend(prefix, request_bytes, reply_bytes, now):
            return False
        return self._all.allows(0, now)

    def _spend(self, prefix: int, request_bytes: int, reply_bytes: int, now: float) -> bool:
        credit, at = self._credit.get(prefix, (GIFT_BYTES, now))
        if prefix not in self._credit and len(self._credit) >= PREFIXES_MAX:
            self._make_room(now)
        credit = min(GIFT_BYTES, credit + (now - at) * GIFT_BYTES_PER_S + RETURN * request_bytes)
        enough = credit >= reply_bytes and self._give(reply_bytes - request_bytes, now)
        self._credit[prefix] = (credit - reply_bytes if enough else credit, now)
        return enough

    def _give(self, excess_bytes: int, now: float) -> bool:
        self._gifts = min(GIFTS_BYTES, self._gifts + max(0.0, now - self._gifts_at) * GIFTS_BYTES_PER_S)
        self._gifts_at = now
        if self._gifts < excess_bytes:
            return False
        self._gifts -= excess_bytes
        return True

    def _make_room(self, now: float) -> None:
        """Forget whose gift has grown back, else the older half: they gain at most a gift by it."""
        refill_s = GIFT_BYTES / GIFT_BYTES_PER_S
        fresh = {prefix: entry for prefix, entry in self._credit.items() if now - entry[1] < refill_s}
        if len(fresh) >= PREFIXES_MAX:
            fresh = dict(sorted(fresh.items(), key=lambda item: item[1][1])[len(fresh) // 2 :])
        self._credit = fresh


class Quotas:
    """Counts what is held; ``take`` and ``give_back`` pair."""

    __slots__ = ("_max", "_per_prefix", "_per_prefix_max", "_per_user", "_per_user_max", "_total")

    def __init__(self, maximum: int, per_user: int, per_prefix: int) -> None:
        self._max = maximum
        self._per_user_max = per_user
        self._per_prefix_max = per_prefix
        self._total = 0
        self._per_user: Counter[str] = Counter()
        self._per_prefix: Counter[int] = Counter()

    def why_not(self, identity: str, host: str) -> int:
        """0 when one more may be taken, else the error number for the client: 486 or 508 (RFC 8656 §19)."""
        if self._per_user[identity] >= self._per_user_max:
            return 486
        if self._per_prefix[source_prefix(host, *_USER_PREFIX_BITS)] >= self._per_prefix_max:
            return 486
        return 508 if self._total >= self._max else 0

    def user_is_full(self, identity: str) -> bool:
        return self._per_user[identity] >= self._per_user_max

    def take(self, identity: str, host: str) -> None:
        self._total += 1
        self._per_user[identity] += 1
        self._per_prefix[source_prefix(host, *_USER_PREFIX_BITS)] += 1

    def give_back(self, identity: str, host: str) -> None:
        self._total -= 1
        prefix = source_prefix(host, *_USER_PREFIX_BITS)
        self._per_user[identity] -= 1
        self._per_prefix[prefix] -= 1
        if not self._per_user[identity]:
            del self._per_user[identity]
        if not self._per_prefix[prefix]:
            del self._per_prefix[prefix]
