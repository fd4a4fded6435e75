"""The figures of the coordinator as a table, and their place in the documentation. Pure but for :func:`load`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.tables import markdown, written

BEGIN: Final = "<!-- figures: written by `python -m benchmarks.coordinator --publish` -->"
END: Final = "<!-- end of figures -->"

_NAMES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


class Row(NamedTuple):
    """One line: a figure, in ``unit`` after multiplication by ``scale``."""

    title: str
    figure: str
    unit: str
    scale: float = 1.0


ROWS: Final = (
    Row("Join storm: enrolments", "join_per_s", "1/s"),
    Row("Join storm: one enrolment, median", "join_p50_s", "ms", 1e3),
    Row("Join storm: one enrolment, 99th percentile", "join_p99_s", "ms", 1e3),
    Row("Join storm: until all know all", "join_converged_s", "s"),
    Row("Join storm: coordinator CPU", "join_cpu_s", "s"),
    Row("Join storm: received by each node", "join_bytes_per_node", "KiB", 2**-10),
    Row("Whole map", "map_bytes", "KiB", 2**-10),
    Row("Rename: first node has it, median", "rename_first_p50_s", "ms", 1e3),
    Row("Rename: last node has it, median", "rename_last_p50_s", "ms", 1e3),
    Row("Rename: last node has it, 99th percentile", "rename_last_p99_s", "ms", 1e3),
    Row("Rename: received by each node, least", "rename_bytes_min", "B"),
    Row("Rename: received by each node, most", "rename_bytes_max", "B"),
    Row("Rename: coordinator CPU", "rename_cpu_s", "ms", 1e3),
    Row("Policy: last node has it, median", "policy_last_p50_s", "ms", 1e3),
    Row("Policy: last node has it, 99th percentile", "policy_last_p99_s", "ms", 1e3),
    Row("Policy: received by each node, least", "policy_bytes_min", "B"),
    Row("Policy: received by each node, most", "policy_bytes_max", "B"),
    Row("Policy: coordinator CPU", "policy_cpu_s", "ms", 1e3),
    Row("Restart: until it serves again", "restart_start_s", "s"),
    Row("Restart: all nodes back", "reconnect_s", "s"),
    Row("Restart: nodes back", "reconnect_per_s", "1/s"),
    Row("Restart: one node back, 99th percentile", "reconnect_p99_s", "ms", 1e3),
    Row("Restart: received by each node", "reconnect_bytes_per_node", "B"),
    Row("Restart: coordinator CPU", "reconnect_cpu_s", "s"),
    Row("All fetch the whole map: time", "whole_s", "s"),
    Row("All fetch the whole map: coordinator CPU", "whole_cpu_s", "s"),
    Row("Coordinator memory without nodes, RSS", "rss_empty_bytes", "MiB", 2**-20),
    Row("Coordinator memory with idle nodes, RSS", "rss_idle_bytes", "MiB", 2**-20),
    Row("Coordinator memory after the restart, RSS", "rss_reconnected_bytes", "MiB", 2**-20),
    Row("Coordinator CPU with idle nodes", "idle_cpu_percent", "% of a core"),
)


def load(path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(path.read_text())
    return run


def table(run: Mapping[str, Any]) -> list[list[str]]:
    """A head, then one line per figure and one column per measurement."""
    columns = run["measurements"]
    rows = [["", "unit", *(f"{_NAMES[one['database']]}, {one['nodes']:,} nodes" for one in columns)]]
    for row in ROWS:
        values = [one["figures"].get(row.figure) for one in columns]
        if any(value is not None for value in values):
            rows.append([row.title, row.unit, *(written(None if v is None else v * row.scale) for v in values)])
    return rows


def page(text: str, run: Mapping[str, Any]) -> str:
    """The page ``text`` with the figures of ``run`` between the markers. Raises ValueError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    machine = "; ".join(f"{name}: {value}" for name, value in run["machine"].items())
    return f"{before}{BEGIN}\n\n{machine}.\n\n{markdown(table(run))}\n\n{END}{after}"
