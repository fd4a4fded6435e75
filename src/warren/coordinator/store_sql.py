"""The store on SQLAlchemy Core: what SQLite and PostgreSQL have in common.

What goes wrong in a database (locked, full, away, too slow) leaves here as Problem ``unavailable``, with nothing
half-done.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from sqlalchemy import CursorResult, Executable, Select, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.sql.elements import ColumnElement

from warren import log
from warren.coordinator.conditions import Value, Where
from warren.coordinator.problems import Problem, unavailable
from warren.coordinator.rows import R, Row
from warren.coordinator.schema import TABLES

_log = log.get("coordinator")

AWAY = (SQLAlchemyError, OSError, asyncio.TimeoutError)
"""What a database raises that does not do what it should."""

Execute = Callable[[Executable, Any], Awaitable[CursorResult[Any]]]


class SqlTransaction:
    """Statements of one transaction, on whatever runs them: ``execute`` takes a statement and its parameters, or a list
    of them.
    """

    def __init__(self, execute: Execute, dialect: str) -> None:
        self._run = execute
        self._dialect = dialect

    async def get(self, row: type[R], *key: Value) -> R | None:
        result = await self._execute(_get(row), dict(zip(row.KEY, key, strict=True)))
        found = result.first()
        return None if found is None else row(**found._mapping)  # noqa: SLF001 - its documented public name

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        statement = _find(row, _shape(where), order, descending, limit is not None)
        parameters = _parameters(where) | ({} if limit is None else {"limit": limit})
        return [row(**found._mapping) for found in await self._execute(statement, parameters)]  # noqa: SLF001

    async def count(self, row: type[Row], *where: Where) -> int:
        return int((await self._execute(_count(row, _shape(where)), _parameters(where))).scalar_one())

    async def put(self, *rows: Row) -> None:
        by_table: dict[type[Row], list[dict[str, Any]]] = defaultdict(list)
        for one in rows:
            by_table[type(one)].append({name: getattr(one, name) for name in one.__struct_fields__})
        for row, values in by_table.items():
            try:
                await self._execute(_upsert(row, self._dialect), values if len(values) > 1 else values[0])
            except _TakenError:
                raise Problem("conflict", f"another row of {row.TABLE} has this name or key") from None

    async def delete(self, row: type[Row], *where: Where) -> int:
        if not where:
            raise ValueError("a delete without a condition")
        return (await self._execute(_delete(row, _shape(where)), _parameters(where))).rowcount

    async def notify(self, notice: str) -> None:
        """There is nobody to tell."""

    async def _execute(self, statement: Executable, parameters: Any) -> CursorResult[Any]:
        try:
            return await self._run(statement, parameters)
        except IntegrityError as error:
            raise _TakenError from error
        except AWAY as error:
            raise problem_of(error) from error


class _TakenError(Exception):
    """A key that must be unique, or one that refers to nothing."""


def problem_of(error: BaseException) -> Problem:
    """Problem ``unavailable`` for what a database raised, with its own words."""
    if isinstance(error, PoolTimeout | asyncio.TimeoutError):
        return unavailable("the database is too slow")
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    _log.warning("the database failed: %s", text)
    return unavailable(f"the database says: {text}")


# Statements, made once for each shape

_Shape = tuple[tuple[str, str, bool], ...]
"""Column and relation of each condition, and whether its value is None."""


def _shape(where: tuple[Where, ...]) -> _Shape:
    return tuple((one.column, one.relation, one.value is None) for one in where)


def _parameters(where: tuple[Where, ...]) -> dict[str, Value]:
    return {f"where{i}": one.value for i, one in enumerate(where) if one.value is not None}


def _conditions(row: type[Row], shape: _Shape) -> list[ColumnElement[bool]]:
    return [_condition(row, i, *one) for i, one in enumerate(shape)]


def _condition(row: type[Row], place: int, name: str, relation: str, is_none: bool) -> ColumnElement[bool]:
    column = TABLES[row].c[name]
    if is_none:
        return column.is_(None) if relation == "=" else column.is_not(None)
    value = bindparam(f"where{place}", type_=column.type)
    match relation:
        case "=":
            return column == value
        case "!=":
            return column.is_distinct_from(value)
        case ">":
            return column > value
        case _:
            return column <= value


@cache
def _get(row: type[Row]) -> Select[Any]:
    table = TABLES[row]
    return select(table).where(*(table.c[name] == bindparam(name) for name in row.KEY))


@cache
def _find(row: type[Row], shape: _Shape, order: str | None, descending: bool, limited: bool) -> Select[Any]:
    table = TABLES[row]
    statement: Select[Any] = select(table).where(*_conditions(row, shape))
    if order is not None:
        statement = statement.order_by(table.c[order].desc() if descending else table.c[order])
    return statement.limit(bindparam("limit")) if limited else statement


@cache
def _count(row: type[Row], shape: _Shape) -> Select[Any]:
    return select(func.count()).select_from(TABLES[row]).where(*_conditions(row, shape))


@cache
def _delete(row: type[Row], shape: _Shape) -> Executable:
    return delete(TABLES[row]).where(*_conditions(row, shape))


@cache
def _upsert(row: type[Row], dialect: str) -> Any:
    make: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(TABLES[row])
    others = {name: statement.excluded[name] for name in row.__struct_fields__ if name not in row.KEY}
    return statement.on_conflict_do_update(index_elements=list(row.KEY), set_=others)
