"""Token buckets, one per source, in a table with a ceiling."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

SOURCES_MAX = 4096
"""Sources remembered: more of them at once are forged anyway. Making room among so many takes 3 ms."""


def source_prefix(host: str, ipv4_bits: int, ipv6_bits: int) -> int:
    """Who sent from ``host`` (a numeric address), as far as limits care: its first bits, different for the two
    families.

    An IPv4 address written in IPv6 (``::ffff:192.0.2.1``) counts as the IPv4 address; a zone does not count.
    """
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return int(address) >> (128 - ipv6_bits) | 1 << 128
        address = address.ipv4_mapped
    return int(address) >> (32 - ipv4_bits)


class RateLimiter:
    """Each source may act ``rate_per_s`` times a second in the long run and ``burst`` times at once."""

    __slots__ = ("_burst", "_rate_per_s", "_sources_max", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, sources_max: int = SOURCES_MAX) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._sources_max = sources_max
        self._tokens: dict[int, tuple[float, float]] = {}  # source → (tokens, at time)

    def __len__(self) -> int:
        """How many sources are remembered."""
        return len(self._tokens)

    def allows(self, source: int, now: float) -> bool:
        """Whether ``source`` may act now; if so, one token of it is spent."""
        tokens, at = self._tokens.get(source, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._rate_per_s)
        if source not in self._tokens and len(self._tokens) >= self._sources_max:
            self._make_room(now)
        allowed = tokens >= 1.0
        self._tokens[source] = (tokens - 1.0 if allowed else tokens, now)
        return allowed

    def _make_room(self, now: float) -> None:
        """Forget who has a full bucket again; if that is nobody, the older half: they gain at most a burst by it."""
        refill_s = self._burst / self._rate_per_s
        fresh = {source: entry for source, entry in self._tokens.items() if now - entry[1] < refill_s}
        if len(fresh) >= self._sources_max:
            by_age = sorted(fresh.items(), key=lambda item: item[1][1])
            fresh = dict(by_age[len(by_age) // 2 :])
        self._tokens = fresh
