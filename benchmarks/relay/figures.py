"""The figures of a run of ``benchmarks.relay``: for the terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import aligned, markdown, written

BEGIN = "<!-- figures: written by `python -m benchmarks.relay --publish` -->"
END = "<!-- end of figures -->"

METRICS = (
    ("mbit_s", "Mbit/s"),
    ("kpackets_s", "kpackets/s"),
    ("lost_percent", "% lost"),
    ("cpu_s_per_gb", "CPU s/GB"),
    ("cpu_us_per_packet", "CPU µs/packet"),
    ("median_us", "µs, median"),
    ("p99_us", "µs, 99 %"),
    ("rss_mib", "MiB RSS"),
    ("per_allocation_kib", "KiB/allocation"),
)
TITLES = {
    "out_large": "client → peer, 1,400 B in trains",
    "in_large": "peer → client, 1,400 B in trains",
    "across_large": "client → client, 1,400 B in trains",
    "out_single": "client → peer, 1,400 B one by one",
    "in_single": "peer → client, 1,400 B one by one",
    "out_small": "client → peer, 100 B one by one",
    "in_small": "peer → client, 100 B one by one",
    "ping": "echo through the relay",
    "memory": "memory",
}
_LESS_IS_BETTER = frozenset({"lost_percent", "cpu_s_per_gb", "cpu_us_per_packet", "median_us", "p99_us", "rss_mib"})


@dataclass(frozen=True, slots=True)
class Sample:
    round: int
    contender: str
    measure: str
    values: dict[str, float]


def table(contenders: Sequence[str], samples: Sequence[Sample]) -> list[list[str]]:
    """Medians over the rounds, and how many times better Warren is: the median of the ratios of each round."""
    rows = [["median of the rounds", "unit", *contenders, "times better is warren"]]
    for measure, title in TITLES.items():
        for metric, unit in METRICS:
            found = {
                name: {one.round: one.values[metric] for one in samples if _is(one, name, measure, metric)}
                for name in contenders
            }
            if any(found.values()):
                values = [median(one.values()) if one else None for one in found.values()]
                rows.append([title, unit, *map(written, values), written(_ratio(found, metric))])
    return rows


def _is(sample: Sample, name: str, measure: str, metric: str) -> bool:
    return sample.contender == name and sample.measure == measure and metric in sample.values


def _ratio(found: Mapping[str, Mapping[int, float]], metric: str) -> float | None:
    ours, theirs = found.get("warren", {}), found.get("coturn", {})
    ratios = []
    for turn in ours.keys() & theirs.keys():
        better, worse = (
            (theirs, ours) if metric in _LESS_IS_BETTER or metric == "per_allocation_kib" else (ours, theirs)
        )
        if worse[turn] > 0:
            ratios.append(better[turn] / worse[turn])
    return median(ratios) if ratios else None


def report(contenders: Mapping[str, str], samples: Sequence[Sample]) -> str:
    return "\n" + aligned(table(list(contenders), samples))


def publish(run: Mapping[str, Any], samples: Sequence[Sample], docs: Path) -> None:
    """Rewrite the figures in ``docs``/benchmarks-relay.md. Raises ValueError when the page lacks the markers."""
    page = docs / "benchmarks-relay.md"
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    machine = "; ".join(f"{name}: {value}" for name, value in run["machine"].items() if name != "iperf3")
    parts = [
        f"Measured {run['machine']['date']}: {run['rounds']} rounds, {run['seconds']:g} s per transfer. {machine}.",
        "\n".join(f"- **{name}**: {version}" for name, version in run["contenders"].items()),
        markdown(table(list(run["contenders"]), samples)),
        "\n".join(f"- Failed: {line}" for line in run["failures"]),
    ]
    section = "\n\n".join(part for part in parts if part)
    page.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n\n{section}\n\n{END}{text.partition(END)[2]}")
