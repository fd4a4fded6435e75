"""Who may come in, and how fast: source lists, rates of each source, how many at once, and how many of one source."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Final

from warren.l4.config import Limits
from warren.l4.counters import Counters
from warren.l4.kinds import Refused
from warren.l4.shares import groups_of, name_of
from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress
from warren.paths.pacing import Bucket

SOURCES_MAX: Final = 16_384
"""Remembered of each entry, 5 MB: of more than that many sources within their bursts' time, the one that has been
silent longest starts afresh.
"""
BURST_S: Final = 10.0
BURST_MIN: Final = 10.0


class Admission:
    """The limits of one entry and of its named parts. Programs of this host (``client`` None) have no source."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        self._counters = counters
        self._clock = clock
        self._buckets: OrderedDict[tuple[str, float, int, int], Bucket] = OrderedDict()

    def admit(self, client: TransportAddress | None, limits: Limits, name: str = "") -> None:
        """Raises Refused; what is let in counts against the rate of its source."""
        self.check_source(client, limits.sources)
        self.check_open(client, limits, name)
        self.check_rate(client, limits, name)

    def check_source(self, client: TransportAddress | None, sources: tuple[str, ...]) -> None:
        if client is not None and sources and not allowed(client.ip, sources):
            raise Refused("source", f"{client.ip} is not in the list of sources")

    def check_open(self, client: TransportAddress | None, limits: Limits, name: str = "") -> None:
        free = limits.streams_max - self._counters.part(name).open
        if free <= 0:
            raise Refused("streams", f"{limits.streams_max} are open already, the most that are allowed")
        self._check_share(client, limits, name, free - 1)

    def check_share(self, client: TransportAddress | None, limits: Limits, name: str = "") -> None:
        """Of one that is open already, but as somebody else's."""
        self._check_share(client, limits, name, limits.streams_max - self._counters.part(name).open)

    def check_rate(self, client: TransportAddress | None, limits: Limits, name: str = "") -> None:
        """What is let in counts."""
        if client is not None and limits.rate is not None and not self._take(client.ip, limits.rate, name):
            raise Refused("rate", f"{client.ip} opens more than {limits.rate:g} a second")

    def forget(self) -> None:
        """The limits are others now: everybody starts afresh."""
        self._buckets.clear()

    def _check_share(self, client: TransportAddress | None, limits: Limits, name: str, free: int) -> None:
        """``free``: how many places are left for others."""
        if client is None:
            return
        shares = self._counters.part(name).shares
        group = shares.over(groups_of(client.ip), free)
        if group is not None:
            has = f"{name_of(group)} has {shares.count(group)} of {limits.streams_max} places"
            raise Refused("streams", f"{has}, and those that are left are for other sources")

    def _take(self, ip: IPAddress, rate: float, name: str) -> bool:
        key = (name, rate, *source_of(ip))  # with another rate it starts afresh
        now = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= SOURCES_MAX:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = Bucket(rate, max(rate * BURST_S, BURST_MIN), now)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now)


def source_of(ip: IPAddress) -> tuple[int, int]:
    """Whom a rate is for: an IPv4 address, or the /64 that an IPv6 address is in; with the IP version."""
    return (6, int(ip) >> 64) if isinstance(ip, IPv6Address) else (4, int(ip))


def allowed(ip: IPAddress, prefixes: tuple[str, ...]) -> bool:
    return any(ip in network for network in _networks(prefixes) if network.version == ip.version)


@lru_cache(maxsize=1024)
def _networks(prefixes: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    """A tuple of 256 prefixes is read once, not for each stream."""
    return tuple(ip_network(text) for text in prefixes)
