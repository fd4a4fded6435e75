"""``python -m benchmarks.streams``: Warren's forwards beside socat, nginx and plain TCP, in turns.

In a row: a client, a host that forwards or is a public door, a server. Through a tunnel: a client and a server at its
two ends, and the forward on the client's host. Ends with status 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from benchmarks.streams import scenes
from benchmarks.streams.contenders import all_forwarders
from benchmarks.streams.doors import all_doors
from benchmarks.streams.figures import publish, report
from benchmarks.streams.scenes import PLAIN, Session
from warren.errors import WarrenError
from warren.lab.privilege import ensure as ensure_privilege

ROUNDS, SECONDS = 3, 1.5
IN_THE_TUNNEL = ("warren", "socat")
BY_THOUSANDS = ("warren", "nginx")
"""Ten thousand processes of socat say nothing that one thousand did not."""
_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(arguments: list[str] | None = None) -> int:
    names = [
        *scenes.IN_A_ROW,
        *scenes.BY_THOUSANDS,
        *scenes.PASSED_ON,
        *scenes.ENDED,
        *scenes.THROUGH_A_TUNNEL,
    ]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", default="", help=f"measures, by the beginnings of their names: {', '.join(names)}")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures in docs/benchmarks-streams.md")
    options = parser.parse_args(arguments)
    try:
        ensure_privilege()
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # of the two ends
    wanted = [name for name in names if name.startswith(tuple(options.only.split(",")))]
    run: dict[str, Any] = {"machine": describe_machine(), "rounds": options.rounds, "seconds": options.seconds}
    forwarders, doors = _present(all_forwarders()), _present(all_doors())
    run["contenders"] = {one.name: one.version() for one in forwarders} | {PLAIN: "a stream without a forward"}
    for door in doors:
        if door.name == "warren":
            run["contenders"]["warren"] += f", {door.version()} at the public door"
    session = Session(options.seconds)
    for turn in range(options.rounds):
        for measure in wanted:
            _take_turns(session, measure, turn, forwarders, doors)
    run["samples"] = [asdict(sample) for sample in session.samples]
    run["failures"] = session.failures
    print(report(list(run["contenders"]), session.samples))
    if options.publish:
        publish(run, session.samples, _DOCS)
        (_DOCS / "benchmarks" / "streams.json").write_text(json.dumps(run, indent=1) + "\n")
    return 1 if session.failures or not session.samples else 0


def _take_turns(session: Session, measure: str, turn: int, forwarders: list[Any], doors: list[Any]) -> None:
    if measure in scenes.IN_A_ROW:
        for one in _turned(forwarders, turn):
            session.in_a_row(one, measure, turn)
    elif measure in scenes.BY_THOUSANDS:
        for one in _turned([one for one in forwarders if one.name in BY_THOUSANDS], turn):
            session.in_a_row(one, measure, turn)
    elif measure in scenes.PASSED_ON:
        for one in _turned(doors, turn):
            session.passed_on(one, measure, turn)
    elif measure in scenes.ENDED:
        for one in _turned(doors, turn):
            session.ended(one, measure, turn)
    else:
        names = ("warren",) if measure.startswith("tunnel_many") else IN_THE_TUNNEL
        inside: list[Any] = [one for one in forwarders if one.name in names]
        if measure != "tunnel_many_held":
            inside.insert(0, None)  # plain TCP
        for one in _turned(inside, turn):
            session.through_a_tunnel(one, measure, turn)


def _present(contenders: list[Any]) -> list[Any]:
    found = []
    for one in contenders:
        reason = one.missing()
        if reason is None:
            found.append(one)
        else:
            print(f"{one.name}: LEFT OUT: {reason}")
    return found


def _turned(these: list[Any], turn: int) -> list[Any]:
    """Another begins in each round."""
    first = turn % len(these)
    return these[first:] + these[:first]


if __name__ == "__main__":
    sys.exit(main())
