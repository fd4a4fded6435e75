"""When an allocation is to be refreshed, kept alive, given up, or asked for again (RFC 8656 §8)."""

from __future__ import annotations

import enum
from typing import Final

LIFETIME_S_MIN: Final = 30
"""RFC 8656 §7.2 has servers grant 600 s at the least; with less than this nobody would keep up."""
LIFETIME_S_MAX: Final = 3600
"""The most that servers should grant (§7.2). Whoever says more is asked again as if he had said this."""
REFRESH_BEFORE_S: Final = 60.0  # RFC 8656 §3.2
REFRESH_RETRY_S: Final = 5.0
KEEPALIVE_S: Final = 20.0  # below the 30 s after which some NATs forget a UDP mapping (RFC 4787 §4.3)
RETRY_S: Final = 1.0  # the first pause after a failure; each further one is twice as long
RETRY_S_MAX: Final = 30.0
RETRY_FINAL_S: Final = 300.0

NEVER: Final = float("inf")


class Timer(enum.Enum):
    """Why an allocation wants to wake. The value is the sentence that a Deadline shows."""

    ANSWER = "a request to the relay was not answered"
    REFRESH = "the allocation is to be refreshed"
    EXPIRY = "the allocation has not been refreshed for too long"
    KEEPALIVE = "the NAT on the way to the relay shall not forget us"
    RETRY = "the relay is asked again for an allocation"


class Lifetimes:
    """Those of one allocation and of the attempts to have it. All times are in seconds, by whoever's clock."""

    __slots__ = ("_failures", "expires_at", "keepalive_at", "refresh_at", "retry_at")

    def __init__(self) -> None:
        self.expires_at = self.refresh_at = self.keepalive_at = self.retry_at = NEVER
        self._failures = 0

    def renewed(self, lifetime_s: int, now: float) -> None:
        """The server keeps it for so long, and has just heard from us."""
        lifetime_s = min(lifetime_s, LIFETIME_S_MAX)
        self.expires_at = now + lifetime_s
        self.refresh_at = now + max(lifetime_s - REFRESH_BEFORE_S, lifetime_s / 2)
        self.kept_alive(now)

    def kept_alive(self, now: float) -> None:
        self.keepalive_at = now + KEEPALIVE_S

    def refresh_soon(self, now: float) -> None:
        """Unless it is under way."""
        if self.refresh_at != NEVER:
            self.refresh_at = now

    def lost(self) -> None:
        self.expires_at = self.refresh_at = self.keepalive_at = NEVER

    def retry_later(self, now: float, *, final: bool = False) -> None:
        """``final``: only people can change what failed."""
        self.retry_at = now + (RETRY_FINAL_S if final else self.pause())

    def succeeded(self) -> None:
        """The next pause is the shortest again."""
        self._failures = 0

    def pause(self) -> float:
        """After one more failure."""
        self._failures += 1
        return float(min(RETRY_S * 2 ** min(self._failures - 1, 16), RETRY_S_MAX))
