"""``python -m benchmarks.relay``: Warren's relay and coturn on the same path, in turns.

Host ``a`` is a TURN client, ``b`` its peer or another client, ``relay`` stands between them. Ends with status 1 when
something could not be measured.
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

from benchmarks.machine import describe_machine
from benchmarks.relay import clients
from benchmarks.relay.contenders import Relay, all_relays
from benchmarks.relay.figures import METRICS, Sample, publish, report
from warren.errors import OperationFailed, WarrenError
from warren.lab import Host, Lab, Process
from warren.lab.privilege import ensure as ensure_privilege

ROUNDS, SECONDS = 5, 2.0
LARGE_BYTES, SMALL_BYTES, TRAIN = 1400, 100, 44
PEER_PORT = 7000
PINGS = 2000
HELD = 200
A, RELAY_A, RELAY_B, B = "10.9.1.2", "10.9.1.1", "10.9.2.1", "10.9.2.2"
_DOCS = Path(__file__).resolve().parents[2] / "docs"


@dataclass(frozen=True, slots=True)
class Scene:
    a: Host
    b: Host
    relay: Host
    process: Process
    seconds: float

    def cpu_s(self) -> float:
        """That the relay has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])


def outward(scene: Scene, size: int, per_train: int) -> dict[str, float]:
    counting = scene.b.begin(clients.peer_counts, B, PEER_PORT)
    sending = scene.a.begin(clients.client_sends, A, RELAY_A, B, PEER_PORT, size, per_train, scene.seconds)
    return _flow(scene, counting.result, sending.result)


def inward(scene: Scene, size: int, per_train: int) -> dict[str, float]:
    sending = scene.b.begin(clients.peer_sends, B, PEER_PORT, size, per_train, scene.seconds)
    counting = scene.a.begin(clients.client_counts, A, RELAY_A, B, PEER_PORT)
    return _flow(scene, counting.result, sending.result)


def across(scene: Scene, size: int, per_train: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as meeting:
        counting = scene.b.begin(clients.client_counts_another, B, RELAY_B, meeting, 1)
        sending = scene.a.begin(clients.client_sends_another, A, RELAY_A, meeting, 0, size, per_train, scene.seconds)
        return _flow(scene, counting.result, sending.result)


def _flow(scene: Scene, counted: Callable[[float], Any], sent: Callable[[float], Any]) -> dict[str, float]:
    before = scene.cpu_s()
    sending, counting = sent(30), counted(30)
    cpu = scene.cpu_s() - before
    if not counting.datagrams or counting.seconds <= 0:
        raise OperationFailed("nothing arrived")
    return {
        "mbit_s": counting.payload_bytes * 8 / counting.seconds / 1e6,
        "kpackets_s": counting.datagrams / counting.seconds / 1e3,
        "lost_percent": max(0.0, 100 * (1 - counting.datagrams / sending.datagrams)),
        "cpu_s_per_gb": cpu / (counting.payload_bytes / 1e9),
        "cpu_us_per_packet": cpu / counting.datagrams * 1e6,
    }


def ping(scene: Scene) -> dict[str, float]:
    echoing = scene.b.begin(clients.echo, B, PEER_PORT)
    found = scene.a.call(clients.round_trips, A, RELAY_A, B, PEER_PORT, PINGS)
    echoing.result(10)
    if len(found) < PINGS / 2:
        raise OperationFailed("too many echoes were lost")
    return {"median_us": median(found) * 1e6, "p99_us": quantiles(found, n=100)[98] * 1e6}


def memory(scene: Scene) -> dict[str, float]:
    before = scene.memory_kib()
    with tempfile.TemporaryDirectory() as meeting:
        holding = scene.a.begin(clients.hold_allocations, A, RELAY_A, HELD, meeting)
        scene.a.wait_for(lambda: Path(meeting, "held").exists(), timeout=30)
        held = scene.memory_kib()
        Path(meeting, "done").touch()
        holding.result(30)
    return {"rss_mib": before / 1024, "per_allocation_kib": max(0.0, (held - before) / HELD)}


MEASURES: dict[str, Callable[[Scene], dict[str, float]]] = {
    "out_large": lambda scene: outward(scene, LARGE_BYTES, TRAIN),
    "in_large": lambda scene: inward(scene, LARGE_BYTES, TRAIN),
    "across_large": lambda scene: across(scene, LARGE_BYTES, TRAIN),
    "out_single": lambda scene: outward(scene, LARGE_BYTES, 1),
    "in_single": lambda scene: inward(scene, LARGE_BYTES, 1),
    "out_small": lambda scene: outward(scene, SMALL_BYTES, 1),
    "in_small": lambda scene: inward(scene, SMALL_BYTES, 1),
    "ping": ping,
    "memory": memory,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", default="", help=f"measures, by the beginnings of their names: {', '.join(MEASURES)}")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures in docs/benchmarks-relay.md")
    options = parser.parse_args(arguments)
    wanted = [name for name in MEASURES if name.startswith(tuple(options.only.split(",")))]
    try:
        ensure_privilege()
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    run: dict[str, Any] = {"machine": describe_machine(), "rounds": options.rounds, "seconds": options.seconds}
    relays = []
    for relay in all_relays():
        reason = relay.missing()
        if reason is None:
            relays.append(relay)
        else:
            print(f"{relay.name}: LEFT OUT: {reason}")
    run["contenders"] = {relay.name: relay.version() for relay in relays}
    samples: list[Sample] = []
    failures: list[str] = []
    for turn in range(options.rounds):
        for measure in wanted:
            for relay in relays[turn % len(relays) :] + relays[: turn % len(relays)]:
                _take(relay, measure, turn, options.seconds, samples, failures)
    run["samples"] = [asdict(sample) for sample in samples]
    run["failures"] = failures
    print(report(run["contenders"], samples))
    if options.publish:
        publish(run, samples, _DOCS)
        (_DOCS / "benchmarks" / "relay.json").write_text(json.dumps(run, indent=1) + "\n")
    return 1 if failures or not samples else 0


def _take(relay: Relay, measure: str, turn: int, seconds: float, samples: list[Sample], failures: list[str]) -> None:
    """Each measurement has a lab and a process of its own: nothing is left over from the one before."""
    try:
        with Lab(name="bench-relay", seed=1) as lab:
            a, middle, b = lab.host("a"), lab.host("relay"), lab.host("b")
            lab.link(a, middle, f"{A}/24", f"{RELAY_A}/24")
            lab.link(middle, b, f"{RELAY_B}/24", f"{B}/24", interfaces=("eth1", "eth0"))
            a.route("default", via=RELAY_A)
            b.route("default", via=RELAY_B)
            scene = Scene(a, b, middle, relay.start(middle), seconds)
            values = MEASURES[measure](scene)
    except (WarrenError, OSError) as error:
        failures.append(f"{relay.name}, {measure}, round {turn + 1}: {error}")
        print(f"  round {turn + 1}  {measure:<13} {relay.name:<8} FAILED: {error}", flush=True)
        return
    samples.append(Sample(turn + 1, relay.name, measure, values))
    shown = "  ".join(f"{name} {values[name]:,.4g}" for name, _ in METRICS if name in values)
    print(f"  round {turn + 1}  {measure:<13} {relay.name:<8} {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
