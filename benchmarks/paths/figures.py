"""What was measured about paths, and what is shown of it. Pure: no clock, no process, no file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final, Literal

from benchmarks.coordination.figures import percentile

Phase = Literal["join", "idle"]
JOIN: Final[Phase] = "join"
IDLE: Final[Phase] = "idle"
PHASES: Final[tuple[Phase, ...]] = (JOIN, IDLE)


@dataclass(frozen=True, slots=True)
class Sample:
    """One meeting of a newcomer and a member; None: it did not come in time."""

    pair: str
    phase: Phase
    round: int
    reply_s: float | None
    direct_s: float | None
    path: str
    """The last one seen."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time without a datagram after a fault; None: nothing came any more."""

    fault: str
    round: int
    gap_s: float | None
    lost: int
    sent: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A line of the tables: a pair of sites, or a fault."""

    name: str
    text: str
    target_s: float | None = None
    relayed: bool = False
    """No direct path is expected."""


@dataclass
class Run:
    """All samples of one call."""

    machine: dict[str, str]
    settings: dict[str, float]
    samples: list[Sample]
    gaps: list[Gap]
    failures: list[str]

    def dump(self) -> str:
        """JSON, one sample a line: a diff shows what changed."""
        tree = asdict(self)
        lists = {name: _lines(tree.pop(name)) for name in ("samples", "gaps")}
        body = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in tree.items()]
        body += [f"{json.dumps(name)}: [\n  {lines}\n ]" for name, lines in lists.items()]
        return "{\n " + ",\n ".join(body) + "\n}\n"

    @classmethod
    def load(cls, text: str) -> Run:
        """The inverse of :meth:`dump`, but for rounding."""
        tree = json.loads(text)
        samples = [Sample(**one) for one in tree["samples"]]
        gaps = [Gap(**one) for one in tree["gaps"]]
        return cls(tree["machine"], tree["settings"], samples, gaps, tree["failures"])


def times_table(run: Run, phase: Phase, scenes: Iterable[Scene]) -> list[list[str]]:
    """Medians and 95th percentiles of the meetings of one phase."""
    target = phase == JOIN
    rows = [["between", "runs", "first reply: median", "p95", "direct path: median", "p95"]]
    if target:
        rows[0] += ["first reply at most", ""]
    for scene in scenes:
        ours = [one for one in run.samples if one.pair == scene.name and one.phase == phase]
        if not ours:
            continue
        row = [scene.text, str(len(ours)), *_cells([one.reply_s for one in ours])]
        row += ["relayed", "–"] if scene.relayed else _cells([one.direct_s for one in ours])
        if target:
            row += _judged([one.reply_s for one in ours], scene.target_s)
        rows.append(row)
    return rows


def gaps_table(run: Run, scenes: Iterable[Scene]) -> list[list[str]]:
    rows = [["what happens", "runs", "longest gap: median", "p95", "largest", "at most", ""]]
    for scene in scenes:
        ours = [one.gap_s for one in run.gaps if one.fault == scene.name]
        if not ours:
            continue
        largest = _seconds(max(_known(ours)))
        rows.append([scene.text, str(len(ours)), *_cells(ours), largest, *_judged(ours, scene.target_s)])
    return rows


def notes(run: Run, scenes: Iterable[Scene]) -> list[str]:
    """What the medians do not show: a sentence each."""
    lines = [f"Failed: {line}." for line in run.failures]
    for scene in scenes:
        ours = [one for one in run.samples if one.pair == scene.name]
        silent = sum(one.reply_s is None for one in ours)
        if silent:
            lines.append(f"{scene.text}: no reply in time in {silent} of {len(ours)} runs.")
        wrong = sum(one.direct_s is None for one in ours) if not scene.relayed else 0
        if wrong:
            lines.append(f"{scene.text}: still relayed at the end in {wrong} of {len(ours)} runs.")
        odd = sum(one.direct_s is not None for one in ours) if scene.relayed else 0
        if odd:
            lines.append(f"{scene.text}: direct, against what was expected, in {odd} of {len(ours)} runs.")
    return lines


def _cells(values: Sequence[float | None]) -> list[str]:
    """Median and 95th percentile; one that never came is longer than all others."""
    known = _known(values)
    return [_seconds(median(known)), _seconds(percentile(known, 0.95))]


def _judged(values: Sequence[float | None], target_s: float | None) -> list[str]:
    if target_s is None:
        return ["–", ""]
    reached = median(_known(values)) <= target_s
    return [f"{target_s:g} s", "reached" if reached else "missed"]


def _known(values: Sequence[float | None]) -> list[float]:
    return [float("inf") if value is None else value for value in values]


def _seconds(value: float) -> str:
    return "not in time" if value == float("inf") else f"{value:.2f} s"


def _lines(values: list[dict[str, object]]) -> str:
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in one.items()} for one in values]
    return ",\n  ".join(json.dumps(one) for one in rounded)
