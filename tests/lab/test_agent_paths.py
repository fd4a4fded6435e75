"""Agents behind real NATs: the relay at once, a direct path a moment later, and back when that one dies."""

from __future__ import annotations

import pytest

from tests.support.reach_lab import World
from warren.lab import Host, Lab
from warren.lab.traffic import tcp_transfer

MEGABYTE = 1 << 20


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
    world.pings(alice, bob, within_s=3.0)
    world.wait_path(alice, bob, "relayed")
    assert world.peer(alice, bob)["relay"] in {"r1", "r1/tls"}
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact


def test_a_node_whose_network_blocks_udp_works_over_tls(world: World) -> None:
    alice, bob = behind(world, "only-443", "port-restricted")
    world.pings(alice, bob, within_s=10.0)
    world.wait_path(alice, bob, "relayed")
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact
    assert tcp_transfer(bob, alice, world.address(alice), 8 * MEGABYTE).intact


@pytest.mark.timeout(240)
def test_a_nat_with_random_ports_is_got_through_by_many_tries(world: World) -> None:
    alice, bob = behind(world, "symmetric", "port-restricted")
    world.pings(alice, bob, within_s=3.0)
    world.wait_path(alice, bob, "direct", within_s=60.0)
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE).intact
