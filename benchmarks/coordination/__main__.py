"""``python -m benchmarks.coordination``: thousands of nodes against one coordinator, on SQLite and on PostgreSQL.

Ends with status 0, or 1 when a phase was not finished in its time.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.coordination.figures import Run, Trial, databases, notes, table
from benchmarks.coordination.phases import Settings, measure
from benchmarks.coordination.publish import publish
from benchmarks.machine import describe_machine
from benchmarks.tables import aligned
from warren.errors import WarrenError

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_FILES_BESIDES = 256


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    settings = Settings(options.processes, options.at_once, options.repeats, options.idle, options.within)
    run = Run(describe_machine(), asdict(settings), [])
    try:
        _raise_files(max(options.nodes))
        asyncio.run(_measure(run, options, settings))
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured so far:", file=sys.stderr)
    print("\n" + "\n\n".join(aligned(table(run, database)) for database in databases(run)))
    print("\n".join(notes(run)))
    if options.json:
        options.json.write_text(run.dump())
    if options.publish:
        print("written: " + ", ".join(str(path) for path in publish(run, _DOCS)))
    return 1 if notes(run) or not run.trials else 0


async def _measure(run: Run, options: argparse.Namespace, settings: Settings) -> None:
    for database in options.databases:
        for nodes in options.nodes:
            print(f"{database}, {nodes} nodes", flush=True)
            trial = Trial(database, nodes)
            run.trials.append(trial)
            await measure(trial, settings)
            if options.json:
                options.json.write_text(run.dump())


def _raise_files(nodes: int) -> None:
    """As many files open as the coordinator needs for ``nodes``; what we start has the same limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = nodes + _FILES_BESIDES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise WarrenError(f"{nodes} nodes need {wanted} open files, {hard} are allowed; raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coordination", description=__doc__)
    parser.add_argument(
        "--nodes", type=_numbers, default=[100, 1000, 5000], help="sizes of the network (100,1000,5000)"
    )
    parser.add_argument("--databases", type=_names, default=["sqlite", "postgresql"], help="(sqlite,postgresql)")
    parser.add_argument("--processes", type=int, default=2, help="that the nodes are spread over (2)")
    parser.add_argument("--at-once", type=int, default=250, help="nodes that join at the same moment (250)")
    parser.add_argument("--repeats", type=int, default=10, help="changes of each kind (10)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds in which nothing happens (60)")
    parser.add_argument("--within", type=float, default=300.0, help="seconds that a phase may take (300)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures in docs/")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ("sqlite", "postgresql")]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is neither sqlite nor postgresql")
    return names


if __name__ == "__main__":
    sys.exit(main())
