"""What goes wrong in networks, one fault at a time, and how soon data flows again (FAULTS: F-LOSS to F-PCR)."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.support.nat_nodes import PathNode, RelayServer
from tests.support.nat_scenes import Holes, Home, Scene
from tests.support.nat_world import Link, Network, Packet, World
from warren.model.tunnel import IPAddress
from warren.paths.nat import (
    FIREWALLED,
    FULL_CONE,
    OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    Behaviour,
    Situation,
)

MINUTE = 60.0
FAULT_SEEDS = max(2, int(os.environ.get("WARREN_SEEDS", "25")) // 25)


@pytest.mark.parametrize(("loss", "within_s"), [(0.01, 2.0), (0.05, 5.0), (0.2, 10.0), (0.5, 30.0)])
@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_a_path_is_found_under_loss(loss: float, within_s: float, seed: int) -> None:
    scene = Scene(seed=seed, links=(Link(0.02, loss=loss), Link(0.02)))
    scene.a.meet(scene.b)
    scene.run(1.0)
    began = scene.world.now
    scene.a.talk(scene.b)
    scene.b.talk(scene.a)
    assert scene.arrives_again(began, within_s) is not None


@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_five_percent_of_loss_make_no_path_flap(seed: int) -> None:
    scene = Scene(seed=seed, links=(Link(0.02, loss=0.05), Link(0.03, loss=0.05)))
    scene.begin()
    since = scene.world.now
    scene.run(5 * MINUTE)
    assert scene.switches(since) <= 1
    assert scene.is_direct()


@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_holes_of_two_seconds_make_no_path_flap(seed: int) -> None:
    """They are on the direct way only: the relay would always look better."""
    scene = Scene(seed=seed)
    scene.begin()
    holes = Holes(scene.world, good_s=20.0, hole_s=2.0, seed=seed)
    relay = scene.relays[0].address4

    def drops(packet: Packet, outwards: bool) -> bool:
        return relay not in {packet.to.ip, packet.source.ip} and holes(packet, outwards)

    scene.homes[0].link.drops = drops
    since = scene.world.now
    scene.run(5 * MINUTE)
    assert scene.switches(since) <= 2  # only what is longer: two holes in a row


@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_a_delay_that_varies_makes_no_path_flap(seed: int) -> None:
    scene = Scene(seed=seed, links=(Link(0.3, jitter_s=0.2), Link(0.02)))
    scene.begin()
    since = scene.world.now
    scene.run(5 * MINUTE)
    assert scene.switches(since) <= 1
    assert scene.is_direct()


@pytest.mark.parametrize("other", [OPEN, FULL_CONE, FIREWALLED, PORT_RESTRICTED])
@pytest.mark.parametrize("moves", [False, True])
def test_a_nat_that_maps_anew_costs_at_most_three_seconds(other: Behaviour, moves: bool) -> None:
    sequential = Behaviour(filtering="apdf", allocation="sequential")  # so that the port changes
    scene = Scene(sequential, other)
    scene.begin()
    since = scene.world.now
    scene.world.move_outside(scene.homes[0].site, address=scene.world.address4() if moves else None)
    assert scene.arrives_again(since + 0.1, 3.0) is not None
    scene.run(30.0)
    assert scene.is_direct()
    assert scene.longest_silence(since) <= 3.5


def test_when_only_the_moved_side_listens_a_keepalive_finds_it_again() -> None:
    """It hears nothing, so it is up to its own keepalives to show where it is now."""
    scene = Scene(Behaviour(filtering="apdf", allocation="sequential"), OPEN)
    scene.begin()
    scene.hush()
    scene.run(30.0)
    since = scene.world.now
    scene.world.move_outside(scene.homes[0].site)
    scene.b.talk(scene.a, every_s=1.0)
    arrived = scene.a.count[scene.b.key].arrived
    assert scene.until(lambda: bool(arrived) and arrived[-1] > since, 25.0) is not None


def test_a_new_mapping_towards_the_relay_does_not_stop_what_it_relays() -> None:
    scene = Scene(SYMMETRIC, SYMMETRIC, relays=2)
    scene.begin(direct=False)
    since = scene.world.now
    scene.world.move_outside(scene.homes[0].site)
    for node in (scene.a,):  # its TURN client makes the allocation anew: other addresses
        node.relayed.clear()
        node.set_bases()
        node.publish()
    assert scene.arrives_again(since + 0.2, 5.0) is not None
    assert scene.is_relayed()


@pytest.mark.parametrize("same_address", [True, False])
def test_a_router_that_was_away_for_half_a_minute_is_found_again_in_five_seconds(same_address: bool) -> None:
    scene = Scene(Behaviour(filtering="apdf", allocation="sequential"))
    scene.begin()
    scene.homes[0].link.up = False
    scene.run(30.0)
    scene.world.move_outside(scene.homes[0].site, address=None if same_address else scene.world.address4())
    scene.homes[0].link.up = True
    scene.a.ask_stun()
    scene.a.publish()
    assert scene.arrives_again(scene.world.now, 5.0) is not None
    assert scene.until(scene.is_direct, 30.0) is not None


@pytest.mark.parametrize("lifetime_s", [2.0, 20.0, 30.0])
def test_an_idle_path_is_open_whenever_the_first_packet_comes(lifetime_s: float) -> None:
    """NATs that forget early are noticed by what they do, and the path is kept open more often."""
    short = Behaviour(filtering="apdf", allocation="sequential", lifetime_s=lifetime_s)
    scene = Scene(short, PORT_RESTRICTED)
    scene.a.nat = scene.b.nat = ""  # nobody knows
    scene.begin()
    scene.hush()
    scene.run(2 * MINUTE)  # the time to notice
    missed = 0
    for _ in range(20):
        scene.run(scene.world.chance.uniform(20.0, 60.0))
        came = scene.a.count[scene.b.key].came
        path = scene.b.selected[scene.a.key]
        assert path is not None
        scene.b._send(path.base, path.remote, b"\4\0\0\0" + scene.b.key + bytes(100))
        scene.run(1.0)
        missed += scene.a.count[scene.b.key].came == came
    assert missed == 0
    assert scene.is_direct()


def test_two_nodes_behind_one_nat_with_the_same_port_both_reach_a_third() -> None:
    """The NAT keeps the port of the first only."""
    scene = Scene(b=PORT_RESTRICTED)
    third = PathNode(
        scene.world,
        "third",
        [(scene.homes[0].site, scene.world.private4(77))],
        situation=Situation(v4=PORT_RESTRICTED),
        relays=scene.relays,
    )
    assert third.port == scene.a.port
    scene.begin()
    third.meet(scene.b)
    third.talk(scene.b)
    scene.b.talk(third)
    scene.run(10.0)
    assert third.selected[scene.b.key] is not None
    path = scene.b.selected[third.key]
    assert path is not None
    assert not path.relayed
    assert third.count[scene.b.key].came
    assert scene.is_direct()


@pytest.mark.parametrize("hairpin", [False, True])
def test_behind_one_nat_the_lan_is_used(hairpin: bool) -> None:
    scene = Scene(a=replace(PORT_RESTRICTED, hairpin=hairpin))
    third = PathNode(scene.world, "third", [(scene.homes[0].site, scene.world.private4(77))], relays=scene.relays)
    third.meet(scene.a)
    scene.a.talk(third)
    third.talk(scene.a)
    scene.run(10.0)
    path = third.selected[scene.a.key]
    assert path is not None
    assert path.remote.ip == scene.a.uplinks[0].address
    assert not path.relayed


def test_the_same_private_address_in_both_homes_is_never_taken_for_the_other() -> None:
    """In each home somebody else has the peer's address, and even answers STUN."""
    scene = Scene()
    wrong = []
    for home, other in ((scene.homes[0], scene.b), (scene.homes[1], scene.a)):
        ip = other.uplinks[0].address

        def echo(packet: Packet, site=home.site) -> None:
            wrong.append(packet)
            site.send(Packet(packet.to, packet.source, packet.data))

        home.site.hosts[ip] = echo
    scene.begin()
    scene.run(MINUTE)
    assert wrong  # they were asked
    assert not any(packet.data.startswith(b"\4\0\0\0") for packet in wrong)
    assert scene.is_direct()


def test_roaming_costs_at_most_three_seconds() -> None:
    scene = Scene()
    scene.begin()
    mobile = scene.world.site(v4=Behaviour(filtering="apdf", allocation="sequential"), link=Link(0.05))
    since = scene.world.now
    scene.a.roam(0, mobile, IPv4Address("10.8.0.3"))
    assert scene.arrives_again(since, 3.0) is not None
    scene.run(20.0)
    assert scene.is_direct()
    assert scene.longest_silence(since) <= 3.0


def with_two_uplinks(scene: Scene, second: Behaviour) -> None:
    """Node a gets another one, the longer way."""
    site = scene.world.site(v4=second, link=Link(0.06))
    scene.a.uplinks.append(type(scene.a.uplinks[0])(site, IPv4Address("10.9.0.2"), 2))
    scene.world.put(site, IPv4Address("10.9.0.2"), lambda packet: scene.a._receive(scene.a.uplinks[1], packet))
    scene.a.changed()


def test_the_second_uplink_takes_over_when_the_first_is_cut_without_a_word() -> None:
    """A cable is pulled somewhere in the provider's network: no interface goes down."""
    scene = Scene()
    with_two_uplinks(scene, PORT_RESTRICTED)
    scene.begin()
    scene.run(20.0)
    path = scene.paths()[0]
    assert path is not None
    assert path.base == scene.a.uplinks[0].base  # the shorter way
    since = scene.world.now
    scene.homes[0].link.up = False
    assert scene.arrives_again(since + 0.1, 3.0) is not None
    scene.run(20.0)
    assert scene.is_direct()
    assert scene.longest_silence(since) <= 3.0


@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_the_second_uplink_takes_over_in_three_seconds_where_it_leads_to_relays_only(seed: int) -> None:
    """The many paths that go by the first, directly or by allocations of its own, all look better, and all are dead."""
    scene = Scene(FULL_CONE, SYMMETRIC, relays=2, seed=seed)
    with_two_uplinks(scene, SYMMETRIC)
    scene.begin()
    scene.run(30.0 + scene.world.chance.random())
    since = scene.world.now
    scene.homes[0].link.up = False
    scene.run(20.0)
    assert scene.is_relayed()
    assert scene.longest_silence(since) <= 3.2  # of which data is on its way for 0.2 s, by the longer way
    assert scene.switches(since) <= 2


def test_a_path_that_works_one_way_only_is_left_by_both() -> None:
    scene = Scene()
    scene.begin()
    since = scene.world.now
    relay = scene.relays[0].address4
    scene.homes[0].link.drops = lambda packet, outwards: not outwards and packet.source.ip != relay
    assert scene.until(scene.is_relayed, 10.0) is not None
    scene.run(4 * MINUTE)
    assert scene.longest_silence(since) <= 3.5
    assert scene.switches(since) <= 4
    scene.homes[0].link.drops = None
    assert scene.until(scene.is_direct, 9 * MINUTE) is not None


def test_a_relay_that_dies_is_replaced_by_another_in_three_seconds() -> None:
    scene = Scene(SYMMETRIC, SYMMETRIC, relays=2)
    scene.begin(direct=False)
    path = scene.paths()[0]
    assert path is not None
    used = next(
        relay
        for relay in scene.relays
        if path.base.relay == relay.name or path.remote.ip in {relay.address4, relay.address6}
    )
    since = scene.world.now
    used.alive = False
    assert scene.arrives_again(since + 0.1, 3.0) is not None
    scene.run(20.0)
    assert scene.longest_silence(since) <= 3.0


def used_relay(scene: Scene) -> RelayServer:
    path = scene.paths()[0]
    assert path is not None
    return next(
        relay
        for relay in scene.relays
        if path.base.relay == relay.name or path.remote.ip in {relay.address4, relay.address6}
    )


@pytest.mark.parametrize("whose", ["both", "a", "b"])
@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_a_relay_that_carries_checks_and_swallows_data_is_left_within_eight_seconds(whose: str, seed: int) -> None:
    scene = Scene(SYMMETRIC, SYMMETRIC, relays=2, seed=seed)
    scene.begin(direct=False)
    scene.run(20.0 + scene.world.chance.random())
    relay, since = used_relay(scene), scene.world.now
    relay.swallows = lambda sender: whose == "both" or sender is (scene.a if whose == "a" else scene.b)
    scene.run(30.0)
    assert 3.0 < scene.longest_silence(since) <= 8.0


@pytest.mark.parametrize("seed", range(FAULT_SEEDS))
def test_a_relay_behind_a_third_of_loss_is_not_taken_for_one_that_swallows(seed: int) -> None:
    """Data goes one way only, and nobody answers it but by checks."""
    links = Link(0.02, loss=0.16), Link(0.02, loss=0.16)  # of both together 0.3
    scene = Scene(SYMMETRIC, SYMMETRIC, relays=2, seed=seed, links=links)
    scene.a.meet(scene.b)
    scene.run(1.0)
    scene.a.talk(scene.b, every_s=1.0)
    scene.run(1.5 * MINUTE)
    said = scene.a.count[scene.b.key].why + scene.b.count[scene.a.key].why
    assert said
    assert not any("no data" in why for why in said)


def test_a_direct_path_does_not_notice_that_the_relay_died() -> None:
    scene = Scene()
    scene.begin()
    since = scene.world.now
    scene.relays[0].alive = False
    scene.run(2 * MINUTE)
    assert scene.switches(since) == 0
    assert scene.longest_silence(since) < 0.5


def test_udp_that_is_blocked_later_leaves_the_relay_over_tcp_and_comes_back() -> None:
    scene = Scene()
    scene.begin()
    scene.run(MINUTE)
    since = scene.world.now
    link = scene.homes[0].link
    link.blocked_out = link.blocked_in = True
    assert scene.until(scene.is_relayed, 10.0) is not None
    assert scene.longest_silence(since) <= 4.0
    scene.run(20.0)
    link.blocked_out = link.blocked_in = False
    assert scene.until(scene.is_direct, 60.0) is not None


def test_of_the_other_paths_one_that_died_as_well_is_not_taken() -> None:
    """UDP is blocked for both address families: IPv4 would be the next best, and is dead too."""
    world = World(3)
    relays = (RelayServer(world, "relay"),)
    nodes, links = [], []
    for name in ("a", "b"):
        links.append(Link(0.02))
        site = world.site(v4=PORT_RESTRICTED, v6=FIREWALLED, link=links[-1])
        uplinks: list[tuple[Network, IPAddress]] = [(site, world.private4(ord(name))), (site, world.address6())]
        nodes.append(PathNode(world, name, uplinks, relays=relays))
    a, b = nodes
    a.meet(b)
    a.talk(b)
    b.talk(a)
    world.run(world.now + 20.0)
    assert all(one.selected[other.key].remote.ip.version == 6 for one, other in ((a, b), (b, a)))  # type: ignore[union-attr]
    since = world.now
    links[0].blocked_in = links[0].blocked_out = True
    world.run(since + 4.0)
    for one, other in ((a, b), (b, a)):
        taken = [path for at, path in one.count[other.key].selections if at > since]
        assert taken
        assert all(path is not None and path.relayed for path in taken)


@pytest.mark.parametrize("mtu", [1500, 1480, 1400, 1372, 1340])
def test_the_largest_packet_that_gets_through_is_found(mtu: int) -> None:
    scene = Scene(links=(Link(0.02, mtu=mtu), None))
    scene.begin()
    scene.run(30.0)
    found = scene.a.count[scene.b.key].mtu
    assert found is not None
    assert max(1280, mtu - 60 - 16) <= found <= max(1280, mtu - 60)


@pytest.mark.parametrize("mtu", [1280, 1339, 576])
def test_a_path_that_does_not_carry_1280_bytes_is_left_for_one_that_does(mtu: int) -> None:
    """The relay over TCP has no such limit."""
    scene = Scene()
    scene.begin()
    scene.homes[0].link.mtu = mtu
    assert scene.until(scene.is_relayed, 30.0) is not None
    scene.homes[0].link.mtu = 1500
    assert scene.until(scene.is_direct, 3 * MINUTE) is not None


def test_a_path_on_which_routers_fragment_is_kept() -> None:
    scene = Scene()
    scene.begin()
    link = scene.homes[0].link
    link.mtu, link.fragments = 1000, True
    since = scene.world.now
    scene.run(MINUTE)
    assert scene.is_direct()
    assert scene.switches(since) == 0
    assert scene.a.count[scene.b.key].mtu == scene.b.count[scene.a.key].mtu == 1280
    link.mtu = 1500
    scene.run(11 * MINUTE)
    assert scene.a.count[scene.b.key].mtu == 1440


def test_where_no_path_carries_large_packets_small_ones_still_pass() -> None:
    scene = Scene(OPEN, OPEN, relays=0)
    scene.begin()
    scene.homes[0].link.mtu = 1000
    since = scene.world.now
    scene.run(2 * MINUTE)
    assert scene.longest_silence(since) <= 0.5
    assert all(one.machine.is_narrow(other.key) for one, other in ((scene.a, scene.b), (scene.b, scene.a)))
    scene.homes[0].link.mtu = 1500
    scene.run(2 * MINUTE)
    assert scene.a.count[scene.b.key].mtu == 1440
    assert not scene.a.machine.is_narrow(scene.b.key)


def test_a_black_hole_for_large_packets_that_appears_later_is_found() -> None:
    scene = Scene()
    scene.begin()
    scene.run(10.0)
    assert scene.a.count[scene.b.key].mtu == 1440
    scene.homes[0].link.mtu = 1400
    assert scene.until(lambda: (scene.a.count[scene.b.key].mtu or 0) <= 1340, 20.0) is not None
    scene.run(20.0)
    assert (scene.a.count[scene.b.key].mtu or 0) >= 1320
    assert scene.is_direct()


def test_without_coordinator_and_relays_a_path_lives_on_and_a_node_that_moves_is_found() -> None:
    """It knows where the other is, and the other's NAT lets in whom it hears of from a mutual member."""
    scene = Scene()
    friend = Home(scene.world, "friend", OPEN).node
    for one in (scene.a, scene.b):
        one.meet(friend)
        one.talk(friend)
        friend.talk(one)
    scene.begin()
    for node in (scene.a, scene.b, friend):
        node.coordinator = False
        node.stun = ()
    for relay in scene.relays:
        relay.alive = False
    since = scene.world.now
    scene.run(MINUTE)
    assert scene.longest_silence(since) < 0.5
    mobile = scene.world.site(v4=Behaviour(filtering="apdf", allocation="sequential"), link=Link(0.05))
    since = scene.world.now
    scene.a.roam(0, mobile, IPv4Address("10.8.0.3"))
    assert scene.arrives_again(since, 15.0) is not None
    scene.run(10.0)
    assert scene.is_direct()


def test_an_idle_pair_costs_one_exchange_in_fifteen_seconds() -> None:
    scene = Scene()
    scene.begin(talk=False)
    scene.run(MINUTE)
    before = scene.world.packets
    scene.run(10 * MINUTE)
    assert (scene.world.packets - before) / 600 <= 2 / 15 * 1.5


def test_a_pair_that_talks_costs_few_checks() -> None:
    scene = Scene()
    scene.begin()
    scene.run(MINUTE)
    data = sum(len(one.count[other.key].arrived) for one, other in ((scene.a, scene.b), (scene.b, scene.a)))
    before = scene.world.packets - data
    scene.run(5 * MINUTE)
    data = sum(len(one.count[other.key].arrived) for one, other in ((scene.a, scene.b), (scene.b, scene.a)))
    assert (scene.world.packets - data - before) / 300 <= 9.0
