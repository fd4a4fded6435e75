"""The figures of a run of ``benchmarks.streams``: for the terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import aligned, markdown, written

BEGIN = "<!-- figures: written by `python -m benchmarks.streams --publish` -->"
END = "<!-- end of figures -->"

METRICS = (
    ("mbit_s", "Mbit/s"),
    ("cpu_s_per_gb", "CPU s/GB"),
    ("streams_s", "streams/s"),
    ("seconds", "s"),
    ("cpu_us_per_stream", "CPU µs/stream"),
    ("requests_s", "requests/s"),
    ("cpu_us_per_request", "CPU µs/request"),
    ("median_us", "µs, median"),
    ("p99_us", "µs, 99 %"),
    ("start_kib", "KiB with no stream"),
    ("per_stream_kib", "KiB/stream"),
)
TITLES = {
    "up": "one stream, client → server",
    "down": "one stream, server → client",
    "up_8": "eight streams, client → server",
    "brief": "brief streams, eight at once",
    "echo": "echo of 64 bytes",
    "memory": "1,000 idle streams",
    "many_held": "9,500 idle streams",
    "many_checked": "10,000 streams of 4 KiB with their hash",
    "sni_down": "TLS passed on, server → client",
    "sni_brief": "TLS passed on, brief streams, eight at once",
    "sni_echo": "TLS passed on, echo of 64 bytes",
    "https_kept": "requests on eight kept connections",
    "https_new": "requests on new connections, eight at once",
    "https_body": "a body of 64 MiB, again and again",
    "tunnel_up": "through the tunnel, client → server",
    "tunnel_down": "through the tunnel, server → client",
    "tunnel_echo": "through the tunnel, echo of 64 bytes",
    "tunnel_many_held": "through the tunnel, 9,500 idle streams",
    "tunnel_many_checked": "through the tunnel, 10,000 streams of 4 KiB with their hash",
}
TARGETS = (
    ("up", "socat", 1.0),
    ("down", "socat", 1.0),
    ("tunnel_up", "plain TCP", 0.8),
    ("tunnel_down", "plain TCP", 0.8),
)
PER_STREAM_KIB_MAX = 20.0
_MORE_IS_BETTER = frozenset({"mbit_s", "streams_s", "requests_s"})
_AT_THE_DOOR = ("sni_", "https_")
_IN_THE_TUNNEL = ("tunnel_",)


@dataclass(frozen=True, slots=True)
class Sample:
    round: int
    contender: str
    measure: str
    values: dict[str, float]


def table(contenders: Sequence[str], measures: Sequence[str], samples: Sequence[Sample]) -> list[list[str]]:
    """Medians over the rounds."""
    rows = [["median of the rounds", "unit", *contenders]]
    for measure in measures:
        for metric, unit in METRICS:
            found = [list(_values(samples, name, measure, metric).values()) for name in contenders]
            if any(found):
                rows.append([TITLES[measure], unit, *(written(median(one) if one else None) for one in found)])
    return rows


def verdicts(samples: Sequence[Sample]) -> list[list[str]]:
    """What was to be reached, and what was: medians of the ratios of each round."""
    rows = [["target", "reached", "in the rounds"]]
    for measure, other, least in TARGETS:
        ratios = ratio(samples, measure, "mbit_s", other)
        if ratios:
            title = f"{TITLES[measure]}: ≥ {least:g} × {other}"
            rows.append([title, f"{median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"])
    held = list(_values(samples, "warren", "memory", "per_stream_kib").values())
    if held:
        rows.append(
            [
                f"memory of an idle stream: < {PER_STREAM_KIB_MAX:g} KiB",
                f"{median(held):.2f} KiB",
                f"{min(held):.2f} to {max(held):.2f}",
            ]
        )
    return rows


def ratio(samples: Sequence[Sample], measure: str, metric: str, other: str) -> list[float]:
    """How many times better Warren was than ``other``, round by round."""
    ours, theirs = (_values(samples, name, measure, metric) for name in ("warren", other))
    pairs = [(ours[turn], theirs[turn]) for turn in sorted(ours.keys() & theirs.keys())]
    if metric not in _MORE_IS_BETTER:
        pairs = [(second, first) for first, second in pairs]
    return [first / second for first, second in pairs if second > 0]


def report(names: Sequence[str], samples: Sequence[Sample]) -> str:
    return "\n" + aligned(table(names, list(TITLES), samples)) + "\n\n" + aligned(verdicts(samples))


def publish(run: Mapping[str, Any], samples: Sequence[Sample], docs: Path) -> None:
    """Rewrite the figures in ``docs``/benchmarks-streams.md. Raises ValueError when the page lacks the markers."""
    page = docs / "benchmarks-streams.md"
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    machine = "; ".join(f"{name}: {value}" for name, value in run["machine"].items() if name != "iperf3")
    row = [name for name in run["contenders"] if name != "plain TCP"]
    door = [name for name in run["contenders"] if name in {"warren", "nginx"}]
    tunnel = [name for name in run["contenders"] if name in {"warren", "socat", "plain TCP"}]
    parts = [
        f"Measured {run['machine']['date']}: {run['rounds']} rounds, {run['seconds']:g} s per transfer. {machine}.",
        "\n".join(f"- **{name}**: {version}" for name, version in run["contenders"].items()),
        "### Targets",
        markdown(verdicts(samples)),
        "### Three hosts in a row",
        markdown(table(row, [name for name in TITLES if not name.startswith(_AT_THE_DOOR + _IN_THE_TUNNEL)], samples)),
        "### A public door",
        markdown(table(door, [name for name in TITLES if name.startswith(_AT_THE_DOOR)], samples)),
        "### Through a tunnel",
        markdown(table(tunnel, [name for name in TITLES if name.startswith(_IN_THE_TUNNEL)], samples)),
        "\n".join(f"- Failed: {line}" for line in run["failures"]),
    ]
    section = "\n\n".join(part for part in parts if part)
    page.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n\n{section}\n\n{END}{text.partition(END)[2]}")


def _values(samples: Sequence[Sample], name: str, measure: str, metric: str) -> dict[int, float]:
    return {
        one.round: one.values[metric]
        for one in samples
        if one.contender == name and one.measure == measure and metric in one.values
    }
