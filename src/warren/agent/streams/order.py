"""Which of several members that serve the same is used first: the nearest that can be reached; pure.

This node itself, then members reached directly, then those through relays, then those that nothing was sent to lately,
then those that do not answer. Among equals the round-trip time decides, but only when it is markedly better: an order
that changed with every measurement would spread one client's streams over all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from warren.agent.network.watch import State
from warren.model.members import Member
from warren.model.tunnel import PeerStatus
from warren.reach.places import Place

BETTER_RATIO: Final = 0.75
BETTER_MS: Final = 2.0
"""Both must hold for a member to overtake another of its class."""


class Class(IntEnum):
    """How a member is reached, the best first."""

    SELF = 0
    DIRECT = 1
    RELAYED = 2
    SILENT = 3
    UNREACHABLE = 4


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near a member is. ``rtt_ms`` None: not measured."""

    by: Class = Class.SILENT
    rtt_ms: float | None = None


Key = tuple[str, str]
"""A network and a service."""
Near = Callable[[bytes], Nearness]
"""How near a node is."""


def nearness(state: State, place: Place, seen: PeerStatus | None) -> Nearness:
    """Of another member, from how its session, the path to it and the engine's word on it are."""
    rtt_ms = place.rtt_ms
    if rtt_ms is None and seen is not None and seen.handshake_rtt_ns:
        rtt_ms = seen.handshake_rtt_ns / 1e6
    if state in {"unreachable", "unknown"}:
        return Nearness(Class.UNREACHABLE, rtt_ms)
    if place.path == "relayed":
        return Nearness(Class.RELAYED, rtt_ms)
    if place.path == "direct" or (state == "connected" and seen is not None and seen.endpoint is not None):
        return Nearness(Class.DIRECT, rtt_ms)
    return Nearness(Class.SILENT, rtt_ms)


def ordered(members: Sequence[Member], near: Near, before: Sequence[bytes] = ()) -> tuple[Member, ...]:
    """``members``, the best first. ``before``: nodes in the order of the last time; new ones come in by name."""
    places = {node: place for place, node in enumerate(before)}
    known = sorted(members, key=lambda member: (places.get(member.membership.node, len(places)), member.name))
    found: list[Member] = []
    for member in sorted(known, key=lambda one: near(one.membership.node).by):
        at = len(found)
        while at and _overtakes(near, member, found[at - 1]):
            at -= 1
        found.insert(at, member)
    return tuple(found)


class Orders:
    """Orders of members, from those of the last time to those of the next; for one working out."""

    def __init__(self, before: Mapping[Key, Sequence[bytes]]) -> None:
        self._before = before
        self.found: dict[Key, tuple[bytes, ...]] = {}

    def of(self, key: Key, members: Sequence[Member], near: Near) -> tuple[Member, ...]:
        """``members`` of what is called ``key``, the best first."""
        best = ordered(members, near, self._before.get(key, ()))
        self.found[key] = tuple(member.membership.node for member in best)
        return best


def _overtakes(near: Near, member: Member, other: Member) -> bool:
    own, others = near(member.membership.node), near(other.membership.node)
    if own.by != others.by or own.rtt_ms is None or others.rtt_ms is None:
        return False
    return own.rtt_ms < others.rtt_ms * BETTER_RATIO and own.rtt_ms < others.rtt_ms - BETTER_MS
