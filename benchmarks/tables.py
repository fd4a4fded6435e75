"""The figures of a run as tables: aligned for a terminal, and Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import METRICS, Run, figure, ratio, verdicts

_NOTHING = "–"


def figures_table(run: Run) -> list[list[str]]:
    """Medians over the rounds: a head, then one line per metric and one column per contender."""
    names = list(run.contenders)
    rows = [["median of the rounds", "unit", *names]]
    for metric in METRICS:
        values = [figure(run, name, metric) for name in names]
        if any(value is not None for value in values):
            rows.append([metric.title, metric.unit, *map(written, values)])
    return rows


def verdicts_table(run: Run) -> list[list[str]]:
    """The targets, each with the median of the per-round ratios."""
    rows = [["target", "compared with", "at least", "measured", ""]]
    for verdict in verdicts(run):
        target = verdict.target
        measured = _NOTHING if verdict.ratio is None else f"{verdict.ratio:.2f} ×"
        title = f"{target.contender}: {target.metric.title}"
        rows.append([title, target.against, f"{target.factor:g} ×", measured, verdict.word])
    return rows


def ratios_table(run: Run, contender: str) -> list[list[str]]:
    """How many times better one contender is than each other one, metric by metric."""
    others = [name for name in run.contenders if name != contender]
    rows = [[f"times better is {contender} than", *others]]
    for metric in METRICS:
        ratios = [ratio(run, contender, other, metric) for other in others]
        if any(value is not None for value in ratios):
            rows.append(
                [
                    f"{metric.title} ({metric.unit})",
                    *(_NOTHING if value is None else f"{value:.2f}" for value in ratios),
                ]
            )
    return rows


def notes(run: Run) -> list[str]:
    """What is absent from the tables, and why: one sentence each."""
    lines = [f"Left out: {name}: {why}." for name, why in run.missing.items()]
    lines += [f"Failed: {row.contender}, {row.measure}, round {row.round}: {row.reason}." for row in run.failures]
    if run.settings.get("interrupted"):
        lines.append("The run was interrupted: the figures are of the part that was measured.")
    return lines


def written(value: float | None) -> str:
    """Three figures that matter, thousands set apart."""
    if value is None:
        return _NOTHING
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """For a terminal: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in rows[0][1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])
