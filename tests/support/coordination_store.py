"""A store whose process may be killed at any point of any transaction, and whose database may fail there.

Nothing here catches up with a killed process: whoever waits for the store then waits for ever, as code of a dead
process does, until the simulation takes its tasks away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from warren.coordinator.conditions import Value, Where
from warren.coordinator.problems import unavailable
from warren.coordinator.rows import R, Row
from warren.coordinator.store import Transaction
from warren.coordinator.store_memory import MemoryStore


class FragileStore:
    """What was committed is in ``disk``, which outlives this; everything else goes with the process."""

    shared = False

    def __init__(self, disk: MemoryStore) -> None:
        self.crashed = asyncio.Event()
        self.points = 0
        """How many there have been."""
        self._disk = disk
        self._crash_at: int | None = None
        self._fail_at: int | None = None
        self._failed = False

    def crash_after(self, points: int | None) -> None:
        """The process is killed at the ``points``-th point from now; None: it is not."""
        self._crash_at = None if points is None else self.points + points

    def fail_after(self, points: int) -> None:
        """The database refuses at the ``points``-th point from now, once."""
        self._fail_at = self.points + points

    def has_failed(self) -> bool:
        """Whether the database has refused since this was last asked; and it will not until it is told to again."""
        failed, self._failed, self._fail_at = self._failed, False, None
        return failed

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        await self._point()
        async with self._disk.read() as transaction:
            yield _Fragile(transaction, self)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        await self._point()
        async with self._disk.write() as transaction:
            yield _Fragile(transaction, self)
            await self._point()  # before the commit
        await self._point(may_fail=False)  # after it, when nobody has been told yet

    async def notify(self, notice: str) -> None:
        """There are no replicas."""

    async def listen(self, heard: Callable[[str | None], None]) -> None:
        """There are no replicas."""

    async def close(self) -> None:
        """The disk stays."""

    async def _point(self, *, may_fail: bool = True) -> None:
        self.points += 1
        if self._crash_at is not None and self.points >= self._crash_at:
            self.crashed.set()
            await asyncio.Event().wait()
        if may_fail and self._fail_at is not None and self.points >= self._fail_at:
            self._fail_at, self._failed = None, True
            raise unavailable("the disk is full")


class _Fragile:
    """A transaction with a point before each statement."""

    def __init__(self, transaction: Transaction, store: FragileStore) -> None:
        self._transaction = transaction
        self._store = store

    async def get(self, row: type[R], *key: Value) -> R | None:
        await self._store._point()
        return await self._transaction.get(row, *key)

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        await self._store._point()
        return await self._transaction.find(row, *where, order=order, descending=descending, limit=limit)

    async def count(self, row: type[Row], *where: Where) -> int:
        await self._store._point()
        return await self._transaction.count(row, *where)

    async def put(self, *rows: Row) -> None:
        await self._store._point()
        await self._transaction.put(*rows)

    async def delete(self, row: type[Row], *where: Where) -> int:
        await self._store._point()
        return await self._transaction.delete(row, *where)

    async def notify(self, notice: str) -> None:
        await self._transaction.notify(notice)
