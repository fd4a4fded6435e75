"""Where a coordinator keeps its state: one Protocol, a database behind it, and a twin in memory for simulations.

A write transaction is alone: the next begins when it has ended, whichever replica wants it. So what is checked in one
still holds when it writes, and whoever sees a revision sees every one below it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from warren.coordinator.conditions import Value, Where
from warren.coordinator.rows import R, Row
from warren.errors import UsageError

NOTICE_CHARACTERS_MAX = 7_900
"""PostgreSQL refuses a payload of 8,000 bytes."""


class Transaction(Protocol):
    """One transaction. Every method raises Problem ``unavailable`` when the database does not answer as it should."""

    async def get(self, row: type[R], *key: Value) -> R | None:
        """The row with this primary key."""

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        """The rows for which all conditions hold. Without ``order`` in any order."""

    async def count(self, row: type[Row], *where: Where) -> int: ...

    async def put(self, *rows: Row) -> None:
        """Insert each, or replace the row with its primary key. Problem ``conflict`` when a unique key is taken."""

    async def delete(self, row: type[Row], *where: Where) -> int:
        """How many were deleted. At least one condition is wanted."""

    async def notify(self, notice: str) -> None:
        """Tell the other replicas, once and only if this transaction commits."""


class Store(Protocol):
    """A database. Closed with :meth:`close`."""

    shared: bool
    """Whether other replicas may use the same database now."""

    def read(self) -> AbstractAsyncContextManager[Transaction]:
        """What was committed before; not necessarily all statements see one moment. Problem ``unavailable``."""

    def write(self) -> AbstractAsyncContextManager[Transaction]:
        """All or nothing: leaving the block commits, an exception in it takes everything back. Problem
        ``unavailable`` when it cannot begin or commit; nothing was written then.
        """

    async def notify(self, notice: str) -> None:
        """Tell the other replicas now. Problem ``unavailable``."""

    async def listen(self, heard: Callable[[str | None], None]) -> None:
        """From now on call ``heard`` with each notice of the other replicas, and with None whenever some may have
        been missed. Does nothing where there are no other replicas. At most once for a store.
        """

    async def close(self) -> None: ...


async def open_store(url: str) -> Store:
    """The store at ``sqlite:///PATH``, ``postgresql://USER:PASSWORD@HOST/NAME`` or ``memory:``, migrated to what this
    version of Warren wants.

    UsageError for another URL; OperationFailed, with what to do, when the database is damaged, was made by a newer
    Warren, may be read by others, or does not answer.
    """
    if url == "memory:":
        from warren.coordinator.store_memory import MemoryStore

        return MemoryStore()
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from warren.coordinator.store_sqlite import open_sqlite

        return await open_sqlite(url)
    if scheme in {"postgresql", "postgres"}:
        from warren.coordinator.store_postgres import open_postgres

        return await open_postgres(url)
    raise UsageError(
        f"{scheme} is no database that Warren knows; say sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME"
    )
