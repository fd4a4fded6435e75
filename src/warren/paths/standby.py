"""Which other pairs are kept ready for when the one in use fails, and are looked at when it is in doubt: decisions
without state.

What fails is an uplink of this host, one of the peer's, or a relay, and all pairs fail that go by it. So the best ones
are not enough: they tend to go by the same uplink as the one in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from warren.paths.pair import Pair
from warren.paths.selection import score
from warren.paths.values import Base

UPLINKS_MAX: Final = 2
"""Of this host, and of the peer, besides those of the pair in use: each costs a check in ten seconds."""
DOUBTED_MAX: Final = 8
"""Pairs that are checked along with the one in doubt, besides those that were kept ready."""

UplinkOf = Callable[[Base], int]
"""The index of the interface by which what leaves from a base leaves this host; 0: it is not known."""


def warm(current: Pair | None, others: Iterable[Pair], uplink_of: UplinkOf) -> list[Pair]:
    """Those that are kept ready, of all that work: the best, the best from another base, the best over a relay that
    ``current`` does not use, the best by each other uplink of this host, and the best to each other address of the
    peer, which may be another uplink of it.
    """
    usable = [pair for pair in others if pair.usable]
    usable.sort(key=lambda pair: (pair.relayed, score(pair)))
    if current is None or not usable:
        return []
    base, remote = current.base, current.remote.ip
    elsewhere = [pair for pair in usable if pair.base != base]
    relayed = [pair for pair in usable if pair.relayed and pair.base != base and pair.remote.ip != remote]
    by_uplink, by_address = {uplink_of(base): current}, {remote: current}
    for pair in usable:
        by_uplink.setdefault(uplink_of(pair.base), pair)
        if pair.kind != "relay":
            by_address.setdefault(pair.remote.ip, pair)
    uplinks, addresses = list(by_uplink.values())[1:], list(by_address.values())[1:]
    found = [usable[0], *elsewhere[:1], *relayed[:1], *uplinks[:UPLINKS_MAX], *addresses[:UPLINKS_MAX]]
    return list(dict.fromkeys(found))


def doubted(current: Pair, others: Iterable[Pair], uplink_of: UplinkOf) -> list[Pair]:
    """Those that are checked as soon as ``current`` is in doubt, itself among them."""
    usable = sorted((pair for pair in others if pair.usable), key=score)
    return list(dict.fromkeys([current, *warm(current, usable, uplink_of), *usable[:DOUBTED_MAX]]))
