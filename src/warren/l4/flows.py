"""The table of an entry's flows: who is in it, who has been idle for how long, who goes when it is full. No I/O.

Whoever sends one datagram, under whatever address, makes a flow. So that a flood of such does not drive out the flows
that carry something, there are two classes, as in the kernel's connection tracking: a flow is *proven* once its client
has spoken again after an answer. The unproven that has been idle the longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """What the table keeps of a flow; only the table changes it."""

    key: Hashable
    used: float
    """When a datagram last went through, on a clock that only rises."""
    proven: bool


F = TypeVar("F", bound=Timed)


class FlowTable(Generic[F]):
    """Flows by their keys, at most ``ceiling``. Every call takes the same time however many there are."""

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self._unproven: OrderedDict[Hashable, F] = OrderedDict()  # the longest idle first, as in the other
        self._proven: OrderedDict[Hashable, F] = OrderedDict()

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
        while len(self) >= self.ceiling:
            _, oldest = (self._unproven or self._proven).popitem(last=False)
            gone.append(oldest)
        flow.used, flow.proven = now, False
        self._unproven[flow.key] = flow
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

    def remove(self, flow: F) -> bool:
        """False: it was not there any more."""
        flows = self._proven if flow.proven else self._unproven
        if flows.get(flow.key) is not flow:
            return False
        del flows[flow.key]
        return True

    def expire(self, before: float) -> list[F]:
        """Remove and return those that have not been used since ``before``."""
        gone = []
        for flows in (self._unproven, self._proven):
            while flows and next(iter(flows.values())).used <= before:
                gone.append(flows.popitem(last=False)[1])
        return gone

    def longest_idle(self) -> float | None:
        """When the one was used that has been idle for the longest time; None: there are no flows."""
        return min((next(iter(flows.values())).used for flows in (self._unproven, self._proven) if flows), default=None)
