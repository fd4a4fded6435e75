"""Which of the paths that work is used: decisions without state.

A direct path before a relayed one; then the shorter measured round trip, where a LAN and IPv6 are given a little. A
path in use is left for a shorter one only if that is clearly shorter, and not more often than once a minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.paths.pair import Pair

LAN_BONUS_S: Final = 0.010
IPV6_BONUS_S: Final = 0.003
SECOND_RELAY_S: Final = 0.010
"""Two relays can fail twice."""
CLEARLY: Final = 0.2
"""The share by which a round trip must be shorter,"""
CLEARLY_S: Final = 0.005
"""and at least so much,"""
SAMPLES: Final = 3
"""measured so many times."""
SETTLING_S: Final = 2.0
"""So long after a first path all that answer are compared without a preference for the present one,"""
SETTLING_BY_S: Final = 0.001
"""but for this much."""
DWELL_S: Final = 60.0


def score(pair: Pair) -> float:
    """Seconds; the smaller the better. Only of pairs that were answered."""
    given = LAN_BONUS_S if pair.rank == 0 else IPV6_BONUS_S if pair.remote.ip.version == 6 else 0.0
    taken = SECOND_RELAY_S if pair.rank == 3 else 0.0
    return (pair.srtt or 0.0) - given + taken


def best(pairs: Iterable[Pair], now: float) -> Pair | None:
    """The best of those that work: one that failed a while ago only if there is no other, and one that carries small
    packets only if all are such.
    """
    working = [pair for pair in pairs if pair.state == "valid"]
    return min(
        working, key=lambda pair: (not pair.usable, pair.held_until > now, pair.relayed, score(pair)), default=None
    )


def improves(new: Pair, current: Pair, now: float, *, since: float, settled_at: float) -> bool:
    """Whether to leave ``current``, which works, for ``new``, which works too. ``since``: when current was selected;
    ``settled_at``: when the first path of its kind (direct or relayed) was found, plus SETTLING_S.
    """
    if new.usable > current.usable:
        return new.held_until <= now
    if new is current or new.held_until > now or new.usable < current.usable or new.relayed > current.relayed:
        return False
    if new.relayed < current.relayed:
        return True
    gain = score(current) - score(new)
    if now < settled_at:
        return gain > SETTLING_BY_S
    if now - since < DWELL_S or new.answered < SAMPLES or current.answered < SAMPLES:
        return False
    return gain > max(CLEARLY_S, CLEARLY * (current.srtt or 0.0), (new.var + current.var) / 2)
