"""Fair shares of a number of places: no source can have them all, so a newcomer finds one. No I/O.

How much one may have depends on what is left, as buffers of switches are shared (Choudhury and Hahne, "Dynamic Queue
Length Thresholds in a Shared-Memory Packet Switch", 1998): one more, as long as it then has at most α times as much as
is free. Alone, a source gets α/(α+1) of all; two get α/(2α+1) each; how many there will be need not be known.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from typing import Final

from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress

Group = tuple[int, int]
"""The length of a prefix (32: an IPv4 address) and its bits: whom places are counted for."""

ALPHA: Final = {32: 4, 64: 4, 48: 16}
"""By the length of the prefix. 4: one source alone has 80 % (3,276 of 4,096), so a reverse proxy in front or an office
behind one address hardly feels it. A /48 is what one customer of an IPv6 provider can have, with 65,536 sources in it;
but a mobile network gives each telephone a /64 of a few /48, so all of it together may have 94 %.
"""


@lru_cache(maxsize=4096)
def groups_of(ip: IPAddress | None) -> tuple[Group, ...]:
    """Whom a place of ``ip`` is counted for, the narrowest first. Programs of this host (by a Unix socket, None, or by
    loopback) are nobody: they all have one address, and whoever runs them can have all places anyway.
    """
    if ip is None or (ip := unmapped(ip)).is_loopback:
        return ()
    if isinstance(ip, IPv6Address):
        return (64, int(ip) >> 64), (48, int(ip) >> 80)
    return ((32, int(ip)),)


def name_of(group: Group) -> str:
    """As people write it."""
    bits, value = group
    return str(ip_network(value).network_address) if bits == 32 else str(ip_network((value << (128 - bits), bits)))


def is_over(group: Group, count: int, free: int) -> bool:
    """Whether it is too much that ``group`` has ``count`` places while ``free`` ones are left. The first is never."""
    return count > 1 and count > ALPHA[group[0]] * free


class Shares:
    """How many places each group has; whoever has none is not in here, so it is as big as there are places."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Group, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, group: Group) -> int:
        return self._counts.get(group, 0)

    def over(self, groups: Iterable[Group], free: int) -> Group | None:
        """Which of ``groups`` may not have one more place, if ``free`` ones were left then."""
        return next((group for group in groups if is_over(group, self.count(group) + 1, free)), None)

    def enter(self, groups: Iterable[Group]) -> None:
        for group in groups:
            self._counts[group] = self._counts.get(group, 0) + 1

    def leave(self, groups: Iterable[Group]) -> None:
        """For each :meth:`enter`, once."""
        for group in groups:
            left = self._counts[group] - 1
            if left:
                self._counts[group] = left
            else:
                del self._counts[group]
