"""What was measured, and what is shown of it. Pure: no clock, no process, no file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass
class Trial:
    """One coordinator on one database with so many nodes. ``figures`` by phase, with units in their names;
    ``unfinished`` says of each phase that was cut off how far it came.
    """

    database: str
    nodes: int
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """All trials of one call."""

    machine: dict[str, str]
    settings: dict[str, Any]
    trials: list[Trial]

    def dump(self) -> str:
        """JSON with one phase of a trial a line: a diff shows what changed."""
        return json.dumps(_rounded(asdict(self)), indent=1, separators=(",", ": ")) + "\n"

    @classmethod
    def load(cls, text: str) -> Run:
        """The inverse of :meth:`dump`, but for rounding."""
        tree = json.loads(text)
        return cls(tree["machine"], tree["settings"], [Trial(**one) for one in tree["trials"]])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` of them do not exceed (nearest rank); NaN without any."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def spread(values: Sequence[float], unit: str = "s") -> dict[str, float]:
    """Median, 99th percentile and the largest."""
    return {
        f"p50_{unit}": median(values) if values else math.nan,
        f"p99_{unit}": percentile(values, 0.99),
        f"most_{unit}": max(values, default=math.nan),
    }


@dataclass(frozen=True)
class Line:
    """A line of the table: ``key`` of ``phase``, times ``scale``, in ``unit``."""

    title: str
    unit: str
    phase: str
    key: str
    scale: float = 1.0


LINES = (
    Line("Join storm: nodes a second", "1/s", "join", "per_s"),
    Line("from connecting to the first map, median", "s", "join", "p50_s"),
    Line("from connecting to the first map, 99 %", "s", "join", "p99_s"),
    Line("attempts in vain", "", "join", "failed_attempts"),
    Line("until everybody has everybody's record", "s", "join", "settled_s"),
    Line("CPU of the coordinator, per node", "ms", "join", "cpu_ms_per_node"),
    Line("sent to each node meanwhile", "KB", "join", "wire_bytes_per_node", 1e-3),
    Line("The whole map", "KB", "map", "bytes", 1e-3),
    Line("per member in it", "bytes", "map", "bytes_per_member"),
    Line("time to get it, from being let in, median", "s", "map", "p50_s"),
    Line("Idle: memory (RSS)", "MB", "idle", "rss_bytes", 1e-6),
    Line("per node", "KB", "idle", "rss_bytes_per_node", 1e-3),
    Line("CPU", "% of a core", "idle", "cpu_share", 100),
    *(
        Line(title, unit, f"change_{kind}", key, scale)
        for kind, name in (
            ("rename", "A member is renamed"),
            ("policy", "A policy of 20 rules"),
            ("record", "A record"),
        )
        for title, unit, key, scale in (
            (f"{name}: until the last node has it, median", "ms", "last_p50_s", 1e3),
            ("the same, 99 %", "ms", "last_p99_s", 1e3),
            ("sent to each node (TCP)", "bytes", "wire_bytes_per_node", 1.0),
            ("CPU of the coordinator", "ms", "cpu_ms", 1.0),
            ("CPU of the coordinator, per node", "µs", "cpu_us_per_node", 1.0),
        )
    ),
    Line("Restart: until it serves again", "s", "restart", "serving_s"),
    Line("from then until half of all are back", "s", "restart", "half_s"),
    Line("until all are back", "s", "restart", "all_s"),
    Line("CPU of the coordinator, per node", "ms", "restart", "cpu_ms_per_node"),
    Line("documents sent", "", "restart", "documents"),
    Line("sent to each node (TCP, with TLS handshakes)", "bytes", "restart", "wire_bytes_per_node"),
)


def table(run: Run, database: str) -> list[list[str]]:
    """The trials on one database side by side; lines that none has are left out. ``…``: not finished."""
    trials = [trial for trial in run.trials if trial.database == database]
    rows = [[database, "unit", *(f"{trial.nodes:,} nodes" for trial in trials)]]
    for line in LINES:
        cells = [_cell(trial, line) for trial in trials]
        if any(cell != "–" for cell in cells):
            rows.append([line.title, line.unit, *cells])
    return rows


def notes(run: Run) -> list[str]:
    """What was cut off, a sentence each."""
    return [
        f"{trial.database}, {trial.nodes:,} nodes, {phase}: {how}."
        for trial in run.trials
        for phase, how in trial.unfinished.items()
    ]


def databases(run: Run) -> list[str]:
    return list(dict.fromkeys(trial.database for trial in run.trials))


def _cell(trial: Trial, line: Line) -> str:
    value = trial.figures.get(line.phase, {}).get(line.key)
    if value is None or math.isnan(value):
        return "–"
    return written(value * line.scale)


def written(value: float) -> str:
    """Three figures that matter, thousands set apart; whole numbers as they are."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _rounded(value: Any) -> Any:
    """Floats with four figures after the point are enough for anybody; NaN is not JSON."""
    match value:
        case float():
            return None if math.isnan(value) else round(value, 4)
        case Mapping():
            return {key: _rounded(one) for key, one in value.items()}
        case str():
            return value
        case Iterable():
            return [_rounded(one) for one in value]
        case _:
            return value
