"""The store in memory, for simulations and tests: what a database promises, but for outliving the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from heapq import nlargest, nsmallest

from warren.coordinator.conditions import Value, Where
from warren.coordinator.problems import Problem
from warren.coordinator.rows import ROWS, NetworkRow, R, Row

_Key = tuple[Value, ...]


class _Table:
    """The rows of one kind by primary key, and by the columns of each index."""

    def __init__(self, row: type[Row]) -> None:
        self.row = row
        self.rows: dict[_Key, Row] = {}
        self._indexes: dict[tuple[str, ...], dict[_Key, dict[_Key, Row]]] = {
            columns: {} for columns in (*row.UNIQUE, *row.INDEXES)
        }

    def replace(self, key: _Key, row: Row | None) -> Row | None:
        """Put ``row`` at ``key``, or nothing; what was there."""
        old = self.rows.pop(key, None)
        for columns, index in self._indexes.items():
            if old is not None:
                found = index[values(old, columns)]
                del found[key]
                if not found:
                    del index[values(old, columns)]
            if row is not None:
                index.setdefault(values(row, columns), {})[key] = row
        if row is not None:
            self.rows[key] = row
        return old

    def holder(self, row: Row, columns: tuple[str, ...]) -> Iterable[_Key]:
        """The primary keys of the rows that agree with ``row`` in the columns of an index."""
        return self._indexes[columns].get(values(row, columns), {}).keys()

    def candidates(self, where: tuple[Where, ...]) -> Iterable[Row]:
        """All rows for which the conditions may hold."""
        fixed = {one.column: one.value for one in where if one.relation == "="}
        if fixed.keys() >= set(self.row.KEY):
            found = self.rows.get(tuple(fixed[column] for column in self.row.KEY))
            return () if found is None else (found,)
        for columns, index in self._indexes.items():
            if fixed.keys() >= set(columns):
                return index.get(tuple(fixed[column] for column in columns), {}).values()
        return self.rows.values()


class MemoryStore:
    """Single owner: one event loop. Its transactions do not yield but to wait for their turn."""

    shared = False

    def __init__(self) -> None:
        self._tables = {row: _Table(row) for row in ROWS}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[_MemoryTransaction]:
        async with self._turn:
            yield _MemoryTransaction(self._tables, writable=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[_MemoryTransaction]:
        async with self._turn:
            transaction = _MemoryTransaction(self._tables, writable=True)
            try:
                yield transaction
            except BaseException:
                transaction.undo()
                raise

    async def notify(self, notice: str) -> None:
        """There is nobody to tell."""

    async def listen(self, heard: Callable[[str | None], None]) -> None:
        """There is nobody to hear."""

    async def close(self) -> None:
        """Nothing is held open."""


class _MemoryTransaction:
    def __init__(self, tables: dict[type[Row], _Table], *, writable: bool) -> None:
        self._tables = tables
        self._writable = writable
        self._undo: list[tuple[_Table, _Key, Row | None]] = []

    async def get(self, row: type[R], *key: Value) -> R | None:
        found = self._tables[row].rows.get(key)
        return found if isinstance(found, row) else None

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        found = self._matching(row, where)
        if order is None:
            return found[:limit]
        best = nlargest if descending else nsmallest
        return best(len(found) if limit is None else limit, found, key=lambda one: getattr(one, order))

    async def count(self, row: type[Row], *where: Where) -> int:
        return len(self._matching(row, where))

    async def put(self, *rows: Row) -> None:
        for row in rows:
            self._replace(type(row), values(row, row.KEY), row)

    async def delete(self, row: type[Row], *where: Where) -> int:
        if not where:
            raise ValueError("a delete without a condition")
        found = self._matching(row, where)
        for one in found:
            self._replace(row, values(one, row.KEY), None)
        return len(found)

    async def notify(self, notice: str) -> None:
        """There is nobody to tell."""

    def undo(self) -> None:
        while self._undo:
            table, key, row = self._undo.pop()
            table.replace(key, row)

    def _matching(self, row: type[R], where: tuple[Where, ...]) -> list[R]:
        found = self._tables[row].candidates(where)
        return [one for one in found if isinstance(one, row) and all(_holds(one, condition) for condition in where)]

    def _replace(self, kind: type[Row], key: _Key, row: Row | None) -> None:
        if not self._writable:
            raise TypeError("this transaction only reads")
        table = self._tables[kind]
        if row is not None:
            for columns in kind.UNIQUE:
                if any(holder != key for holder in table.holder(row, columns)):
                    raise Problem("conflict", f"another row of {kind.TABLE} has this {', '.join(columns)}")
            network = getattr(row, "network", None)
            if network is not None and (network,) not in self._tables[NetworkRow].rows:
                raise Problem("conflict", f"a row of {kind.TABLE} for a network that is not there")
        self._undo.append((table, key, table.replace(key, row)))


def values(row: Row, columns: tuple[str, ...]) -> _Key:
    return tuple(getattr(row, column) for column in columns)


def _holds(row: Row, where: Where) -> bool:
    value = getattr(row, where.column)
    if where.relation == "=":
        return bool(value == where.value)
    if where.relation == "!=":
        return bool(value != where.value)
    if value is None or where.value is None:  # as in SQL, nothing is neither more nor less than something
        return False
    return bool(value > where.value) if where.relation == ">" else bool(value <= where.value)
