"""Names of routing tables, as iproute2 keeps them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from warren.errors import OperationFailed
from warren.tunnel.fields import TABLE_AUTO, TABLE_OFF

# The administrator's files come first: they win over the distribution's.
DIRECTORIES = (Path("/etc/iproute2"), Path("/usr/share/iproute2"), Path("/usr/lib/iproute2"))
_BUILT_IN = {"local": 255, "main": 254, "default": 253}


def number_of(table: int | str, directories: Sequence[Path] = DIRECTORIES) -> int | None:
    """The number of the table that ``Table`` of a config names; None for ``auto`` and ``off``.

    Raises OperationFailed when no file knows the name.
    """
    if isinstance(table, int):
        return table
    if table in (TABLE_AUTO, TABLE_OFF):
        return None
    for name, number in _entries(directories):
        if name == table:
            return number
    if table in _BUILT_IN:
        return _BUILT_IN[table]
    remedy = "give its number, or add a line `NUMBER NAME` to /etc/iproute2/rt_tables"
    raise OperationFailed(f'Table: no routing table is named "{table}"; {remedy}')


def _entries(directories: Sequence[Path]) -> Iterator[tuple[str, int]]:
    for directory in directories:
        for path in (directory / "rt_tables", *sorted(directory.glob("rt_tables.d/*.conf"))):
            with contextlib.suppress(OSError):
                yield from _parse(path.read_text(errors="replace"))


def _parse(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) == 2:
            with contextlib.suppress(ValueError):
                yield words[1], int(words[0], 0)
