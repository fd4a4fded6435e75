"""``python -m benchmarks.run``: Warren, plain veth, wireguard-go and nebula side by side.

Ends with status 0, or 1 when a measurement failed or nothing could be measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, newer_wireguard_go, standard_contenders
from benchmarks.machine import describe_machine
from benchmarks.measures import MEASURES, Measure
from benchmarks.publish import publish
from benchmarks.results import Run
from benchmarks.session import Record, measure_many_peers, measure_traffic
from benchmarks.tables import aligned, figures_table, notes, verdicts_table
from warren.errors import WarrenError
from warren.lab.privilege import ensure as ensure_privilege

ROUNDS = 5
SECONDS = 2.0
_DOCS = Path(__file__).resolve().parent.parent / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        ensure_privilege()
        run = _measure(options)
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report(run))
    if options.json:
        options.json.write_text(run.dump())
    if options.publish:
        print("written: " + ", ".join(str(path) for path in publish(run, _DOCS)))
    return 1 if run.failures or not run.samples or run.settings["interrupted"] else 0


def report(run: Run) -> str:
    """What the terminal shows at the end."""
    machine = "\n".join(f"{name:>14}  {value}" for name, value in {**run.machine, **run.contenders}.items())
    parts = [machine, aligned(figures_table(run)), aligned(verdicts_table(run)), "\n".join(notes(run))]
    return "\n" + "\n\n".join(part for part in parts if part)


def _measure(options: argparse.Namespace) -> Run:
    """Raises OperationFailed when there cannot be a lab. Ctrl-C ends the measuring, not the report."""
    started = time.monotonic()
    run = _prepare(options)
    contenders = [contender for contender in _contenders(options) if contender.name in run.contenders]
    measures = [measure for measure in MEASURES if _wanted(measure, options)]
    record = Record(run.samples, run.failures)
    try:
        measure_traffic(contenders, measures, options.rounds, options.seconds, record)
        if _memory_wanted(options):
            measure_many_peers([contender for contender in contenders if contender.has_peers], record)
    except KeyboardInterrupt:
        run.settings["interrupted"] = True
        print("\ninterrupted; what was measured so far:", file=sys.stderr)
    run.settings["duration_s"] = round(time.monotonic() - started)
    return run


def _prepare(options: argparse.Namespace) -> Run:
    """A run without samples: who takes part, on what."""
    settings: dict[str, Any] = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "extra": [name for name, _ in options.extra],
        "interrupted": False,
    }
    run = Run(describe_machine(), settings, {}, {}, [], [])
    for contender in _contenders(options):
        reason = contender.missing()
        if reason is None:
            run.contenders[contender.name] = contender.version()
            print(f"{contender.name}: {run.contenders[contender.name]}")
        else:
            run.missing[contender.name] = reason
            print(f"{contender.name}: LEFT OUT: {reason}")
    return run


def _contenders(options: argparse.Namespace) -> list[Contender]:
    return [*standard_contenders(), *(newer_wireguard_go(name, path) for name, path in options.extra)]


def _wanted(measure: Measure, options: argparse.Namespace) -> bool:
    return not options.only or any(measure.name.startswith(prefix) for prefix in options.only)


def _memory_wanted(options: argparse.Namespace) -> bool:
    return not options.only or any("memory".startswith(prefix) for prefix in options.only)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = ", ".join(measure.name for measure in MEASURES)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--rounds", type=_positive, default=ROUNDS, help=f"how often everything is measured (default {ROUNDS})"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"length of each transfer (default {SECONDS:g})")
    parser.add_argument(
        "--quick", action="store_true", help="one round of one-second transfers: shows that everything works"
    )
    parser.add_argument(
        "--only", type=_names, default=[], help=f"measures to take, by the beginning of their names: {names}, memory"
    )
    parser.add_argument(
        "--extra", type=_extra, action="append", default=[], metavar="NAME=PATH", help="another wireguard-go program"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures and the picture in docs/")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one")
    return number


def _names(text: str) -> list[str]:
    return text.split(",")


def _extra(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError("the form is NAME=/path/to/wireguard-go")
    return name, path


if __name__ == "__main__":
    sys.exit(main())
