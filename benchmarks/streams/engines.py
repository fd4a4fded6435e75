"""``python -m benchmarks.streams.engines``: the rootless engine beside root's, in turns, as whole nodes.

Three members of one network on lab hosts: a server, and two clients that differ in nothing but their rights. Programs
of the client without rights run inside its overlay, as `warren exec` runs them. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from benchmarks.machine import describe_machine
from benchmarks.streams import ends
from benchmarks.streams.contenders import cpu_s
from warren.engine.rootless.sockets import enter
from warren.errors import OperationFailed, WarrenError
from warren.lab import Host, Lab
from warren.lab.network import Network
from warren.lab.privilege import ensure as ensure_privilege
from warren.lab.site import Internet

PORT: Final = 9001
NEST: Final = Path("/run/warren/nest.sock")
TRIPS: Final = 2000
ENGINES: Final = ("userspace", "rootless")
TITLES: Final = {
    "up": "one stream, client → server, Mbit/s",
    "down": "one stream, server → client, Mbit/s",
    "eight": "eight streams, client → server, Mbit/s",
    "cpu": "CPU of the client's data plane, s/GB",
    "echo": "echo of 64 bytes, µs, median",
    "echo99": "echo of 64 bytes, µs, 99 %",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams.engines", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args(arguments)
    try:
        ensure_privilege()
        print(_page(_measured(options.rounds, options.seconds), options.rounds, options.seconds))
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _measured(rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    with Lab(name="bench-engines", seed=1) as lab:
        internet = Internet(lab)
        server = internet.server("server", families="4")
        clients = {engine: internet.server(engine, families="4") for engine in ENGINES}
        network = Network(server, "bench", url=f"https://{internet.address('server')}:8443")
        network.start("--no-relay")
        hosts = [server, *clients.values()]
        ticket = network.ticket("--uses", str(len(hosts)))
        for host in hosts:
            network.join(host, ticket=ticket, rights=host is not clients["rootless"])
        for engine, host in clients.items():
            if network.status(host)["engine"] != engine:
                raise OperationFailed(f"{engine} has another engine")
            host.wait_for(partial(network.knows, host, [server]), 30)
        address = network.address(server, 4)
        serving = server.begin(ends.serve, address, PORT)
        for engine, host in clients.items():
            host.wait_for(partial(_reaches, host, engine, address), 30)
        found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for number in range(rounds):
            for engine in ENGINES if number % 2 else reversed(ENGINES):
                values = _round(clients[engine], engine, address, seconds)
                found[engine].append(values)
                shown = "  ".join(f"{name} {value:,.4g}" for name, value in values.items())
                print(f"  round {number + 1}  {engine:<10} {shown}", file=sys.stderr, flush=True)
        serving.cancel()
        return found


def _round(host: Host, engine: str, address: str, seconds: float) -> dict[str, float]:
    inside = engine == "rootless"
    plane = _plane(host)
    before = cpu_s(plane)
    up = host.call(_transfer, inside, address, seconds, 1, False)
    spent = cpu_s(plane) - before
    down = host.call(_transfer, inside, address, seconds, 1, True)
    eight = host.call(_transfer, inside, address, seconds, 8, False)
    trips = host.call(_trips, inside, address)
    return {
        "up": up.payload_bytes * 8 / up.seconds / 1e6,
        "down": down.payload_bytes * 8 / down.seconds / 1e6,
        "eight": eight.payload_bytes * 8 / eight.seconds / 1e6,
        "cpu": spent / (up.payload_bytes / 1e9),
        "echo": median(trips) * 1e6,
        "echo99": quantiles(trips, n=100)[98] * 1e6,
    }


def _plane(host: Host) -> int:
    """The process of that host's data plane, told from others by its mount namespace."""
    mounts = Path(f"/proc/{host.pid}/ns/mnt").stat().st_ino
    for line in host.run(["ps", "-eo", "pid=,mntns=,args="]).stdout.splitlines():
        pid, found, command = line.split(None, 2)
        if found == str(mounts) and "warren.engine.userspace" in command:
            return int(pid)
    raise OperationFailed(f"{host.name} has no data plane")


def _reaches(host: Host, engine: str, address: str) -> bool:
    try:
        host.call(_connects, engine == "rootless", address)
    except OSError:
        return False
    return True


def _connects(inside: bool, address: str) -> None:
    import socket

    _move(inside)
    socket.create_connection((address, PORT), 3).close()


def _transfer(inside: bool, address: str, seconds: float, streams: int, down: bool) -> ends.Moved:
    _move(inside)
    return ends.transfer(address, PORT, seconds, streams, down)


def _trips(inside: bool, address: str) -> list[float]:
    _move(inside)
    return ends.round_trips(address, PORT, TRIPS)


def _move(inside: bool) -> None:
    if inside:
        enter(NEST)


def _page(found: dict[str, list[dict[str, float]]], rounds: int, seconds: float) -> str:
    machine = ", ".join(f"{name}: {value}" for name, value in describe_machine().items())
    lines = [
        f"{rounds} rounds, {seconds:g} s per transfer; {machine}.",
        "",
        "| median of the rounds | root | rootless | rootless / root, median of the rounds (least to most) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, title in TITLES.items():
        root, other = ([values[name] for values in found[engine]] for engine in ENGINES)
        ratios = [b / a for a, b in zip(root, other, strict=True)]
        ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {title} | {median(root):,.4g} | {median(other):,.4g} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
