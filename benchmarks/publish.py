"""Puts a run into the documentation: the raw JSON, the picture, and the tables between two markers of the page."""

from __future__ import annotations

from pathlib import Path

from benchmarks.picture import draw
from benchmarks.results import WARREN, WARREN_PURE, Run
from benchmarks.tables import figures_table, markdown, notes, ratios_table, verdicts_table

BEGIN = "<!-- figures: written by `make bench ARGS=--publish` -->"
END = "<!-- end of figures -->"


def publish(run: Run, docs: Path) -> list[Path]:
    """Rewrite ``docs``/benchmarks/results.json and .svg and the figures in ``docs``/benchmarks.md; returns the files.

    Raises ValueError, and writes nothing, when the page lacks the markers.
    """
    page = docs / "benchmarks.md"
    files = {
        page: replaced(page.read_text(), section(run)),
        docs / "benchmarks" / "results.json": run.dump(),
        docs / "benchmarks" / "results.svg": draw(run),
    }
    (docs / "benchmarks").mkdir(exist_ok=True)
    for path, text in files.items():
        path.write_text(text)
    return list(files)


def replaced(page: str, text: str) -> str:
    """The page with ``text`` between the markers. Raises ValueError when they are not both there, in order, once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def section(run: Run) -> str:
    """What stands between the markers, as Markdown."""
    machine = "; ".join(f"{name}: {value}" for name, value in run.machine.items())
    settings = f"{run.settings['rounds']} rounds, {run.settings['seconds']:g} s per transfer"
    parts = [
        f"Measured {run.machine['date']}: {settings}. {machine}.",
        "\n".join(f"- **{name}**: {version}" for name, version in run.contenders.items()),
        "### Targets",
        markdown(verdicts_table(run)),
        "### Figures",
        markdown(figures_table(run)),
        "### Ratios",
        *(markdown(ratios_table(run, ours)) for ours in (WARREN, WARREN_PURE) if ours in run.contenders),
        *(f"- {line}" for line in notes(run)),
    ]
    return "\n\n".join(parts)
