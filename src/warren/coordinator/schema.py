"""The tables of :mod:`warren.coordinator.rows` for SQLAlchemy; the migrations make exactly these (a test compares)."""

from __future__ import annotations

import json
from typing import Any, Final, get_args, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.types import TypeDecorator, TypeEngine

from warren.coordinator.rows import ROWS, NetworkRow, Row

NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}


class Texts(TypeDecorator[tuple[str, ...]]):
    """A tuple of texts, as a JSON array."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[str, ...] | None:  # noqa: ARG002
        return None if value is None else tuple(json.loads(value))


_TYPES: Final[dict[object, type[TypeEngine[Any]]]] = {
    int: BigInteger,
    float: Double,
    str: Text,
    bytes: LargeBinary,
    bool: Boolean,
    tuple[str, ...]: Texts,
}


def make_tables() -> tuple[MetaData, dict[type[Row], Table]]:
    """The metadata and the table of each kind of row."""
    metadata = MetaData(naming_convention=NAMES)
    return metadata, {row: _table(row, metadata) for row in ROWS}


def _table(row: type[Row], metadata: MetaData) -> Table:
    hints = get_type_hints(row)
    table = Table(
        row.TABLE,
        metadata,
        *(_column(name, hints[name], is_key=name in row.KEY) for name in row.__struct_fields__),
        *(Unique(*columns) for columns in row.UNIQUE),
    )
    for columns in row.INDEXES:
        Index(None, *(table.c[column] for column in columns))
    return table


def _column(name: str, annotation: object, *, is_key: bool) -> Column[Any]:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)] if _is_optional(annotation) else []
    kind = kinds[0] if kinds else annotation
    references = [ForeignKey(f"{NetworkRow.TABLE}.key")] if name == "network" else []
    return Column(name, _TYPES[kind](), *references, primary_key=is_key, nullable=bool(kinds), autoincrement=False)


def _is_optional(annotation: object) -> bool:
    return type(None) in get_args(annotation)


METADATA, TABLES = make_tables()
