"""What may happen to networks between members while they talk: the real program, the kernel's NATs, real relays.

The letters after each test are those of the usual catalogue of faults; the bounds are what a person would still put up
with on a machine that has much else to do, and are measured from outside; tests/sim has them to the second.
"""

from __future__ import annotations

import time
from functools import partial
from ipaddress import IPv4Address, ip_address

import pytest

from tests.support.reach_lab import World, to_relays_only
from warren.lab import Host, Lab
from warren.lab.faults import black_hole, forge_icmp
from warren.lab.firewall import Firewall
from warren.lab.icmp import IcmpError, Kind
from warren.lab.nat import KINDS, NatKind
from warren.lab.site_kinds import SITE_KINDS, SiteKind
from warren.lab.traffic import tcp_transfer

MEGABYTE = 1 << 20
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def two(world: World, one: SiteKind | NatKind | str, other: SiteKind | NatKind | str) -> tuple[Host, Host]:
    """Alice and Bob at sites of these kinds, members, and a path between them in use."""
    world.start()
    alice, bob = world.site("homea", one).host("alice"), world.site("homeb", other).host("bob")
    world.join(alice, bob)
    world.pings(alice, bob)
    return alice, bob


def test_a_nat_that_forgets_and_rebinds_is_followed_within_seconds(world: World) -> None:  # F-RB
    alice, bob = two(world, "port-restricted", "port-restricted")
    world.wait_path(alice, bob, "direct")
    stream = world.stream(alice, bob, 12.0)
    time.sleep(3.0)
    at = time.monotonic()
    world.internet.sites["homea"].router.rebind()
    received = stream.result()
    assert received.longest_gap_s(at) < 8.0
    world.wait_path(alice, bob, "direct")


def test_a_nat_that_rebinds_under_a_relayed_path_is_followed(world: World) -> None:  # F-RBR
    alice, bob = two(world, "symmetric", "symmetric")
    world.wait_path(alice, bob, "relayed")
    stream = world.stream(alice, bob, 20.0)
    time.sleep(3.0)
    at = time.monotonic()
    world.internet.sites["homea"].router.rebind()
    assert stream.result().longest_gap_s(at) < 15.0
    world.wait_path(alice, bob, "relayed")


@pytest.mark.parametrize("moves", [False, True])
def test_a_router_that_reboots_is_survived_with_the_same_and_with_another_address(  # F-FL
    world: World, moves: bool
) -> None:
    alice, bob = two(world, "port-restricted", "port-restricted")
    world.wait_path(alice, bob, "direct")
    site = world.internet.sites["homea"]
    stream = world.stream(alice, bob, 30.0)
    time.sleep(2.0)
    address = site.access.at(4, site.access.customer(4, 5)) if moves else None
    site.outer.reboot(8.0, interface="wan", address=address)
    back = time.monotonic()
    received = stream.result()
    after = [at for at in received.at.values() if at > back]
    assert after
    assert min(after) - back < 16.0
    world.wait_path(alice, bob, "direct")


@pytest.mark.parametrize(("lifetime_s", "spells"), [(20, 1), (4, 7)])
def test_an_idle_pair_answers_the_first_packet_behind_a_forgetful_nat(  # F-NT
    world: World, lifetime_s: int, spells: int
) -> None:
    forgetful = NatKind("eim", "apdf", udp_lifetime_s=lifetime_s)
    alice, bob = two(world, forgetful, forgetful)
    world.wait_path(alice, bob, "direct")
    answered = []
    for _ in range(spells):  # that it forgets sooner than anybody expects is found out by and by
        time.sleep(2 * lifetime_s + 5)  # of the kernel's clock, which nobody can move
        done = bob.run(["ping", "-n", "-c1", "-W10", world.address(alice)], check=False)
        answered.append(done.returncode == 0)
    assert all(answered[-2:]), answered


def test_two_members_behind_one_nat_with_one_port_both_connect(world: World) -> None:  # F-PORT
    world.start()
    home = world.site("homea", KINDS["linux"])
    first, second, far = home.host("first"), home.host("second"), world.site("homeb", "open").host("far")
    for host in (first, second):
        state = host.directory / "state"
        state.mkdir(exist_ok=True)
        (state / "agent.toml").write_text("listen_port = 41641\n")
    world.join(first, second, far)
    for host in (first, second):
        world.pings(host, far)
        world.wait_path(host, far, "direct")
        world.pings(far, host)


@pytest.mark.parametrize("hairpin", [False, True])
def test_two_members_behind_one_nat_find_each_other_on_the_lan(world: World, hairpin: bool) -> None:  # F-HP
    world.start()
    home = world.site("homea", NatKind("eim", "apdf", hairpin=hairpin))
    alice, bob = home.host("alice"), home.host("bob")
    world.join(alice, bob)
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct")
    assert "192.168.1." in str(world.peer(alice, bob)["endpoint"])


def test_the_same_private_range_on_both_sides_never_leads_to_a_wrong_host(world: World) -> None:  # F-CGN
    world.start()
    homes = [world.site("homea", "cgn"), world.site("homeb", "cgn")]
    alice, bob = homes[0].host("alice"), homes[1].host("bob")
    stranger = homes[0].host("stranger")  # has the address in Alice's LAN that Bob's second host would have
    decoy = homes[1].host("decoy")
    world.join(alice, bob, decoy, stranger)
    for one, other in ((alice, bob), (alice, decoy), (stranger, bob)):
        world.pings(one, other)
        world.wait_path(one, other, "direct")
        assert "192.168.1." not in str(world.peer(one, other)["endpoint"])
    assert tcp_transfer(alice, bob, world.address(bob), 4 * MEGABYTE).intact


def test_a_host_that_moves_to_another_network_keeps_its_connections(world: World) -> None:  # F-ROAM
    world.start()
    wifi, mobile = world.site("wifi", "port-restricted"), world.site("mobile", "cgn", "10.20.0.0/24")
    alice, bob = wifi.host("alice"), world.site("homeb", "port-restricted").host("bob")
    mobile.attach(alice, interface="wwan0", metric=1000)
    world.join(alice, bob)
    world.pings(alice, bob)
    world.wait_path(alice, bob, "direct")
    stream = world.stream(alice, bob, 25.0)
    server = bob.begin(_swallow, world.address(bob))
    time.sleep(1.0)
    transfer = alice.begin(_slow_transfer, world.address(bob))
    time.sleep(3.0)
    at = time.monotonic()
    alice.ip("link set eth0 down")
    assert stream.result().longest_gap_s(at) < 12.0
    assert transfer.result(60.0) == server.result(60.0) > 0


def test_a_path_that_works_one_way_only_is_left(world: World) -> None:  # F-ASY
    alice, bob = two(world, "port-restricted", "port-restricted")
    world.wait_path(alice, bob, "direct")
    far = world.internet.address("homeb")
    router = world.internet.sites["homea"].router
    stream, back = world.stream(alice, bob, 25.0), world.stream(bob, alice, 25.0)
    time.sleep(2.0)
    at = time.monotonic()
    router.nft(f"table ip oneway {{ chain f {{ type filter hook forward priority 5; ip daddr {far} drop; }}\n}}")
    assert max(stream.result().longest_gap_s(at), back.result().longest_gap_s(at)) < 15.0
    world.wait_path(alice, bob, "relayed")
    router.nft("delete table ip oneway")
    world.wait_path(alice, bob, "direct", 90.0)


def test_another_relay_takes_over_when_one_is_killed(lab: Lab) -> None:  # F-KR
    world = World(lab, relays=2)
    alice, bob = two(world, "symmetric", "symmetric")
    world.wait_path(alice, bob, "relayed")
    used = str(world.peer(alice, bob)["endpoint"])
    stream = world.stream(alice, bob, 20.0)
    time.sleep(3.0)
    at = time.monotonic()
    for host in world.relays:
        if world.internet.address(host.name) in used or world.internet.address(host.name, 6) in used:
            host.ip("link set eth0 down")
    assert stream.result().longest_gap_s(at) < 14.0
    world.wait_path(alice, bob, "relayed")


def test_coturn_serves_in_the_place_of_a_relay(lab: Lab) -> None:
    world = World(lab, relays=0)
    world.start()
    host = world.internet.server("turn")
    world.network.start_coturn(host, addresses=[world.internet.address("turn")])
    alice, bob = (world.site(name, "symmetric").host(name) for name in ("alice", "bob"))
    office = world.site("office", "udp-blocked").host("carol")
    world.join(alice, bob, office)
    for one, other in ((alice, bob), (office, bob)):
        world.pings(one, other)
        world.wait_path(one, other, "relayed")
        assert tcp_transfer(one, other, world.address(other), 4 * MEGABYTE).intact


@pytest.mark.parametrize("how", ["udp-blocked", "udp-rejected", "only-443"])
def test_a_network_that_blocks_udp_is_left_over_443_and_udp_is_taken_back_when_it_works(  # F-UDP
    world: World, how: str
) -> None:
    world.start()
    office = world.site("office", how)
    alice, bob = office.host("alice"), world.site("homeb", "symmetric").host("bob")
    world.join(alice, bob)
    world.pings(alice, bob)
    world.wait_path(alice, bob, "relayed")
    assert tcp_transfer(alice, bob, world.address(bob), 4 * MEGABYTE).intact


def test_udp_that_is_blocked_in_the_middle_of_a_talk_is_replaced_and_comes_back(world: World) -> None:  # F-UDP2
    alice, bob = two(world, "port-restricted", "port-restricted")
    world.wait_path(alice, bob, "direct")
    router = world.internet.sites["homea"].router
    stream = world.stream(alice, bob, 30.0)
    time.sleep(3.0)
    at = time.monotonic()
    router.block_udp()
    assert stream.result().longest_gap_s(at) < 20.0
    assert world.path(alice, bob) in {"relayed", "direct"}  # over a relay's stream, then over a TCP connection
    router.unblock_udp()
    far = world.internet.address("homeb")
    busy = alice.start(["ping", "-n", "-q", "-i", "0.2", world.address(bob)], name="busy")
    alice.wait_for(lambda: str(world.peer(alice, bob)["endpoint"]).startswith(f"{far}:"), 90.0)
    busy.stop(5.0)


def test_an_http_proxy_as_the_only_way_out_is_enough(world: World) -> None:  # F-TLS
    world.start()
    office = world.site("office", "http-proxy")
    alice, bob = office.host("alice"), world.site("homeb", "port-restricted").host("bob")
    state = alice.directory / "state"
    state.mkdir(exist_ok=True)
    (state / "agent.toml").write_text(f'[proxy]\nurl = "{office.proxy}"\n')
    world.join(alice, bob)
    world.pings(alice, bob, 60.0)
    world.wait_path(alice, bob, "relayed")
    assert tcp_transfer(bob, alice, world.address(alice), 4 * MEGABYTE).intact


@pytest.mark.parametrize("bytes_max", [1350])
def test_a_hole_for_large_packets_is_survived(world: World, bytes_max: int) -> None:  # F-MTU
    alice, bob = two(world, "port-restricted", "port-restricted")
    world.wait_path(alice, bob, "direct")
    world.lab.switch_off_offloads()
    black_hole(world.internet.sites["homeb"].router, bytes_max)
    assert tcp_transfer(alice, bob, world.address(bob), 8 * MEGABYTE, timeout=60).intact
    assert tcp_transfer(bob, alice, world.address(alice), 8 * MEGABYTE, timeout=60).intact
    done = alice.run(["ping", "-n", "-c3", "-i0.3", "-W10", "-s", str(1280 - 48), world.address(bob)], check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("kind", "bytes_max"), [("port-restricted", 1000), ("ipv6-only", 1300)])
def test_a_hole_for_all_but_small_packets_is_survived_by_tcp(  # F-MTU
    world: World, kind: str, bytes_max: int
) -> None:
    alice, bob = two(world, kind, kind)
    world.wait_path(alice, bob, "direct")
    world.lab.switch_off_offloads()
    black_hole(world.internet.sites["homeb"].router, bytes_max)
    assert tcp_transfer(alice, bob, world.address(bob), 2 * MEGABYTE, timeout=90).intact
    done = alice.run(["ping", "-n", "-c3", "-i0.3", "-W10", "-s", str(1280 - 48), world.address(bob)], check=False)
    assert done.returncode == 0, done.stdout
    assert world.peer(alice, bob)["endpoint"] == world.peer(bob, alice)["endpoint"] == "a TCP connection"


def test_forged_icmp_changes_nothing(world: World) -> None:  # F-PTB
    alice, bob = two(world, "port-restricted", "open")
    world.wait_path(alice, bob, "direct")
    before = world.peer(alice, bob)
    place, _, port = str(before["endpoint"]).rpartition(":")
    router, own_port = world.internet.sites["homea"].router, world.network.status(alice)["listen_port"]
    stream = world.stream(alice, bob, 6.0)
    kinds: tuple[Kind, ...] = ("too-big", "port-unreachable", "host-unreachable", "admin-prohibited", "redirect")
    for kind in kinds * 4:
        gateway = IPv4Address("192.168.1.77") if kind == "redirect" else None
        ends = ip_address("192.168.1.10"), own_port, ip_address(place), int(port)
        forge_icmp(router, IcmpError(kind, ip_address("192.168.1.1"), *ends, mtu=576, gateway=gateway))
    assert stream.result().longest_gap_s() < 4.0
    after = world.peer(alice, bob)
    assert (after["path"], after["endpoint"], after["mtu"]) == (before["path"], before["endpoint"], before["mtu"])


def test_pairs_of_all_families_connect_and_a_black_hole_for_one_costs_little(world: World) -> None:  # F-V6
    world.start()
    six, both = world.site("six", "ipv6-only").host("six"), world.site("both", "ipv6-firewalled").host("both")
    four = world.site("four", "port-restricted").host("four")
    hole = world.site("hole", "ipv6-firewalled")
    black = hole.host("black")
    hole.router.nft("table ip hole { chain f { type filter hook forward priority 5; meta l4proto udp drop; }\n}")
    world.join(six, both, four, black)
    for one, other in ((six, both), (six, four), (four, both), (black, both), (black, six)):
        world.pings(one, other, 20.0)
    world.wait_path(six, both, "direct")
    world.wait_path(black, both, "direct")


def test_the_network_heals_without_its_coordinator_when_a_member_moves(lab: Lab) -> None:  # F-PC
    world = World(lab)
    world.start()
    sites = {name: world.site(name, "port-restricted") for name in ("homea", "homeb", "homec")}
    alice, bob, carol = (site.host(name) for site, name in zip(sites.values(), ("alice", "bob", "carol"), strict=True))
    world.join(alice, bob, carol)
    for one, other in ((alice, bob), (alice, carol), (bob, carol)):
        world.pings(one, other)
        world.wait_path(one, other, "direct")
    assert world.network.coordinator is not None
    world.network.coordinator.kill()
    sites["homea"].change_address(7)
    for other in (bob, carol):
        world.pings(alice, other, 30.0)
        world.pings(other, alice, 30.0)
    world.network.nodes["bob"].process.stop(60.0)
    world.network.up(bob)
    world.pings(alice, bob, 40.0)
    world.pings(bob, carol, 40.0)


def test_direct_paths_live_on_without_coordinator_and_relays_and_follow_who_moves(world: World) -> None:  # F-PCR
    alice, bob = two(world, "port-restricted", "open")
    world.wait_path(alice, bob, "direct")
    assert world.network.coordinator is not None
    world.network.coordinator.kill()
    for host in world.relays:
        host.ip("link set eth0 down")
    world.internet.sites["homea"].change_address(7)
    world.pings(alice, bob)
    world.pings(bob, alice)
    world.wait_path(alice, bob, "direct")


def test_a_multi_homed_host_uses_the_faster_uplink_and_survives_losing_it(lab: Lab) -> None:
    from warren.lab import Impairment

    world = World(lab)
    world.start()
    # Slower by more than a busy machine makes the other one.
    slow = world.internet.site("slow", "port-restricted", lan="10.1.0.0/24", impairment=Impairment(delay_s=0.1))
    fast = world.site("fast", "port-restricted", "10.2.0.0/24")
    alice, bob = slow.host("alice"), world.site("homeb", "port-restricted").host("bob")
    fast.attach(alice, interface="eth1", metric=1000)
    world.join(alice, bob)
    world.pings(alice, bob)
    world.wait_path(bob, alice, "direct")
    ping = alice.start(["ping", "-n", "-q", "-i", "0.2", world.address(bob)], name="busy")
    bob.wait_for(lambda: world.internet.address("fast") in str(world.peer(bob, alice)["endpoint"]), 80.0)
    ping.stop(5.0)
    stream = world.stream(alice, bob, 15.0)
    time.sleep(3.0)
    at = time.monotonic()
    fast.link.down()
    assert stream.result().longest_gap_s(at) < 10.0


def test_an_uplink_that_leads_to_relays_only_takes_over_with_an_allocation_of_its_own(lab: Lab) -> None:
    world = World(lab)
    world.start()
    first, second = world.site("first", "port-restricted"), world.site("second", "port-restricted", "10.2.0.0/24")
    alice, bob = first.host("alice"), world.site("homeb", "port-restricted").host("bob")
    second.attach(alice, interface="eth1", metric=1000)
    to_relays_only(second)
    world.join(alice, bob)
    world.wait_path(alice, bob, "direct")
    explain = partial(world.network.warren, alice, "explain", "bob", check=False)
    alice.wait_for(lambda: "from 10.2.0." in explain().stdout, 40.0)
    stream = world.stream(bob, alice, 12.0)
    time.sleep(2.0)
    at = time.monotonic()
    first.link.down()
    assert stream.result().longest_gap_s(at) < 8.0
    assert "from 10.2.0." in str(world.peer(alice, bob)["relay"])


def test_a_site_without_any_way_says_so_in_words_that_a_person_understands(world: World) -> None:
    nothing = SiteKind(SITE_KINDS["port-restricted"].nat, firewall=Firewall(udp="dropped", tcp_ports=(443,)))
    world.start()
    office = world.site("office", nothing)
    alice, bob = office.host("alice"), world.site("homeb", "symmetric").host("bob")
    world.join(alice, bob)
    for host in world.relays:
        host.ip("link set eth0 down")
    ping = alice.start(["ping", "-n", "-q", "-i", "0.5", world.address(bob)], name="busy")
    alice.wait_for(lambda: world.peer(alice, bob).get("why"), 80.0)
    ping.stop(5.0)
    said = world.network.warren(alice, "status").stdout
    assert "relay" in said
    assert "UDP" in said


def _slow_transfer(address: str) -> int:
    import socket

    sent = 0
    with socket.create_connection((address, 5000), 30) as connection:
        for _ in range(200):
            connection.sendall(b"x" * 10_000)
            sent += 10_000
            time.sleep(0.1)
    return sent


def _swallow(address: str) -> int:
    import socket

    with socket.create_server((address, 5000), family=socket.AF_INET6) as listener:
        listener.settimeout(30)
        connection, _ = listener.accept()
        received = 0
        with connection:
            connection.settimeout(40)
            while data := connection.recv(1 << 16):
                received += len(data)
    return received
