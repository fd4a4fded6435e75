"""``python -m benchmarks.paths.times``: how long it takes until members talk, until directly, and what breaks cost.

Ends with status 0, or 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.paths.contact import Contact
from benchmarks.paths.failover import gaps
from benchmarks.paths.figures import IDLE, JOIN, PHASES, Phase, Run, Sample, gaps_table, notes, times_table
from benchmarks.paths.newcomers import Pair
from benchmarks.paths.publish import publish
from benchmarks.paths.scenes import FAULTS, KINDS, PAIRS
from benchmarks.tables import aligned
from warren.errors import WarrenError
from warren.lab import Lab
from warren.lab.privilege import ensure as ensure_privilege

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    wanted = options.only.split(",")
    try:
        ensure_privilege()
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    settings = {"meetings of each kind": options.repeats, "runs of each fault": options.faults}
    run = Run(describe_machine(), settings, [], [], [])
    end = time.monotonic() + options.within
    try:
        for name in KINDS:
            if options.repeats and name.startswith(tuple(wanted)):
                _meet(run, name, options.repeats, end)
        for scene in FAULTS:
            if options.faults and scene.name.startswith(tuple(wanted)):
                _break(run, scene.name, options.faults, end)
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured so far:", file=sys.stderr)
    run.machine["load at the end"] = " ".join(f"{average:.2f}" for average in os.getloadavg())
    tables = [times_table(run, JOIN, PAIRS), times_table(run, IDLE, PAIRS), gaps_table(run, FAULTS)]
    print("\n" + "\n\n".join(aligned(table) for table in tables))
    print("\n".join(notes(run, PAIRS)))
    if options.json:
        options.json.write_text(run.dump())
    if options.publish:
        print("written: " + ", ".join(str(path) for path in publish(run, _DOCS)))
    return 1 if run.failures or not (run.samples or run.gaps) else 0


def _meet(run: Run, name: str, repeats: int, end: float) -> None:
    try:
        with Lab(name=f"paths-{name}", seed=1) as lab:
            pair = Pair(lab, KINDS[name])
            for number in range(1, repeats + 1):
                for phase in PHASES:
                    if time.monotonic() >= end:
                        raise WarrenError(f"the time was over before round {number}")
                    began, found = pair.joining() if phase == JOIN else pair.calling()
                    run.samples.append(_sample(name, phase, number, began, found))
                    print(f"  {run.samples[-1]}", flush=True)
                    pair.leave()
    except (WarrenError, OSError) as error:
        run.failures.append(f"{name}: {error}")
        print(f"  {name} FAILED: {error}", flush=True)


def _sample(name: str, phase: Phase, number: int, began: float, found: Contact) -> Sample:
    reply = None if found.replied_at is None else found.replied_at - began
    direct = None if found.direct_at is None else found.direct_at - began
    return Sample(name, phase, number, reply, direct, found.path)


def _break(run: Run, name: str, rounds: int, end: float) -> None:
    try:
        for gap in gaps(name, rounds):
            run.gaps.append(gap)
            print(f"  {gap}", flush=True)
            if time.monotonic() >= end:
                raise WarrenError(f"the time was over after run {gap.round}")
    except (WarrenError, OSError) as error:
        run.failures.append(f"{name}: {error}")
        print(f"  {name} FAILED: {error}", flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paths.times", description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="meetings of each kind (10; 0: none)")
    parser.add_argument("--faults", type=int, default=5, help="runs of each fault (5; 0: none)")
    names = ", ".join([*KINDS, *(scene.name for scene in FAULTS)])
    parser.add_argument("--only", default="", help=f"by the beginnings of their names: {names}")
    parser.add_argument("--within", type=float, default=1800.0, help="seconds after which nothing new is begun (1800)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures in docs/benchmarks-paths.md")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
