"""Nodes of IPv6-only networks between which all but small packets get lost, whichever way they take."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest

from tests.support.nat_nodes import PathNode, RelayServer
from tests.support.nat_world import Link, World
from warren.paths.nat import FIREWALLED, PORT_RESTRICTED, SYMMETRIC, Behaviour, Situation
from warren.paths.values import Surroundings

PREFIX = IPv6Network("2001:db8:64::/96")
MINUTE = 60.0


class Narrow:
    """Two such nodes talk; from :meth:`shut` on the way to one of them is a hole for what is larger than 1300 bytes."""

    def __init__(self, translator: Behaviour, relays: int, seed: int) -> None:
        self.world = World(seed)
        servers = tuple(RelayServer(self.world, f"relay{number}") for number in range(relays))
        self.links = Link(0.02), Link(0.02)
        self.a, self.b = (
            self._node(name, translator, servers, link) for name, link in zip("ab", self.links, strict=True)
        )
        self.a.meet(self.b)
        self.run(1.0)
        self.a.talk(self.b, size=1400)
        self.b.talk(self.a, size=100)
        self.run(20.0)

    def _node(self, name: str, translator: Behaviour, relays: tuple[RelayServer, ...], link: Link) -> PathNode:
        site = self.world.translating_site(translator, PREFIX, v6=FIREWALLED, link=link)
        situation = Situation(v4=translator, v6=FIREWALLED, nat64=True)
        around = Surroundings(nat64=PREFIX)
        uplinks = [(site, self.world.address6())]
        node = PathNode(self.world, name, list(uplinks), situation=situation, relays=relays, around=around)
        node.relays_over_udp = True
        return node

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def shut(self) -> None:
        self.links[1].mtu = 1300

    def sides(self) -> tuple[tuple[PathNode, PathNode], tuple[PathNode, PathNode]]:
        return (self.a, self.b), (self.b, self.a)

    def narrow(self) -> list[bool]:
        return [one.machine.is_narrow(other.key) for one, other in self.sides()]

    def switches(self, since: float) -> int:
        return max(sum(1 for at, _ in one.count[other.key].selections if at > since) for one, other in self.sides())


@pytest.mark.parametrize(("translator", "relays"), [(PORT_RESTRICTED, 1), (PORT_RESTRICTED, 2), (SYMMETRIC, 2)])
def test_each_way_is_tried_once_and_then_one_is_kept(translator: Behaviour, relays: int) -> None:
    scene = Narrow(translator, relays, seed=1)
    assert scene.narrow() == [False, False]
    scene.shut()
    scene.run(15.0)
    assert scene.narrow() == [True, True]
    scene.run(2 * MINUTE)
    since = scene.world.now
    for _ in range(20):  # what is known of them is not forgotten when they are tried again, once a minute
        scene.run(MINUTE / 2)
        assert scene.narrow() == [True, True]
    assert scene.switches(since) == 0
    scene.links[1].mtu = 1500
    scene.run(2 * MINUTE)
    assert scene.narrow() == [False, False]
    assert all(one.machine.is_wide(other.key, since) for one, other in scene.sides())


def test_no_large_packet_has_passed_since_the_hole_is_there() -> None:
    scene = Narrow(PORT_RESTRICTED, 1, seed=1)
    before = scene.world.now
    scene.run(11.0)
    assert scene.a.machine.is_wide(scene.b.key, before)
    scene.shut()
    shut = scene.world.now + 0.1
    for _ in range(60):
        scene.run(2.0)
        assert not scene.a.machine.is_wide(scene.b.key, shut)
    assert not scene.a.machine.is_wide(bytes(32), -1.0)
