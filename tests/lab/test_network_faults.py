"""A network under faults: partitions that outlive leases, wrong clocks, damaged state, a full disk, leaks."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from shutil import which
from signal import Signals

import pytest

from tests.support.overlay import Underlay, data_plane_pids, pinged, wait_pinged
from tests.support.pings import answers, pinging
from warren.lab import Host, Lab, Process
from warren.lab.network import Network, Node, environment, warren_command

LEASE_S = 60
YEAR_S = 365.25 * 86_400
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def underlay(lab: Lab) -> Underlay:
    return Underlay(lab)


def started(underlay: Underlay, *names: str, lease: str = "24h") -> tuple[Network, list[Host]]:
    network = underlay.network()
    network.run_coordinator()
    network.warren(underlay.server, "network", "create", "home", "--ipv4", "10.77.0.0/16", "--lease", lease)
    hosts = [underlay.host(name) for name in names]
    ticket = network.ticket("--uses", str(len(hosts) + 1))
    for host in hosts:
        network.join(host, ticket=ticket, wait=False)
    for host in hosts:
        network.wait_up(host)
    return network, hosts


def last_answer(ping: Process) -> float:
    """When the last answer came (``ping -D``), in seconds since 1970."""
    return float(re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from", ping.output(), re.MULTILINE)[-1])


# Leases


def test_traffic_of_partitioned_members_ends_with_the_lease_on_both_sides(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob", lease=f"{LEASE_S}s")
    addresses = {host: network.address(host) for host in (alice, bob)}
    wait_pinged(alice, addresses[bob])
    assert network.coordinator is not None
    network.coordinator.kill()
    ends = min(datetime.fromisoformat(network.status(host)["lease_ends"]).timestamp() for host in (alice, bob))
    pings = [
        here.start(["ping", "-n", "-D", "-i", "0.1", addresses[there]], name="ping")
        for here, there in ((alice, bob), (bob, alice))
    ]
    alice.wait_for(lambda: time.time() > ends + 5, LEASE_S + 60)
    for ping in pings:
        ping.signal(Signals.SIGINT)
        ping.wait(30)
        assert -3 < last_answer(ping) - ends < 3
    states = {network.status(host)["state"] for host in (alice, bob)}
    assert "expired" in states
    for host in (alice, bob):
        assert "Traceback" not in network.nodes[host.name].process.output()
    network.run_coordinator()
    alice.wait_for(lambda: pinged(alice, [addresses[bob]], wait_s=1) == [], 90)


# Clocks


class FakeClock:
    """A wall clock for the programs that are started with it; the clocks that only move forward stay as they are."""

    def __init__(self, directory: Path, offset_s: float = 0.0) -> None:
        self._file = directory / "clock"
        self.set(offset_s)

    def set(self, offset_s: float) -> None:
        self._file.write_text(f"{offset_s:+.0f}\n")

    @property
    def environment(self) -> dict[str, str]:
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        return {
            "LD_PRELOAD": str(library),
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
        }


needs_faketime = pytest.mark.skipif(which("faketime") is None, reason="the package faketime is not installed")


def up_with_clock(network: Network, host: Host, clock: FakeClock, *arguments: str) -> Process:
    places = ["--state", environment(host)["WARREN_STATE"], "--run", "/run/warren"]
    command = [*warren_command(), "up", *arguments, *places, "--name", host.name]
    process = host.start(command, name="agent", env=clock.environment)
    network.nodes[host.name] = Node(host, host.name, process)
    network.wait_up(host)
    return process


@needs_faketime
@pytest.mark.parametrize("now_s", [3600.0, time.time() + 10 * YEAR_S], ids=["1970", "in ten years"])
def test_a_node_joins_and_connects_whatever_its_clock_says(underlay: Underlay, now_s: float) -> None:
    network, (bob,) = started(underlay, "bob")
    alice = underlay.host("alice")
    ahead_s = now_s - time.time()
    clock = FakeClock(alice.directory, ahead_s)
    up_with_clock(network, alice, clock, network.ticket())
    wait_pinged(alice, network.address(bob))
    wait_pinged(bob, network.address(alice))
    status = network.status(alice)
    assert status["state"] == "up"
    assert abs(status["coordinator"]["clock_offset_s"] + ahead_s) < 60
    assert any("clock is" in warning for warning in status["warnings"])
    # Without the coordinator, too: what it told of the time was kept.
    assert network.coordinator is not None
    network.coordinator.kill()
    assert network.nodes["alice"].process.stop(timeout=60) == 0
    up_with_clock(network, alice, clock)
    wait_pinged(alice, network.address(bob))


@needs_faketime
def test_a_clock_that_jumps_and_comes_back_ends_no_traffic(underlay: Underlay) -> None:
    network, (bob,) = started(underlay, "bob")
    alice = underlay.host("alice")
    clock = FakeClock(alice.directory)
    up_with_clock(network, alice, clock, network.ticket())
    to_alice, to_bob = network.address(alice), network.address(bob)
    wait_pinged(alice, to_bob)
    ping = pinging(alice, to_bob)
    for years in (10, 0, -30, 0):
        clock.set(years * YEAR_S)
        alice.run(["sleep", "2.5"])
        alice.wait_for(lambda: network.status(alice)["state"] == "up")
    assert answers(ping).lost == 0
    # New handshakes after a return from the future: timestamps go on above those that were sent there.
    for years in (10, 0):
        clock.set(years * YEAR_S)
        assert network.nodes["alice"].process.stop(timeout=60) == 0
        up_with_clock(network, alice, clock)
        wait_pinged(alice, to_bob)
        wait_pinged(bob, to_alice)


# Damaged state


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def test_whatever_file_of_a_node_is_damaged_it_comes_back_by_itself(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    address = network.address(alice)
    state = Path(environment(alice)["WARREN_STATE"])
    files = sorted(file for file in state.rglob("*") if file.is_file() and file.name != "lock")
    assert {file.suffix for file in files} >= {".node", ".node-copy", ".wireguard"}
    assert {file.name for file in files} >= {"settings", "documents"}
    for file in files:
        assert network.nodes["alice"].process.stop(timeout=60) == 0
        file.write_bytes(damaged(file.read_bytes()))
        network.up(alice)
        assert network.address(alice) == address
        wait_pinged(alice, to_bob)
        assert "Traceback" not in network.nodes["alice"].process.output()
        assert "was damaged" in network.nodes["alice"].process.output(), file.name


def test_a_node_that_has_lost_who_it_is_joins_as_another_with_a_ticket(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    assert network.nodes["alice"].process.stop(timeout=60) == 0
    for file in (Path(environment(alice)["WARREN_STATE"]) / "keys").glob("*.node*"):
        file.write_bytes(damaged(file.read_bytes()))
    network.up(alice, wait=False)
    process = network.nodes["alice"].process
    alice.wait_for(lambda: "join with a new ticket" in process.output())
    alice.wait_for(lambda: network.warren(alice, "up", network.ticket(), check=False).returncode == 0, 90)
    # Its WireGuard key is still that of the member it was, so it takes another.
    alice.wait_for(lambda: pinged(alice, [network.address(bob)], wait_s=1) == [], 60)
    assert network.status(alice)["name"] == "alice-2"
    assert "Traceback" not in process.output()


# Disks


def test_a_full_disk_of_a_node_stops_no_traffic_is_told_and_is_got_over_without_a_restart(underlay: Underlay) -> None:
    network, (bob,) = started(underlay, "bob")
    alice = underlay.host("alice")
    state = Path(environment(alice)["WARREN_STATE"])
    state.mkdir(mode=0o700)
    alice.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", str(state)])
    network.join(alice, ticket=network.ticket())
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    ping = pinging(alice, to_bob)
    alice.run(["sh", "-c", f"head -c 1m /dev/zero > {state}/ballast; true"], check=False)
    network.warren(underlay.server, "network", "rename", "home", "bob", "robert")

    def failed() -> list[str]:
        return [task["reason"] for task in network.status(alice)["tasks"] if task["state"] == "failed"]

    alice.wait_for(lambda: network.status(alice)["state"] == "degraded" and failed(), 60)
    assert ["No space left on device" in reason for reason in failed()] == [True]
    # What is known holds all the same.
    alice.wait_for(lambda: [peer["name"] for peer in network.status(alice)["peers"]] == ["robert"], 60)
    alice.run(["rm", f"{state}/ballast"])
    alice.wait_for(lambda: network.status(alice)["state"] == "up", 60)
    assert answers(ping).lost == 0
    assert network.coordinator is not None
    network.coordinator.kill()
    assert network.nodes["alice"].process.stop(timeout=60) == 0
    assert "Traceback" not in network.nodes["alice"].process.output()
    network.up(alice)
    wait_pinged(alice, network.fqdn(bob).replace("bob", "robert"))  # it was written when there was room again


# Leaks


def resources(pid: int) -> tuple[int, int, int]:
    """Open files, threads, and resident memory in KiB of a process."""
    process = Path(f"/proc/{pid}")
    resident = re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())
    assert resident is not None
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())), int(resident[1])


def test_nodes_that_come_and_go_leave_nothing_behind(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    wait_pinged(alice, network.address(bob))
    assert network.coordinator is not None
    pids = [network.coordinator.pid, network.nodes["bob"].process.pid, *data_plane_pids(bob)]
    trace = "ip -br link; ip -br address; ip route; ip -6 route; nft list ruleset; cat /etc/resolv.conf; ls /run/warren"
    assert network.nodes["alice"].process.stop(timeout=60) == 0
    host_before = alice.run(["sh", "-c", trace]).stdout
    before: list[tuple[int, int, int]] = []
    cycles = 8
    for cycle in range(cycles):
        network.up(alice)
        network.server.run(["ss", "-K", "sport", "=", ":8443"], check=False)  # and all connections are lost
        assert network.nodes["alice"].process.stop(timeout=60) == 0
        if not cycle:
            before = [resources(pid) for pid in pids]
    assert alice.run(["sh", "-c", trace]).stdout == host_before
    bob.wait_for(lambda: network.status(bob)["coordinator"]["connected"], 90)
    for pid, (files, threads, resident) in zip(pids, before, strict=True):
        after = resources(pid)
        # A connection may just be made anew, the event loop's pool grows by one where two blocking calls happen to
        # meet, an allocator keeps what it had once; a leak grows with each cycle.
        assert after[0] - files < cycles - 1
        assert after[1] - threads < cycles - 1
        assert after[2] < resident * 1.25
