"""Samples, and the conclusions drawn from them. Pure: no clock, no process, no file.

A ratio is taken between two contenders within one round, where the machine's mood was the same for both; the median
over the rounds is what is reported. Above 1 the first contender is the better one, also where less is better.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, NamedTuple

WARREN = "warren"
WARREN_PURE = "warren-pure"
DEBIAN = ("wireguard-go", "nebula")
# "No worse" allows what one run differs from the next when nothing was changed.
NOISE = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one contender. ``values`` have units in their names; ``raw`` is what they came from."""

    round: int
    contender: str
    measure: str
    values: dict[str, float]
    raw: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failure:
    """A measurement that gave no sample, and why."""

    round: int
    contender: str
    measure: str
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """Everything one run brought: how it was made, who took part, who could not and why, all samples."""

    machine: dict[str, str]
    settings: dict[str, Any]
    contenders: dict[str, str]  # name → version, in the order of presentation
    missing: dict[str, str]  # name → why
    samples: list[Sample]
    failures: list[Failure]

    @property
    def extras(self) -> tuple[str, ...]:
        """The contenders that were named on the command line."""
        return tuple(self.settings.get("extra", ()))

    def dump(self) -> str:
        """JSON with one sample a line: small, and a diff shows which samples changed."""
        head = {name: value for name, value in asdict(self).items() if name not in ("samples", "failures")}
        text = json.dumps(head, indent=1).removesuffix("\n}")
        for name, rows in (("samples", self.samples), ("failures", self.failures)):
            lines = ",\n  ".join(json.dumps(asdict(row), separators=(",", ":")) for row in rows)
            text += f',\n "{name}": [' + (f"\n  {lines}\n ]" if rows else "]")
        return text + "\n}\n"

    @classmethod
    def load(cls, text: str) -> Run:
        """The inverse of :meth:`dump`. Raises TypeError or KeyError for JSON of another shape."""
        tree = json.loads(text)
        tree["samples"] = [Sample(**row) for row in tree["samples"]]
        tree["failures"] = [Failure(**row) for row in tree["failures"]]
        return cls(**tree)


@dataclass(frozen=True, slots=True)
class Metric:
    """One line of the table: one value of one or more measures, in ``unit`` after multiplication by ``scale``."""

    title: str
    measures: tuple[str, ...]
    value: str
    unit: str
    more_is_better: bool = True
    scale: float = 1.0


TCP_ONE_FLOW = Metric("TCP, one flow, both directions", ("tcp_1_ab", "tcp_1_ba"), "mbit_s", "Mbit/s")
TCP_FOUR_FLOWS = Metric("TCP, four flows, both directions", ("tcp_4_ab", "tcp_4_ba"), "mbit_s", "Mbit/s")
UDP_SMALL = Metric("UDP 64 B, delivered", ("udp_64",), "kpackets_s", "kpackets/s")
UDP_LARGE = Metric("UDP 1,400 B, delivered", ("udp_1400",), "mbit_s", "Mbit/s")
PING_MEDIAN = Metric("Ping, median", ("ping",), "median_ms", "ms", more_is_better=False)
CPU_MACHINE = Metric("CPU, whole machine", TCP_ONE_FLOW.measures, "machine_s_per_gb", "s/GB", more_is_better=False)

METRICS = (
    Metric("TCP, one flow, a → b", ("tcp_1_ab",), "mbit_s", "Mbit/s"),
    Metric("TCP, one flow, b → a", ("tcp_1_ba",), "mbit_s", "Mbit/s"),
    Metric("TCP, four flows, a → b", ("tcp_4_ab",), "mbit_s", "Mbit/s"),
    Metric("TCP, four flows, b → a", ("tcp_4_ba",), "mbit_s", "Mbit/s"),
    Metric("UDP 64 B at 50 k/s, delivered", ("udp_64_half",), "kpackets_s", "kpackets/s"),
    Metric("UDP 64 B at 50 k/s, lost", ("udp_64_half",), "lost_percent", "%", more_is_better=False),
    Metric("UDP 64 B at 100 k/s, delivered", ("udp_64",), "kpackets_s", "kpackets/s"),
    Metric("UDP 64 B at 100 k/s, delivered", ("udp_64",), "mbit_s", "Mbit/s"),
    Metric("UDP 64 B at 100 k/s, lost", ("udp_64",), "lost_percent", "%", more_is_better=False),
    Metric("UDP 1,400 B at 100 k/s, delivered", ("udp_1400",), "kpackets_s", "kpackets/s"),
    Metric("UDP 1,400 B at 100 k/s, delivered", ("udp_1400",), "mbit_s", "Mbit/s"),
    Metric("UDP 1,400 B at 100 k/s, lost", ("udp_1400",), "lost_percent", "%", more_is_better=False),
    PING_MEDIAN,
    Metric("Ping, 99th percentile", ("ping",), "p99_ms", "ms", more_is_better=False),
    Metric("CPU, tunnel processes, one flow", TCP_ONE_FLOW.measures, "tunnel_s_per_gb", "s/GB", more_is_better=False),
    Metric("CPU, whole machine, one flow", TCP_ONE_FLOW.measures, "machine_s_per_gb", "s/GB", more_is_better=False),
    Metric("Memory, 1 peer, RSS", ("memory_1",), "rss_bytes", "MiB", more_is_better=False, scale=2**-20),
    Metric("Memory, 1 peer, PSS", ("memory_1",), "pss_bytes", "MiB", more_is_better=False, scale=2**-20),
    Metric("Memory, after the traffic, RSS", ("memory_used",), "rss_bytes", "MiB", more_is_better=False, scale=2**-20),
    Metric("Memory, 1,000 peers, RSS", ("memory_1000",), "rss_bytes", "MiB", more_is_better=False, scale=2**-20),
    Metric("Memory, 1,000 peers, PSS", ("memory_1000",), "pss_bytes", "MiB", more_is_better=False, scale=2**-20),
)


class Target(NamedTuple):
    """A promise: in ``metric``, ``contender`` is at least ``factor`` times as good as ``against``."""

    contender: str
    metric: Metric
    against: str
    factor: float


class Verdict(NamedTuple):
    """A target with what was measured. ``ratio`` is None when one of the two gave no samples."""

    target: Target
    ratio: float | None

    @property
    def word(self) -> str:
        if self.ratio is None:
            return "not measured"
        slack = NOISE if self.target.factor == 1.0 else 0.0
        return "reached" if self.ratio >= self.target.factor - slack else "missed"


def figure(run: Run, contender: str, metric: Metric) -> float | None:
    """The median of a metric over all rounds, in the metric's unit. None without samples."""
    values = _series(run.samples, contender, metric).values()
    return median(values) * metric.scale if values else None


def ratio(run: Run, contender: str, against: str, metric: Metric) -> float | None:
    """The median over the rounds of how many times better ``contender`` is. None when the two share no round."""
    ours, theirs = _series(run.samples, contender, metric), _series(run.samples, against, metric)
    ratios = []
    for moment in ours.keys() & theirs.keys():
        better, worse = (ours, theirs) if metric.more_is_better else (theirs, ours)
        if worse[moment] > 0:
            ratios.append(better[moment] / worse[moment])
    return median(ratios) if ratios else None


def targets(extras: Sequence[str]) -> list[Target]:
    """The promises, spelled out for the counterparts at hand; ``extras`` are newer builds of wireguard-go."""
    others = (*DEBIAN, *extras)
    return [
        *(Target(WARREN, TCP_ONE_FLOW, other, 4.0) for other in DEBIAN),
        *(Target(WARREN, TCP_ONE_FLOW, other, 1.5) for other in extras),
        *(Target(WARREN_PURE, TCP_ONE_FLOW, other, 1.5) for other in DEBIAN),
        *(
            Target(ours, metric, other, 1.0)
            for metric in (UDP_SMALL, PING_MEDIAN)
            for ours in (WARREN, WARREN_PURE)
            for other in others
        ),
    ]


def verdicts(run: Run) -> list[Verdict]:
    return [
        Verdict(target, ratio(run, target.contender, target.against, target.metric)) for target in targets(run.extras)
    ]


def _series(samples: Iterable[Sample], contender: str, metric: Metric) -> dict[tuple[int, str], float]:
    """A contender's values by (round, measure): what may be compared with another contender's of the same key."""
    return {
        (sample.round, sample.measure): sample.values[metric.value]
        for sample in samples
        if sample.contender == contender and sample.measure in metric.measures and metric.value in sample.values
    }
