"""One function per kind of measurement, each on a pair of hosts whose tunnel is up; values have units in their names.

TCP and UDP come from iperf3, whose receiver counts; round trips from ping; CPU and memory from /proc. Parsing is apart
from running, so that it can be tested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean, median, quantiles
from typing import Any

from benchmarks.accounts import CpuTime, read_cpu, read_memory
from benchmarks.contenders import Tunnel

# What iperf3 needs beyond the time asked for: connecting, and handing the results over through a tunnel full of UDP.
GRACE_S = 15.0
PINGS = 200
PING_INTERVAL_S = 0.01
# One rate for everyone, because a tunnel that loses packets in the kernel's queue would otherwise be offered more than
# one that pushes back. Two cores can send and receive this much over plain veth, but not carry it in a tunnel too.
OVERLOAD_PACKETS_S = 100_000
# Near the capacity of the Go tunnels: here their queues begin to overflow.
BUSY_PACKETS_S = 50_000

_ROUND_TRIP = re.compile(r"time=([0-9.]+) ms")


class MeasureFailed(Exception):
    """A measurement gave no result; the text says why in one line. The tunnel may be used for further ones."""


@dataclass(frozen=True, slots=True)
class Result:
    """Values with the unit in their names, and the single observations where there are some."""

    values: dict[str, float]
    raw: list[float]


@dataclass(frozen=True, slots=True)
class Measure:
    """A named measurement. ``take(tunnel, seconds)`` runs it."""

    name: str
    take: Callable[[Tunnel, float], Result]


def tcp(tunnel: Tunnel, seconds: float, *, flows: int, reverse: bool) -> Result:
    """Throughput of ``flows`` TCP connections from a to b (``reverse``: from b to a), and the CPU time it took."""
    arguments = ["-P", str(flows), *(["-R"] if reverse else [])]
    before = read_cpu(tunnel.pids)
    report = _iperf(tunnel, seconds, arguments)
    spent = read_cpu(tunnel.pids).since(before)
    return Result(tcp_values(report, spent), [])


def udp(tunnel: Tunnel, seconds: float, *, payload_bytes: int, packets_s: int) -> Result:
    """What arrives at b of a constant stream of UDP packets from a."""
    rate = str(packets_s * payload_bytes * 8)
    return Result(udp_values(_iperf(tunnel, seconds, ["-u", "-l", str(payload_bytes), "-b", rate])), [])


def ping(tunnel: Tunnel, _seconds: float) -> Result:
    """Round trips from a to b, one after another, on an otherwise idle tunnel."""
    command = ["ping", "-n", "-c", str(PINGS), "-i", str(PING_INTERVAL_S), "-W", "1", tunnel.target]
    raw = [float(text) for text in _ROUND_TRIP.findall(_run(tunnel, command, PINGS * PING_INTERVAL_S + GRACE_S))]
    if len(raw) < PINGS / 2:
        raise MeasureFailed(f"only {len(raw)} of {PINGS} pings came back")
    return Result(ping_values(raw), raw)


def memory(tunnel: Tunnel) -> Result:
    """Resident memory of one tunnel process, the mean of the two ends."""
    ends = [read_memory(pid) for pid in tunnel.pids]
    return Result({"rss_bytes": mean(end.rss for end in ends), "pss_bytes": mean(end.pss for end in ends)}, [])


MEASURES = (
    Measure("tcp_1_ab", lambda tunnel, seconds: tcp(tunnel, seconds, flows=1, reverse=False)),
    Measure("tcp_1_ba", lambda tunnel, seconds: tcp(tunnel, seconds, flows=1, reverse=True)),
    Measure("tcp_4_ab", lambda tunnel, seconds: tcp(tunnel, seconds, flows=4, reverse=False)),
    Measure("tcp_4_ba", lambda tunnel, seconds: tcp(tunnel, seconds, flows=4, reverse=True)),
    Measure("udp_64_half", lambda tunnel, seconds: udp(tunnel, seconds, payload_bytes=64, packets_s=BUSY_PACKETS_S)),
    Measure("udp_64", lambda tunnel, seconds: udp(tunnel, seconds, payload_bytes=64, packets_s=OVERLOAD_PACKETS_S)),
    Measure("udp_1400", lambda tunnel, seconds: udp(tunnel, seconds, payload_bytes=1400, packets_s=OVERLOAD_PACKETS_S)),
    Measure("ping", ping),
)


def tcp_values(report: Mapping[str, Any], spent: CpuTime) -> dict[str, float]:
    """From iperf3's JSON. ``spent`` covers the whole transfer; a gigabyte is 10^9 bytes of payload received."""
    received = report["end"]["sum_received"]
    gigabytes = received["bytes"] / 1e9
    if gigabytes == 0:
        raise MeasureFailed("no byte arrived")
    values = {"mbit_s": received["bits_per_second"] / 1e6, "machine_s_per_gb": spent.machine_s / gigabytes}
    if spent.processes_s:
        values["tunnel_s_per_gb"] = spent.processes_s / gigabytes
    return values


def udp_values(report: Mapping[str, Any]) -> dict[str, float]:
    """From iperf3's JSON. Only what the receiver counted is delivered; lost is what the sender sent beyond that."""
    sent, received = report["end"]["sum_sent"], report["end"]["sum_received"]
    arrived = received["packets"] - received["lost_packets"]
    return {
        "mbit_s": received["bits_per_second"] / 1e6,
        "kpackets_s": arrived / received["seconds"] / 1e3,
        "offered_kpackets_s": sent["packets"] / sent["seconds"] / 1e3,
        "lost_percent": 100 * (1 - arrived / sent["packets"]),
    }


def ping_values(raw: list[float]) -> dict[str, float]:
    """``raw``: at least two round trips in ms."""
    return {
        "median_ms": median(raw),
        "p99_ms": quantiles(raw, n=100, method="inclusive")[98],
        "lost": float(PINGS - len(raw)),
    }


def _iperf(tunnel: Tunnel, seconds: float, arguments: list[str]) -> dict[str, Any]:
    command = [
        "iperf3",
        "--json",
        "--client",
        tunnel.target,
        "--time",
        f"{seconds:g}",
        "--connect-timeout",
        "3000",
        *arguments,
    ]
    output = _run(tunnel, command, seconds + GRACE_S)
    try:
        report: dict[str, Any] = json.loads(output)
    except json.JSONDecodeError:
        raise MeasureFailed(f"iperf3 printed no JSON: {output.strip()[:200]!r}") from None
    if "error" in report:
        raise MeasureFailed(f"iperf3: {report['error']}")
    return report


def _run(tunnel: Tunnel, command: list[str], limit_s: float) -> str:
    """What the program prints, whatever its exit status. Raises OperationFailed after ``limit_s`` seconds."""
    return tunnel.client.run(command, timeout=limit_s, check=False).stdout
