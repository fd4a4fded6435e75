"""One run: all tunnels stand side by side in the lab and take turns, measurement by measurement.

For each measurement every contender has its turn within seconds of the others, so that what else the machine does hits
all alike; each round begins with another contender, so that none always comes after the most demanding one.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contenders import OUTER as OUTER_ADDRESSES
from benchmarks.contenders import Contender, Pair, Tunnel
from benchmarks.measures import Measure, MeasureFailed, Result, memory
from benchmarks.results import Failure, Sample
from warren.errors import OperationFailed
from warren.lab import Lab

MANY_PEERS = 1000
_OUTER_PREFIX = 24
_FIRST_CONTACT_TRIES = 10


@dataclass(slots=True)
class Record:
    """What a session has brought so far; it grows, and stays useful when the session is interrupted."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, turn: int, contender: str, measure: str, result: Result) -> None:
        self.samples.append(Sample(turn, contender, measure, result.values, result.raw))
        figures = "  ".join(f"{name} {value:,.5g}" for name, value in result.values.items())
        print(f"  round {turn}  {measure:<12} {contender:<16} {figures}", flush=True)

    def add_failure(self, turn: int, contender: str, measure: str, reason: str) -> None:
        self.failures.append(Failure(turn, contender, measure, reason))
        print(f"  round {turn}  {measure:<12} {contender:<16} FAILED: {reason}", flush=True)


def measure_traffic(
    contenders: Sequence[Contender], measures: Sequence[Measure], rounds: int, seconds: float, record: Record
) -> None:
    """Open every tunnel and measure in ``rounds`` rounds, never two at once. Round 0 is before the traffic."""
    with Lab(name="bench", seed=1) as lab, _scratch() as scratch:
        tunnels: dict[str, Tunnel] = {}
        for contender in contenders:
            tunnel = _open(lab, scratch, contender, 1, record)
            if tunnel is None:
                continue
            tunnels[contender.name] = tunnel
            _take_memory(tunnel, 0, contender.name, "memory_1", record)
        for turn in range(1, rounds + 1):
            for measure in measures:
                for name in rotated(list(tunnels), turn - 1):
                    _take(measure, tunnels[name], seconds, turn, name, record)
            for name, tunnel in tunnels.items():
                _take_memory(tunnel, turn, name, "memory_used", record)


def measure_many_peers(contenders: Sequence[Contender], record: Record) -> None:
    """Resident memory of fresh processes that know 1,000 peers, one of them in touch."""
    for contender in contenders:
        with Lab(name="bench-peers", seed=1) as lab, _scratch() as scratch:
            tunnel = _open(lab, scratch, contender, MANY_PEERS, record)
            if tunnel is not None:
                _take_memory(tunnel, 0, contender.name, f"memory_{MANY_PEERS}", record)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The same names in the same circle, beginning ``by`` places later."""
    start = by % len(names) if names else 0
    return [*names[start:], *names[:start]]


def _open(lab: Lab, scratch: Path, contender: Contender, peers: int, record: Record) -> Tunnel | None:
    """A tunnel that has answered a ping and whose far end runs an iperf3 server.

    None, and a failure recorded, when it does not come up.
    """
    a, b = lab.host(f"{contender.name}-a"), lab.host(f"{contender.name}-b")
    outer = [[f"{address}/{_OUTER_PREFIX}"] for address in OUTER_ADDRESSES]
    lab.link(a, b, *outer)
    directory = scratch / contender.name
    directory.mkdir()
    try:
        tunnel = contender.open(Pair(a, b, directory), peers)
        _first_contact(tunnel)
        b.start(["iperf3", "--server"], name="iperf3")
        b.wait_for(["sh", "-c", "ss -Htln sport = :5201 | grep -q ."], 5)
    except OperationFailed as error:
        record.add_failure(0, contender.name, "open", str(error))
        return None
    return tunnel


def _first_contact(tunnel: Tunnel) -> None:
    for _ in range(_FIRST_CONTACT_TRIES):
        if tunnel.client.run(["ping", "-n", "-c", "1", "-W", "1", tunnel.target], check=False).returncode == 0:
            return
    raise OperationFailed(f"{tunnel.target} does not answer through the tunnel")


def _take(measure: Measure, tunnel: Tunnel, seconds: float, turn: int, name: str, record: Record) -> None:
    try:
        record.add(turn, name, measure.name, measure.take(tunnel, seconds))
    except (MeasureFailed, OperationFailed) as error:
        record.add_failure(turn, name, measure.name, str(error))
    except FileNotFoundError as error:
        record.add_failure(turn, name, measure.name, f"the tunnel process is gone: {error.filename}")


def _take_memory(tunnel: Tunnel, turn: int, name: str, measure: str, record: Record) -> None:
    if tunnel.processes:
        _take(Measure(measure, lambda opened, _: memory(opened)), tunnel, 0, turn, name, record)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory for keys and configs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="warren-bench-") as name:
        yield Path(name)
