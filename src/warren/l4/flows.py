"""The table of an entry's flows: who is in it, who has been idle for how long, who goes when it is full. No I/O.

Whoever sends one datagram, under whatever address, makes a flow. So that a flood of such does not drive out the flows
that carry something, there are two classes, as in the kernel's connection tracking: a flow is *proven* once its client
has spoken again after an answer. The unproven that has been idle the longest goes first.

A source that has its share (:mod:`warren.l4.shares`) makes room for its next flow by one of its own: nobody is refused,
since a resolver that asks from a new port each time has many flows that are done with, and nobody else pays for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from warren.l4.shares import Group, is_over

LOOKED_AT: Final = 8
"""Flows of a source among which the one idle longest goes for its next; to keep them all in order would cost something
with each datagram.
"""


class Timed(Protocol):
    """What the table keeps of a flow; only the table changes it, but for ``key`` and ``groups``."""

    key: Hashable
    groups: tuple[Group, ...]
    """Whose it is."""
    used: float
    """When a datagram last went through, on a clock that only rises."""
    proven: bool


F = TypeVar("F", bound=Timed)


class _Own(Generic[F]):
    """The flows of one group, in the order in which they came, were proven or were looked at."""

    __slots__ = ("proven", "unproven")

    def __init__(self) -> None:
        self.unproven: OrderedDict[Hashable, F] = OrderedDict()
        self.proven: OrderedDict[Hashable, F] = OrderedDict()

    def __len__(self) -> int:
        return len(self.unproven) + len(self.proven)

    def least_used(self) -> F:
        flows = self.unproven or self.proven
        seen = list(islice(flows.values(), LOOKED_AT))
        least = min(seen, key=lambda flow: flow.used)
        for flow in seen:  # others are looked at the next time
            flows.move_to_end(flow.key)
        return least


class FlowTable(Generic[F]):
    """Flows by their keys, at most ``ceiling``. Every call takes the same time however many there are."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self._unproven: OrderedDict[Hashable, F] = OrderedDict()  # the longest idle first, as in the other
        self._proven: OrderedDict[Hashable, F] = OrderedDict()
        self._of: dict[Group, _Own[F]] = {}

    def __len__(self) -> int:
        return len(self._unproven) + len(self._proven)

    def __iter__(self) -> Iterator[F]:
        """All flows, as they were when asked for; they may be removed meanwhile."""
        return iter([*self._unproven.values(), *self._proven.values()])

    def get(self, key: Hashable) -> F | None:
        return self._proven.get(key) or self._unproven.get(key)

    def add(self, flow: F, now: float) -> list[F]:
        """Put in a new one; who has to go for it is removed and returned."""
        gone = []
        free = self.ceiling - len(self) - 1
        for group in flow.groups:
            own = self._of.get(group)
            if own is not None and is_over(group, len(own) + 1, free):
                gone.append(own.least_used())
                self.remove(gone[0])
                break
        while len(self) >= self.ceiling:
            oldest = next(iter((self._unproven or self._proven).values()))
            self.remove(oldest)
            gone.append(oldest)
        flow.used, flow.proven = now, False
        self._unproven[flow.key] = flow
        for group in flow.groups:
            self._of.setdefault(group, _Own()).unproven[flow.key] = flow
        return gone

    def touch(self, flow: F, now: float) -> None:
        """A datagram went through."""
        flow.used = now
        (self._proven if flow.proven else self._unproven).move_to_end(flow.key)

    def prove(self, flow: F) -> None:
        """The client has spoken after an answer."""
        if not flow.proven and self._unproven.pop(flow.key, None) is not None:
            flow.proven = True
            self._proven[flow.key] = flow
            for group in flow.groups:
                own = self._of[group]
                own.proven[flow.key] = own.unproven.pop(flow.key)

    def remove(self, flow: F) -> bool:
        """False: it was not there any more."""
        flows = self._proven if flow.proven else self._unproven
        if flows.get(flow.key) is not flow:
            return False
        del flows[flow.key]
        for group in flow.groups:
            own = self._of[group]
            del (own.proven if flow.proven else own.unproven)[flow.key]
            if not own:
                del self._of[group]
        return True

    def expire(self, before: float) -> list[F]:
        """Remove and return those that have not been used since ``before``."""
        gone = []
        for flows in (self._unproven, self._proven):
            while flows and (oldest := next(iter(flows.values()))).used <= before:
                self.remove(oldest)
                gone.append(oldest)
        return gone

    def longest_idle(self) -> float | None:
        """When the one was used that has been idle for the longest time; None: there are no flows."""
        return min((next(iter(flows.values())).used for flows in (self._unproven, self._proven) if flows), default=None)
