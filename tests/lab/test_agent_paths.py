"""Agents behind real NATs: the relay at once, a direct path a moment later, and back when that one dies."""

from __future__ import annotations

import time

import pytest

from tests.support.reach_lab import World
from warren.lab import Host, Lab
from warren.lab.traffic import tcp_transfer

MEGABYTE = 1 << 20
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def behind(world: World, *kinds: str) -> list[Host]:
    """A member at a site of each kind, all of one network."""
    world.start()
    hosts = [world.site(f"site{number}", kind).host(f"n{number}") for number, kind in enumerate(kinds)]
    world.join(*hosts)
    return hosts


def test_two_nodes_behind_nats_find_a_direct_path(world: World) -> None:
    alice, bob = behind(world, "port-restricted", "port-restricted")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct")
    world.wait_path(bob, alice, "direct")


def test_two_nodes_that_no_direct_path_can_join_talk_through_the_relay_at_once(world: World) -> None:
    alice, bob = behind(world, "symmetric", "symmetric")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "relayed")
    assert world.peer(alice, bob)["relay"] in {"r1", "r1/tls"}
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact


def test_a_node_whose_network_blocks_udp_works_over_tls(world: World) -> None:
    alice, bob = behind(world, "only-443", "port-restricted")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "relayed")
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact
    assert tcp_transfer(bob, alice, world.address(alice), 8 * MEGABYTE).intact


def test_a_nat_with_random_ports_is_got_through_by_many_tries(world: World) -> None:
    alice, bob = behind(world, "symmetric", "port-restricted")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct", within_s=60.0)
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact


def test_a_direct_path_that_breaks_is_replaced_by_the_relay_without_breaking_a_transfer(world: World) -> None:
    alice, bob = behind(world, "port-restricted", "port-restricted")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct")
    far, router = world.internet.address("site1"), world.internet.sites["site0"].router
    stream = world.stream(alice, bob, 20.0)
    time.sleep(3.0)
    broken_at = time.monotonic()
    for chain in ("prerouting", "postrouting"):
        router.run(["nft", "add", "table", "ip", "broken"])
        hook = f"{{ type filter hook {chain} priority -400; }}"
        router.run(["nft", "add", "chain", "ip", "broken", chain, hook])
        router.run(["nft", "add", "rule", "ip", "broken", chain, "ip", "saddr", far, "drop"])
        router.run(["nft", "add", "rule", "ip", "broken", chain, "ip", "daddr", far, "drop"])
    received = stream.result()
    assert received.longest_gap_s(broken_at) < 15.0
    world.wait_path(alice, bob, "relayed")
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact
    router.run(["nft", "delete", "table", "ip", "broken"])
    world.wait_path(alice, bob, "direct", within_s=60.0)


def test_an_agent_that_is_killed_leaves_relayed_and_direct_traffic_running(world: World) -> None:
    alice, bob, carol = behind(world, "symmetric", "symmetric", "port-restricted")
    for other in (bob, carol):
        world.pings(alice, other)
    world.wait_path(alice, bob, "relayed")
    streams = [world.stream(alice, other, 20.0) for other in (bob, carol)]
    time.sleep(3.0)
    killed_at = time.monotonic()
    world.network.nodes[alice.name].process.kill()
    time.sleep(4.0)
    world.network.up(alice)
    relayed, direct = (stream.result() for stream in streams)
    assert direct.longest_gap_s(killed_at) < 3.0  # the agent is away for longer
    assert relayed.longest_gap_s(killed_at) < 10.0


def test_a_public_member_relays_for_the_others_when_the_network_has_no_relay(lab: Lab) -> None:
    world = World(lab, relays=0)
    world.start()
    gate = world.internet.server("gate")
    address = world.internet.address("gate")
    state = gate.directory / "state"
    state.mkdir(exist_ok=True)
    (state / "agent.toml").write_text(f'[public]\naddresses = ["{address}"]\n[relay]\nenabled = true\ntls_port = 443\n')
    world.join(gate)
    desired = world.server.directory / "home.toml"
    shown = world.network.warren(world.server, "network", "show", "home", "--toml").stdout
    without = "".join(line for line in shown.splitlines(keepends=True) if not line.startswith("relay_members"))
    desired.write_text(f'relay_members = ["member:gate"]\n{without}')
    world.network.warren(world.server, "network", "apply", str(desired), "--yes")
    hosts = [world.site(f"site{number}", "symmetric").host(f"n{number}") for number in range(2)]
    world.join(*hosts)
    alice, bob = hosts
    alice.wait_for(lambda: any(r["state"] == "ready" for r in world.network.status(alice)["relays"]), 60)
    world.pings(alice, bob)
    world.wait_path(alice, bob, "relayed")
    assert world.peer(alice, bob)["relay"] in {"gate", "gate/tls"}
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact


def test_where_udp_is_blocked_two_nodes_behind_nats_find_a_direct_path_over_tcp(world: World) -> None:
    alice, bob = behind(world, "udp-blocked", "port-restricted")
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct", within_s=60.0)
    world.wait_path(bob, alice, "direct")
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact
    assert tcp_transfer(bob, alice, world.address(alice), 8 * MEGABYTE).intact
