"""What commands print: tables that fit the terminal, durations and sizes a person reads at a glance, JSON.

Texts that came from elsewhere (names of nodes, reasons, user agents) go through :func:`clean`: they stay on one line
and cannot drive the terminal. Into a pipe goes neither colour nor anything shortened.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from warren import log
from warren.errors import OperationFailed, UsageError
from warren.proto.control.spans import read_span

clean = log.printable

_GAP: Final = "  "
_SHRUNK_MIN: Final = 8
"""A column is not made narrower than this to fit the terminal."""


def emit(value: object) -> None:
    """One JSON document on stdout; indented for a person, on one line for a program."""
    import msgspec

    data = msgspec.json.encode(value)
    if sys.stdout.isatty():
        data = msgspec.json.format(data, indent=2)
    click.echo(data.decode())


def answer(value: object, text: str, *, as_json: bool) -> None:
    """What a command has done: ``value`` as JSON, or the sentence ``text``."""
    if as_json:
        emit(value)
    else:
        click.echo(text)


def listing(
    found: Sequence[object],
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    as_json: bool,
    nothing: str,
    right: Collection[str] = (),
    flexible: Collection[str] = (),
) -> None:
    """What a command has found: ``found`` as JSON, or a :func:`table` of it, or the sentence ``nothing``."""
    if as_json:
        emit(found)
    elif not found:
        click.echo(nothing)
    else:
        for line in table(titles, rows, right=right, flexible=flexible):
            click.echo(line)


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is; None: it is no terminal, and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


# Tables


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[str] = (),
    flexible: Collection[str] = (),
    margin: int = 0,
) -> list[str]:
    """Lines of a table with a line of titles. Columns of ``right`` are aligned to the right; those of ``flexible``, and
    no others, are shortened (``…``) when the terminal is too narrow for them and a margin. Cells may be styled.
    """
    widths = [
        max(visible_length(title), *(visible_length(row[column]) for row in rows), 0)
        for column, title in enumerate(titles)
    ]
    columns = terminal_width()
    if columns is not None:
        _shrink(widths, [title in flexible for title in titles], columns - margin)
    styled = [click.style(title, dim=True) for title in titles]
    aligned = [title in right for title in titles]
    lines = []
    for row in (styled, *rows):
        cells = (_cell(text, width, right) for text, width, right in zip(row, widths, aligned, strict=True))
        lines.append(_GAP.join(cells).rstrip())
    return lines


def visible_length(text: str) -> int:
    """Characters of ``text`` without its style."""
    return len(click.unstyle(text))


def table_width(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns that the table needs when nothing is shortened."""
    widths = (max(visible_length(row[column]) for row in (titles, *rows)) for column in range(len(titles)))
    return sum(widths) + len(_GAP) * (len(titles) - 1)


def _shrink(widths: list[int], flexible: Sequence[bool], columns: int) -> None:
    """Take what is too much from the widest flexible columns."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    candidates = [index for index, may in enumerate(flexible) if may]
    while excess > 0 and candidates:
        widest = max(candidates, key=widths.__getitem__)
        if widths[widest] <= _SHRUNK_MIN:
            return
        widths[widest] -= 1
        excess -= 1


def _cell(text: str, width: int, at_right: bool) -> str:
    missing = width - visible_length(text)
    if missing < 0:
        return click.unstyle(text)[: width - 1] + "…"
    return " " * missing + text if at_right else text + " " * missing


# Quantities


def span(seconds: float) -> str:
    """``12 s``, ``3 min``, ``5 h``, ``2 d``: the largest unit of which there are two, rounded down."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def until(moment: datetime | None, now: datetime) -> str:
    """How long from ``now``; ``ended`` when it has passed."""
    if moment is None:
        return ""
    seconds = (moment - now).total_seconds()
    return span(seconds) if seconds > 0 else "ended"


def ago(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else f"{span((now - moment).total_seconds())} ago"


def size(amount: int) -> str:
    """``512 B``, ``1.2 MB``: powers of 1000."""
    if amount < 1000:
        return f"{amount} B"
    scaled = float(amount)
    for unit in ("kB", "MB", "GB", "TB"):
        scaled /= 1000
        if scaled < 999.5 or unit == "TB":
            break
    return f"{scaled:.1f} {unit}" if scaled < 9.95 else f"{scaled:.0f} {unit}"


def milliseconds(amount: float | None) -> str:
    if amount is None:
        return ""
    return f"{amount:.2f} ms" if amount < 10 else f"{amount:.0f} ms"


def local_time(moment: datetime) -> str:
    """``2025-03-01 14:02:03`` in the time zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def utc_now() -> datetime:
    return datetime.now(UTC)


class Span(click.ParamType[int]):
    """A duration on the command line, in whole seconds: from one to ``longest``."""

    name = "duration"

    def __init__(self, longest: int) -> None:
        self._longest = longest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            seconds = read_span(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 1 <= seconds <= self._longest:
            self.fail(f"{value} is not possible: from 1s to {self._longest // 86_400}d", param, ctx)
        return seconds


# Questions


def confirm(question: str, *, yes: bool) -> None:
    """Go on only when a person says yes, or said ``--yes``. Raises UsageError without a terminal, OperationFailed for
    no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("there is no terminal to ask on, and nothing was changed; say --yes to go on without asking")
    if not click.confirm(question, err=True):
        raise OperationFailed("nothing was changed")
