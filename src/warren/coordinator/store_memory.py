"""The store in memory, for simulations and tests: what a database promises, but for outliving the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from warren.coordinator.problems import Problem
from warren.coordinator.rows import ROWS, NetworkRow, R, Row, Value, Where

_Key = tuple[Value, ...]


class MemoryStore:
    """Single owner: one event loop. Its transactions do not yield but to wait for their turn."""

    shared = False

    def __init__(self) -> None:
        self._tables: dict[type[Row], dict[_Key, Row]] = {row: {} for row in ROWS}
        self._unique: dict[tuple[type[Row], tuple[str, ...]], dict[_Key, _Key]] = {
            (row, columns): {} for row in ROWS for columns in row.UNIQUE
        }
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[_MemoryTransaction]:
        async with self._turn:
            yield _MemoryTransaction(self._tables, self._unique, writable=False)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[_MemoryTransaction]:
        async with self._turn:
            transaction = _MemoryTransaction(self._tables, self._unique, writable=True)
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
    def __init__(
        self,
        tables: dict[type[Row], dict[_Key, Row]],
        unique: dict[tuple[type[Row], tuple[str, ...]], dict[_Key, _Key]],
        *,
        writable: bool,
    ) -> None:
        self._tables = tables
        self._unique = unique
        self._writable = writable
        self._undo: list[tuple[type[Row], _Key, Row | None]] = []

    async def get(self, row: type[R], *key: Value) -> R | None:
        found = self._tables[row].get(key)
        return found if isinstance(found, row) else None

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        found = self._matching(row, where)
        if order is not None:
            found.sort(key=lambda one: getattr(one, order), reverse=descending)
        return found[:limit]

    async def count(self, row: type[Row], *where: Where) -> int:
        return len(self._matching(row, where))

    async def put(self, *rows: Row) -> None:
        for row in rows:
            self._replace(type(row), _values(row, row.KEY), row)

    async def delete(self, row: type[Row], *where: Where) -> int:
        if not where:
            raise ValueError("a delete without a condition")
        found = self._matching(row, where)
        for one in found:
            self._replace(row, _values(one, row.KEY), None)
        return len(found)

    async def notify(self, notice: str) -> None:
        """There is nobody to tell."""

    def undo(self) -> None:
        while self._undo:
            self._set(*self._undo.pop())

    def _matching(self, row: type[R], where: tuple[Where, ...]) -> list[R]:
        return [
            one for one in self._tables[row].values() if isinstance(one, row) and all(_holds(one, w) for w in where)
        ]

    def _replace(self, table: type[Row], key: _Key, row: Row | None) -> None:
        if not self._writable:
            raise TypeError("this transaction only reads")
        if row is not None:
            for columns in table.UNIQUE:
                if self._unique[table, columns].get(_values(row, columns), key) != key:
                    raise Problem("conflict", f"another row of {table.TABLE} has this {', '.join(columns)}")
            network = getattr(row, "network", None)
            if network is not None and (network,) not in self._tables[NetworkRow]:
                raise Problem("conflict", f"a row of {table.TABLE} for a network that is not there")
        self._undo.append((table, key, self._tables[table].get(key)))
        self._set(table, key, row)

    def _set(self, table: type[Row], key: _Key, row: Row | None) -> None:
        old = self._tables[table].pop(key, None)
        for columns in table.UNIQUE:
            if old is not None:
                self._unique[table, columns].pop(_values(old, columns), None)
            if row is not None:
                self._unique[table, columns][_values(row, columns)] = key
        if row is not None:
            self._tables[table][key] = row


def _values(row: Row, columns: tuple[str, ...]) -> _Key:
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
