"""Cables, switches, routers, captures and the traffic helpers of the lab."""

from __future__ import annotations

import socket

import pytest

from warren.errors import OperationFailed, UsageError
from warren.lab import Capture, Host, Lab, Link, Router
from warren.lab.bridge import INTERFACE as BRIDGE
from warren.lab.traffic import tcp_transfer, udp_echo, udp_series

MEGABYTE = 1 << 20
ETHERNET_BYTES = 14
UDP_SEGMENT = 103  # linux/udp.h


@pytest.fixture
def pair(lab: Lab) -> tuple[Host, Host, Link]:
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"])
    return a, b, link


def reaches(host: Host, address: str, within_s: int = 15) -> bool:
    return host.run(["ping", "-c1", f"-W{within_s}", address], check=False).returncode == 0


def is_ready(host: Host) -> bool:
    """Neither duplicate address detection nor a late carrier keeps an address back for a second."""
    shown = host.run(["ip", "address", "show", "dev", "eth0"]).stdout
    late = [line for line in shown.splitlines() if "scope global" in line and " tentative" in line]
    return "LOWER_UP" in shown and not late


def test_addresses_of_both_families_answer_at_once(pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    assert [is_ready(host) for host in (a, b)] == [True, True]
    for client, server, address in ((a, b, "fd09::2"), (b, a, "fd09::1"), (a, b, "10.9.0.2")):
        assert len(udp_echo(client, server, address, count=1)) == 1


def test_a_pulled_cable_carries_nothing_and_comes_back_with_addresses_and_routes(pair: tuple[Host, Host, Link]) -> None:
    a, _, link = pair
    a.route("default", via="10.9.0.2")
    a.route("fd99::/16", via="fd09::2")
    link.down()
    assert not reaches(a, "10.9.0.2", 1)
    link.up()
    assert reaches(a, "10.9.0.2")
    assert reaches(a, "fd09::2")
    assert "default via 10.9.0.2" in a.run(["ip", "-4", "route"]).stdout
    assert "fd99::/16 via fd09::2" in a.run(["ip", "-6", "route"]).stdout


def test_a_taken_or_impossible_interface_name_is_refused(lab: Lab, pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    with pytest.raises(OperationFailed, match="File exists"):
        lab.link(a, b)
    with pytest.raises(UsageError, match="interface name 'far too long for it'"):
        lab.link(a, b, interfaces=("eth1", "far too long for it"))


def test_every_host_on_a_switch_reaches_every_other(lab: Lab) -> None:
    switch = lab.bridge("lan")
    hosts = [lab.host(name) for name in "abc"]
    for number, host in enumerate(hosts, 1):
        lab.attach(host, switch, f"10.9.0.{number}/24", f"fd09::{number}/64")
    assert [is_ready(host) for host in hosts] == [True] * 3
    capture = switch.capture(BRIDGE)
    for number, host in enumerate(hosts, 1):
        for family in ("10.9.0.", "fd09::"):
            assert len(udp_echo(hosts[number % 3], host, f"{family}{number}", count=1)) == 1
    assert switch.run(["ip", "-brief", "address", "show", BRIDGE]).stdout.split()[2:] == [], "the switch has no address"
    assert capture.stop().exists()


def test_a_router_forwards_both_families(lab: Lab) -> None:
    a, router, b = lab.host("a"), lab.router("r"), lab.host("b")
    lab.link(a, router, ["10.1.0.2/24", "fd01::2/64"], ["10.1.0.1/24", "fd01::1/64"], interfaces=("eth0", "left"))
    lab.link(router, b, ["10.2.0.1/24", "fd02::1/64"], ["10.2.0.2/24", "fd02::2/64"], interfaces=("right", "eth0"))
    for host, network in ((a, 1), (b, 2)):
        host.route("default", via=f"10.{network}.0.1")
        host.route("default", via=f"fd0{network}::1")
    assert len(udp_echo(a, b, "10.2.0.2", count=2)) == 2
    assert len(udp_echo(b, a, "fd01::2", count=2)) == 2


def behind_nat(lab: Lab, *, symmetric: bool = False, udp_timeout_s: int | None = None) -> tuple[Host, Router, Host]:
    """A host whose packets reach the other only with the router's address."""
    inside, router, outside = lab.host("inside"), lab.router("router"), lab.host("outside")
    lab.link(inside, router, "192.168.1.2/24", "192.168.1.1/24", interfaces=("eth0", "lan0"))
    lab.link(router, outside, "10.0.0.1/24", "10.0.0.2/24", interfaces=("wan0", "eth0"))
    inside.route("default", via="192.168.1.1")
    router.masquerade("wan0", symmetric=symmetric, udp_timeout_s=udp_timeout_s)
    return inside, router, outside


def mapped_source(inside: Host, outside: Host, client: socket.socket, port: int) -> tuple[str, int]:
    """What ``outside`` sees as the source of a datagram from ``client`` to its ``port``."""
    with outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.settimeout(15)
        server.bind(("10.0.0.2", port))
        client.sendto(b"?", ("10.0.0.2", port))
        source: tuple[str, int] = server.recvfrom(10)[1]
        return source


@pytest.mark.parametrize("symmetric", [False, True], ids=["cone", "symmetric"])
def test_a_nat_maps_by_source_alone_or_by_destination_too(lab: Lab, symmetric: bool) -> None:
    inside, _, outside = behind_nat(lab, symmetric=symmetric)
    with inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("", 40000))
        sources = {mapped_source(inside, outside, client, port) for port in (5001, 5002, 5003)}
    assert {address for address, _ in sources} == {"10.0.0.1"}
    assert len(sources) == (3 if symmetric else 1)


def test_a_nat_mapping_lasts_as_long_as_asked_for_and_can_be_forgotten(lab: Lab) -> None:
    inside, router, outside = behind_nat(lab, udp_timeout_s=2)
    with (
        inside.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        server.settimeout(15)
        server.bind(("10.0.0.2", 5000))
        client.sendto(b"?", ("10.0.0.2", 5000))
        source = server.recvfrom(10)[1]
        client.settimeout(15)
        server.sendto(b"!", source)
        assert client.recv(10) == b"!"
        router.wait_for(lambda: "dport=5000" not in conntrack(router))
        client.settimeout(0.3)
        server.sendto(b"!", source)
        with pytest.raises(TimeoutError):
            client.recv(10)
        client.sendto(b"?", ("10.0.0.2", 5000))
        assert "dport=5000" in conntrack(router)
        router.forget_flows()
        assert "dport=5000" not in conntrack(router)


def conntrack(router: Host) -> str:
    return router.run(["cat", "/proc/net/nf_conntrack"]).stdout


def test_a_transfer_is_timed_and_checked(pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    for sender, receiver, address in ((a, b, "10.9.0.2"), (b, a, "fd09::1")):
        done = tcp_transfer(sender, receiver, address, 3 * MEGABYTE + 1)
        assert done.intact
        assert done.size == 3 * MEGABYTE + 1
        assert done.seconds > 0
    assert tcp_transfer(a, b, "10.9.0.2", MEGABYTE, verify=False).intact


def test_a_transfer_over_a_dead_link_fails_in_time(pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    b.nft("table inet t { chain i { type filter hook input priority 0; iifname eth0 drop; }; }")
    with pytest.raises(TimeoutError):
        tcp_transfer(a, b, "10.9.0.2", MEGABYTE, timeout=0.3)


def test_a_numbered_series_over_a_good_link_is_complete(pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    series = udp_series(a, b, "fd09::2", count=200)
    assert (series.received, series.duplicates, series.late) == (200, 0, 0)


def large_packets(capture: Capture, mtu: int) -> int:
    return sum(len(packet) > mtu + ETHERNET_BYTES for packet in capture.packets())


def test_without_offloads_every_captured_packet_is_one_of_the_wire(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, "10.9.0.1/24", "10.9.0.2/24", offloads=False)
    lab.link(a, b, "10.8.0.1/24", "10.8.0.2/24", interfaces=("eth1", "eth1"))
    exact, fast = a.capture("eth0"), a.capture("eth1")
    for address in ("10.9.0.2", "10.8.0.2"):
        assert tcp_transfer(a, b, address, MEGABYTE).intact
        a.call(send_segmented, address)
    assert fast.path != exact.path
    assert large_packets(exact, 1500) == 0
    assert large_packets(fast, 1500) > 0, "by default the kernel passes super-packets on"


def send_segmented(address: str) -> None:
    """One UDP super-packet of ten datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.sendto(bytes(10_000), (address, 9))


def test_a_capture_has_both_directions_from_its_first_moment(pair: tuple[Host, Host, Link]) -> None:
    a, b, _ = pair
    capture = a.capture("eth0")
    question = b"a question that nothing else contains"
    with b.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, a.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.settimeout(15)
        server.bind(("10.9.0.2", 5000))
        client.sendto(question, ("10.9.0.2", 5000))
        server.sendto(question[::-1], server.recvfrom(100)[1])
    packets = capture.packets()
    assert [q in p for p in packets for q in (question, question[::-1]) if q in p] == [True, True]
    assert capture.dropped == 0
    assert capture.stop() == capture.path == a.artifacts / "a-eth0.pcap"


def test_a_capture_of_loopback_has_every_packet_once(lab: Lab) -> None:
    host = lab.host("a")
    capture = host.capture("lo")
    host.run(["ping", "-c1", "-p", "abadcafe", "127.0.0.1"])
    assert len(capture.packets()) == 2, "the question and the answer"


def test_captures_are_complete_when_the_lab_has_ended(lab: Lab) -> None:
    host = lab.host("a")
    capture = host.capture("lo")
    host.run(["ping", "-c1", "127.0.0.1"])
    lab.close()
    assert len(capture.packets()) == 2


def test_a_capture_of_nothing_is_refused(lab: Lab) -> None:
    with pytest.raises(OperationFailed, match="host a: cannot capture on eth7: No such device"):
        lab.host("a").capture("eth7")
