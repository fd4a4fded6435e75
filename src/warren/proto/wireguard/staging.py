"""Packets that wait for a session (WireGuard §6.4: they are sent when the handshake completes)."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

STAGED_DATAGRAMS_MAX = 128
"""Per peer, as the reference implementations: enough for the beginning of many flows, and old packets are worth
little.
"""
STAGED_BYTES_MAX = 1 << 18
"""Per peer: 128 full packets of an ordinary MTU; fewer when packets are larger."""
STAGED_BYTES_OF_DEVICE_MAX = 1 << 24
"""All peers together: what unanswered handshakes may hold at most."""


class Train(NamedTuple):
    """Datagrams with room for header and tag, not sealed yet: ``datagrams`` slots of ``stride`` bytes, the last may
    be shorter.
    """

    slots: bytearray
    stride: int
    datagrams: int
    ecn: int


class StagingBudget:
    """The bytes that all peers of a device may stage together."""

    __slots__ = ("free",)

    def __init__(self, free: int = STAGED_BYTES_OF_DEVICE_MAX) -> None:
        self.free = free


class StagedTrains:
    """The waiting packets of one peer, oldest first. The oldest are dropped for newer ones (counted by the caller)."""

    __slots__ = ("_budget", "_bytes", "_datagrams", "_trains")

    def __init__(self, budget: StagingBudget) -> None:
        self._budget = budget
        self._trains: deque[Train] = deque()
        self._datagrams = self._bytes = 0

    def __len__(self) -> int:
        """How many trains wait."""
        return len(self._trains)

    def put(self, train: Train) -> int:
        """Stage ``train``, which must not be changed any more. Returns how many datagrams were dropped for it or with
        it.
        """
        dropped = 0
        size = len(train.slots)
        while self._trains and (
            self._datagrams + train.datagrams > STAGED_DATAGRAMS_MAX
            or self._bytes + size > STAGED_BYTES_MAX
            or size > self._budget.free
        ):
            dropped += self.get().datagrams
        if size > self._budget.free:
            return dropped + train.datagrams
        self._trains.append(train)
        self._account(train, 1)
        return dropped

    @property
    def first(self) -> Train:
        """The oldest train. Raises IndexError when there is none."""
        return self._trains[0]

    def get(self) -> Train:
        """Take the oldest train. Raises IndexError when there is none."""
        train = self._trains.popleft()
        self._account(train, -1)
        return train

    def purge(self) -> int:
        """Drop everything. Returns how many datagrams that were."""
        dropped = self._datagrams
        while self._trains:
            self.get()
        return dropped

    def _account(self, train: Train, sign: int) -> None:
        self._datagrams += sign * train.datagrams
        self._bytes += sign * len(train.slots)
        self._budget.free -= sign * len(train.slots)
