"""``python -m benchmarks.streams``: Warren's forwards beside socat, nginx and plain TCP, in turns.

In a row: a client, a host that forwards, a server. Through a tunnel: a client and a server at its two ends, and the
forward on the client's host. Ends with status 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import contenders as tunnels
from benchmarks.machine import describe_machine
from benchmarks.streams import ends
from benchmarks.streams.contenders import Forwarder, all_forwarders, cpu_s, memory_kib
from benchmarks.streams.figures import METRICS, Sample, publish, report
from warren.errors import WarrenError
from warren.lab import Host, Lab, Process
from warren.lab.privilege import ensure as ensure_privilege

ROUNDS, SECONDS = 5, 2.0
ROUND_TRIPS, HELD, AT_ONCE = 2000, 1000, 8
FORWARD_PORT, SERVER_PORT = 9000, 9001
CLIENT, FORWARD, INNER, SERVER = "10.9.1.2", "10.9.1.1", "10.9.2.1", "10.9.2.2"
PLAIN = "plain TCP"
IN_THE_TUNNEL = ("warren", "socat")
_DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Scene:
    client: Host
    place: tuple[str, int]
    """Where the client goes."""
    process: Process | None
    """That forwards, if there is one."""
    seconds: float

    def cpu_s(self) -> float:
        return 0.0 if self.process is None else cpu_s(self.process.pid)


def transfer(scene: Scene, streams: int, *, down: bool) -> dict[str, float]:
    before = scene.cpu_s()
    moved = scene.client.call(ends.transfer, *scene.place, scene.seconds, streams, down)
    spent = scene.cpu_s() - before
    values = {"mbit_s": moved.payload_bytes * 8 / moved.seconds / 1e6}
    if scene.process is not None:
        values["cpu_s_per_gb"] = spent / (moved.payload_bytes / 1e9)
    return values


def brief(scene: Scene) -> dict[str, float]:
    before = scene.cpu_s()
    rate = scene.client.call(ends.brief_streams, *scene.place, scene.seconds, AT_ONCE)
    return {"streams_s": rate, "cpu_us_per_stream": (scene.cpu_s() - before) / (rate * scene.seconds) * 1e6}


def echo(scene: Scene) -> dict[str, float]:
    found = scene.client.call(ends.round_trips, *scene.place, ROUND_TRIPS)
    return {"median_us": median(found) * 1e6, "p99_us": quantiles(found, n=100)[98] * 1e6}


def memory(scene: Scene) -> dict[str, float]:
    if scene.process is None:
        return {}
    before = memory_kib(scene.process.pid)
    with tempfile.TemporaryDirectory() as meeting:
        holding = scene.client.begin(ends.hold, *scene.place, HELD, meeting)
        scene.client.wait_for(lambda: Path(meeting, "held").exists(), timeout=60)
        held = memory_kib(scene.process.pid)
        Path(meeting, "done").touch()
        holding.result(30)
    return {"start_kib": before, "per_stream_kib": max(0.0, (held - before) / HELD)}


Measure = Callable[[Scene], dict[str, float]]
IN_A_ROW: dict[str, Measure] = {
    "up": lambda scene: transfer(scene, 1, down=False),
    "down": lambda scene: transfer(scene, 1, down=True),
    "up_8": lambda scene: transfer(scene, 8, down=False),
    "brief": brief,
    "echo": echo,
    "memory": memory,
}
THROUGH_A_TUNNEL: dict[str, Measure] = {
    "tunnel_up": lambda scene: transfer(scene, 1, down=False),
    "tunnel_down": lambda scene: transfer(scene, 1, down=True),
    "tunnel_echo": echo,
}


class Session:
    """One run; each measurement has a lab and processes of its own: nothing is left over from the one before."""

    def __init__(self, seconds: float) -> None:
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self._seconds = seconds

    def in_a_row(self, forwarder: Forwarder, measure: str, turn: int) -> None:
        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab:
                client, middle, server = lab.host("client"), lab.host("middle"), lab.host("server")
                lab.link(client, middle, f"{CLIENT}/24", f"{FORWARD}/24")
                lab.link(middle, server, f"{INNER}/24", f"{SERVER}/24", interfaces=("eth1", "eth0"))
                serving = _serving(server, SERVER)
                process = forwarder.start(middle, (FORWARD, FORWARD_PORT), (SERVER, SERVER_PORT))
                scene = Scene(client, (FORWARD, FORWARD_PORT), process, self._seconds)
                values = IN_A_ROW[measure](scene)
                serving.cancel()
                return values

        self._take(forwarder.name, measure, turn, measured)

    def through_a_tunnel(self, forwarder: Forwarder | None, measure: str, turn: int) -> None:
        """``forwarder`` None: plain TCP."""

        def measured() -> dict[str, float]:
            with Lab(name="bench-streams", seed=1) as lab, tempfile.TemporaryDirectory() as directory:
                a, b = lab.host("a"), lab.host("b")
                lab.link(a, b, *(f"{address}/24" for address in tunnels.OUTER))
                tunnel = tunnels.Warren("tunnel", pure=False).open(tunnels.Pair(a, b, Path(directory)), 1)
                serving = _serving(b, tunnel.target)
                far = (tunnel.target, SERVER_PORT)
                near = ("127.0.0.1", FORWARD_PORT)
                process = None if forwarder is None else forwarder.start(a, near, far)
                scene = Scene(a, far if process is None else near, process, self._seconds)
                values = THROUGH_A_TUNNEL[measure](scene)
                serving.cancel()
                return values

        self._take(PLAIN if forwarder is None else forwarder.name, measure, turn, measured)

    def _take(self, name: str, measure: str, turn: int, measured: Callable[[], dict[str, float]]) -> None:
        try:
            values = measured()
        except (WarrenError, OSError) as error:
            self.failures.append(f"{name}, {measure}, round {turn + 1}: {error}")
            print(f"  round {turn + 1}  {measure:<12} {name:<10} FAILED: {error}", flush=True)
            return
        self.samples.append(Sample(turn + 1, name, measure, values))
        shown = "  ".join(f"{metric} {values[metric]:,.4g}" for metric, _ in METRICS if metric in values)
        print(f"  round {turn + 1}  {measure:<12} {name:<10} {shown}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    names = [*IN_A_ROW, *THROUGH_A_TUNNEL]
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
    wanted = [name for name in names if name.startswith(tuple(options.only.split(",")))]
    run: dict[str, Any] = {"machine": describe_machine(), "rounds": options.rounds, "seconds": options.seconds}
    forwarders = []
    for forwarder in all_forwarders():
        reason = forwarder.missing()
        if reason is None:
            forwarders.append(forwarder)
        else:
            print(f"{forwarder.name}: LEFT OUT: {reason}")
    run["contenders"] = {one.name: one.version() for one in forwarders} | {PLAIN: "a stream without a forward"}
    session = Session(options.seconds)
    for turn in range(options.rounds):
        for measure in wanted:
            if measure in IN_A_ROW:
                for forwarder in _turned(forwarders, turn):
                    session.in_a_row(forwarder, measure, turn)
            else:
                inside = [None, *(one for one in forwarders if one.name in IN_THE_TUNNEL)]
                for one in _turned(inside, turn):
                    session.through_a_tunnel(one, measure, turn)
    run["samples"] = [asdict(sample) for sample in session.samples]
    run["failures"] = session.failures
    print(report(list(run["contenders"]), session.samples))
    if options.publish:
        publish(run, session.samples, _DOCS)
        (_DOCS / "benchmarks" / "streams.json").write_text(json.dumps(run, indent=1) + "\n")
    return 1 if session.failures or not session.samples else 0


def _serving(host: Host, address: str) -> Any:
    serving = host.begin(ends.serve, address, SERVER_PORT)
    host.wait_for(["sh", "-c", f"ss -ltn | grep -q ':{SERVER_PORT} '"])
    return serving


def _turned(these: list[Any], turn: int) -> list[Any]:
    """Another begins in each round."""
    first = turn % len(these)
    return these[first:] + these[:first]


if __name__ == "__main__":
    sys.exit(main())
