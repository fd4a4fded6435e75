"""Puts a run into the documentation: the JSON, and the tables between two markers of the page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.coordination.figures import Run, databases, notes, table
from benchmarks.tables import markdown

BEGIN = "<!-- figures: written by `python -m benchmarks.coordination --publish` -->"
END = "<!-- end of figures -->"


def publish(run: Run, docs: Path) -> list[Path]:
    """Rewrite ``docs``/benchmarks/coordination.json and the figures in ``docs``/benchmarks-coordination.md.

    Raises ValueError, and writes nothing, when the page lacks the markers.
    """
    page = docs / "benchmarks-coordination.md"
    text = replaced(page.read_text(), section(run))
    raw = docs / "benchmarks" / "coordination.json"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(run.dump())
    page.write_text(text)
    return [page, raw]


def replaced(page: str, text: str) -> str:
    """The page with ``text`` between the markers. Raises ValueError when they are not both there, in order, once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    return f"{page.partition(BEGIN)[0]}{BEGIN}\n\n{text}\n\n{END}{page.partition(END)[2]}"


def section(run: Run) -> str:
    """What stands between the markers, as Markdown."""
    machine = "; ".join(f"{name}: {value}" for name, value in run.machine.items() if name != "iperf3")
    settings = ", ".join(f"{name} {value:g}" for name, value in run.settings.items())
    parts = [f"Measured {run.machine['date']}. {machine}. {settings}."]
    parts += [markdown(table(run, database)) for database in databases(run)]
    parts += ["\n".join(f"- Not finished: {line}" for line in notes(run))]
    return "\n\n".join(part for part in parts if part)
