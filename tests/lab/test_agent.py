"""The agent as a real process on lab hosts: killed, restarted, taken down; keys rotated under traffic."""

from __future__ import annotations

import json
import random
import re
import time

import pytest

from tests.support.overlay import Underlay, data_plane_pids, wait_pinged
from tests.support.pings import answers, pinging
from warren.lab import Host, Lab
from warren.lab.network import environment, warren_command

SEED = 20261121
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def underlay(lab: Lab) -> Underlay:
    return Underlay(lab)


def left_behind(host: Host) -> list[str]:
    """What of an agent is in a host: overlay interfaces, tables, routes, data planes."""
    links = [link["ifname"] for link in json.loads(host.run(["ip", "-j", "link"]).stdout)]
    tables = host.run(["nft", "list", "tables"]).stdout.split("\n")
    pids = data_plane_pids(host)
    return [
        *(link for link in links if link.startswith("w-")),
        *(table for table in tables if "warren" in table),
        *(f"data plane {pid}" for pid in pids),
    ]


def test_an_agent_killed_at_any_moment_leaves_traffic_running_and_the_next_takes_over(underlay: Underlay) -> None:
    network, (alice, bob) = underlay.started("alice", "bob")
    wait_pinged(alice, network.address(bob))
    (plane,) = data_plane_pids(alice)
    before = network.status(alice)
    rng = random.Random(SEED)
    ping = pinging(bob, network.address(alice))
    for _ in range(10):
        network.nodes["alice"].process.kill()
        network.up(alice, wait=False)
        time.sleep(rng.uniform(0.0, 2.5))
    network.wait_up(alice)
    pings = answers(ping)
    assert (pings.lost, pings.sent > 50) == (0, True), f"seed {SEED}"
    assert data_plane_pids(alice) == [plane]
    after = network.status(alice)
    for what in ("interface", "addresses", "listen_port", "wireguard_key", "node_id"):
        assert after[what] == before[what]
    assert len([one for one in left_behind(alice) if one.startswith("table")]) == 1
    assert alice.run(["ip", "-6", "route", "show", "dev", "w-home", "proto", "static"]).stdout.count("\n") == 1


def test_an_agent_killed_while_it_comes_up_leaves_nothing_that_the_next_does_not_clear(underlay: Underlay) -> None:
    network, (alice, bob) = underlay.started("alice", "bob")
    rng = random.Random(SEED)
    assert network.nodes["alice"].process.stop(timeout=60) == 0
    for _ in range(8):
        network.up(alice, wait=False)
        time.sleep(rng.uniform(0.2, 2.0))
        network.nodes["alice"].process.kill()
    network.up(alice)
    wait_pinged(alice, network.address(bob))
    assert len(data_plane_pids(alice)) == 1
    network.warren(alice, "down")
    assert left_behind(alice) == []
    assert network.nodes["alice"].process.wait(60) == 0


def test_a_host_whose_agent_is_dead_keeps_its_own_network(underlay: Underlay) -> None:
    """F-KA2: the agent and its data plane are gone, and nobody cleans up."""
    network, (alice, bob) = underlay.started("alice", "bob")
    network.nodes["alice"].process.kill()
    for pid in data_plane_pids(alice):
        alice.run(["kill", "-9", str(pid)])
    alice.wait_for(lambda: not data_plane_pids(alice))
    alice.wait_for(lambda: "w-home" not in alice.run(["ip", "link"]).stdout)
    wait_pinged(alice, "198.51.100.1")
    network.up(alice)
    wait_pinged(bob, network.address(alice))


def test_keys_are_rotated_under_traffic_without_a_loss(underlay: Underlay) -> None:
    network = underlay.network()
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    for host in (alice, bob):
        state = host.directory / "state"
        state.mkdir(mode=0o700)
        (state / "agent.toml").write_text("[keys]\nrotate_days = 0.0002\nannounce_hours = 0.0015\n")  # 17 s, 5 s
        network.join(host)
    wait_pinged(alice, network.address(bob))
    first = {host.name: network.status(host)["wireguard_key"] for host in (alice, bob)}
    ping = pinging(alice, network.address(bob))
    for host in (alice, bob):
        host.wait_for(lambda host=host: network.status(host)["wireguard_key"] != first[host.name], 60)
    wait_pinged(bob, network.address(alice))
    pings = answers(ping)
    assert pings.lost == 0, f"{pings.lost} of {pings.sent}"


def test_a_second_agent_with_the_same_state_is_refused(underlay: Underlay) -> None:
    _, (alice,) = underlay.started("alice")
    done = alice.run([*warren_command(), "up"], check=False, env={**environment(alice), "WARREN_RUN": "/run/warren-2"})
    assert done.returncode == 1
    assert "runs already (process" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_second_network_is_joined_through_the_agent_that_runs(underlay: Underlay) -> None:
    network, (alice,) = underlay.started("alice")
    network.warren(underlay.server, "network", "create", "work", "--ipv4", "10.77.0.0/24")
    said = network.warren(underlay.server, "network", "invite", "work", "--json").stdout
    ticket = re.search(r"warren-ticket:[A-Za-z0-9_-]+", said)
    assert ticket is not None
    joined = json.loads(network.warren(alice, "up", ticket.group(), "--json").stdout)
    assert (joined["network"], joined["interface"]) == ("work", "w-work")
    status = json.loads(network.warren(alice, "status", "--json").stdout)
    assert {one["network"]: one["state"] for one in status["networks"]} == {"home": "up", "work": "up"}
    assert len(joined["addresses"]) == 1  # IPv4 is home's here
    network.warren(alice, "down", "work", "--leave")
    status = json.loads(network.warren(alice, "status", "--json").stdout)
    assert [one["network"] for one in status["networks"]] == ["home"]
    assert "w-work" not in alice.run(["ip", "link"]).stdout


def test_what_keeps_an_agent_from_running_is_one_line(underlay: Underlay) -> None:
    alice = underlay.host("alice")
    done = alice.run([*warren_command(), "up"], check=False, env=environment(alice))
    assert done.returncode == 2
    assert re.fullmatch(r"warren: this machine is in no network yet: get a ticket with .*\n", done.stderr)
