"""Puts what was measured about paths into the documentation: the JSON, and tables between two markers of a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.paths.figures import IDLE, JOIN, Run, gaps_table, notes, times_table
from benchmarks.paths.scenes import FAULTS, PAIRS
from benchmarks.tables import markdown

TIMES_BEGIN = "<!-- figures: written by `python -m benchmarks.paths.times --publish` -->"
MATRIX_BEGIN = "<!-- matrix: written by `python -m benchmarks.paths.matrix --publish` -->"
TIMES_END = "<!-- end of figures -->"
MATRIX_END = "<!-- end of the matrix -->"


def publish(run: Run, docs: Path) -> list[Path]:
    """Rewrite ``docs``/benchmarks/paths.json and the figures in ``docs``/benchmarks-paths.md.

    Raises ValueError, and writes nothing, when the page lacks the markers.
    """
    page = docs / "benchmarks-paths.md"
    text = replaced(page.read_text(), section(run), TIMES_BEGIN, TIMES_END)
    raw = docs / "benchmarks" / "paths.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(run.dump())
    page.write_text(text)
    return [page, raw]


def publish_matrix(table: str, machine: Mapping[str, str], docs: Path) -> Path:
    """Rewrite the matrix in ``docs``/nat.md. Raises ValueError when the page lacks the markers."""
    page = docs / "nat.md"
    text = f"{measured(machine)}\n\n{table}"
    page.write_text(replaced(page.read_text(), text, MATRIX_BEGIN, MATRIX_END))
    return page


def replaced(page: str, text: str, begin: str, end: str) -> str:
    """The page with ``text`` between the markers. Raises ValueError when they are not both there, in order, once."""
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page needs the lines {begin!r} and {end!r}, once each and in this order")
    return f"{page.partition(begin)[0]}{begin}\n\n{text}\n\n{end}{page.partition(end)[2]}"


def section(run: Run) -> str:
    """What stands between the markers of the page of times, as Markdown."""
    settings = ", ".join(f"{name} {value:g}" for name, value in run.settings.items())
    parts = [
        f"{measured(run.machine)} {settings}.",
        "### A newcomer: from the start of `warren up TICKET`",
        markdown(times_table(run, JOIN, PAIRS)),
        "### Both up and idle: from the first packet",
        markdown(times_table(run, IDLE, PAIRS)),
        "### A path breaks: the longest gap",
        markdown(gaps_table(run, FAULTS)),
        "\n".join(f"- {line}" for line in notes(run, PAIRS)),
    ]
    return "\n\n".join(part for part in parts if part)


def measured(machine: Mapping[str, str]) -> str:
    shown = "; ".join(f"{name}: {value}" for name, value in machine.items() if name not in {"date", "iperf3"})
    return f"Measured {machine['date']}. {shown}."
