"""Conditions on the columns of a table: which rows are meant."""

from __future__ import annotations

from typing import Literal, NamedTuple

Value = int | float | str | bytes | bool | tuple[str, ...] | None
"""What a column may hold."""


class Where(NamedTuple):
    """A condition on one column."""

    column: str
    relation: Literal["=", ">", "<=", "!="]
    value: Value


def equal(column: str, value: Value) -> Where:
    return Where(column, "=", value)


def above(column: str, value: float) -> Where:
    return Where(column, ">", value)


def at_most(column: str, value: float) -> Where:
    return Where(column, "<=", value)


def differs(column: str, value: Value) -> Where:
    return Where(column, "!=", value)
