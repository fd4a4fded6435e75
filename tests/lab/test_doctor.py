"""``warren doctor``, the real program, behind NATs and firewalls of the kernel."""

from __future__ import annotations

import json
import shutil
import sys
from ipaddress import ip_address
from typing import Any

import pytest

from tests.support.overlay import Underlay
from warren.lab import Bridge, Host, Lab, Router
from warren.lab.firewall import Firewall
from warren.lab.gateway import start_gateway
from warren.lab.nat import NatKind
from warren.lab.network import environment, warren_command

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

SERVERS4 = ("203.0.113.1", "203.0.113.2")
SERVERS6 = ("2001:db8:1::1", "2001:db8:1::2")
STUN = ("--stun", SERVERS4[0], "--stun", SERVERS6[0])
INSIDE4, INSIDE6 = "192.168.1.10", "2001:db8:2::10"


class World:
    """STUN servers with two addresses of each family, and sites behind routers."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch: Bridge = lab.bridge("internet")
        self.server = lab.host("server")
        addresses = [*(f"{one}/24" for one in SERVERS4), *(f"{one}/64" for one in SERVERS6)]
        lab.attach(self.server, self.switch, *addresses)
        self.server.route("default", via="2001:db8:1::ff")
        for number, servers in enumerate((SERVERS4, SERVERS6)):
            command = [sys.executable, "-m", "tests.support.stun_server", *servers, "--", "3478", "3479"]
            process = self.server.start(command, name=f"stun{number}")
            self.server.wait_for(lambda process=process: "ready" in process.output())

    def site(self, kind: NatKind | str, *, ipv6: bool = False, mtu: int = 1500) -> tuple[Host, Router]:
        host, router = self.lab.host("host"), self.lab.router("router")
        inner = (f"{INSIDE4}/24", f"{INSIDE6}/64") if ipv6 else (f"{INSIDE4}/24",)
        outer = ("192.168.1.1/24", "2001:db8:2::1/64") if ipv6 else ("192.168.1.1/24",)
        self.lab.link(host, router, inner, outer, interfaces=("eth0", "lan"))
        self.lab.attach(router, self.switch, "203.0.113.10/24", "2001:db8:1::ff/64", interface="wan")
        host.route("default", via="192.168.1.1")
        if ipv6:
            host.route("default", via="2001:db8:2::1")
        if mtu != 1500:
            router.ip(f"link set wan mtu {mtu}")
        router.nat("wan", kind)
        return host, router


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def examined(host: Host, *options: str, status: int = 0) -> dict[str, Any]:
    done = host.run(
        [*warren_command(), "doctor", "--json", *options],
        check=False,
        timeout=100,
        env=environment(host),
    )
    assert done.returncode == status, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def levels(report: dict[str, Any]) -> dict[str, str]:
    return {finding["topic"]: finding["level"] for finding in report["findings"]}


def what(report: dict[str, Any], topic: str) -> str:
    return next(finding["what"] for finding in report["findings"] if finding["topic"] == topic)


def test_a_symmetric_nat_is_told_with_what_to_change(world: World) -> None:
    host, _ = world.site("symmetric")
    report = examined(host, *STUN)
    assert (report["kind"], report["two_nics"]) == ("hidden", False)
    nat = report["observed"]["ipv4"]["nat"]
    assert (nat["mapping"], nat["filtering"], nat["allocation"], nat["hairpin"]) == ("apdm", "apdf", "random", False)
    assert nat["mapped"].startswith("203.0.113.10:")
    assert levels(report)["IPv4"] == "note"
    assert "symmetric" in what(report, "IPv4")
    assert "no router advertisement" in what(report, "IPv6")
    assert levels(report)["port mapping"] == "note"
    assert report["observed"]["ipv4"]["path_mtu"] == 1500
    text = host.run([*warren_command(), "doctor", "--stun", SERVERS4[0]], timeout=100).stdout
    assert text.startswith("hidden: behind a NAT, and no IPv6\n")
    assert "→ switch on UPnP, NAT-PMP or PCP in the router" in text


def test_hidden_dual_stack_behind_a_router_with_a_stateful_firewall(world: World) -> None:
    host, router = world.site("port-restricted", ipv6=True)
    router.firewall("wan", Firewall(stateful=True))
    report = examined(host, *STUN)
    assert report["kind"] == "hidden-dual-stack"
    assert report["words"] == "hidden dual-stack: IPv4 behind NAT, IPv6 behind a firewall"
    assert report["observed"]["ipv6"]["nat"]["filtering"] == "apdf"
    assert report["observed"]["ipv6"]["nat"]["translated"] is False
    assert levels(report)["IPv6"] == "note"


def test_open_ipv6_makes_a_host_public_whatever_ipv4_is(world: World) -> None:
    host, _ = world.site("symmetric", ipv6=True)
    report = examined(host, *STUN)
    assert report["kind"] == "public"
    assert report["words"] == "public: anybody can reach this host by IPv6"
    assert levels(report)["IPv6"] == "good"


def test_a_public_host_with_a_management_network_has_two_nics(world: World) -> None:
    host = world.lab.host("host")
    world.lab.attach(host, world.switch, "203.0.113.50/24", interface="eth0")
    world.lab.attach(host, world.lab.bridge("management"), "10.9.0.5/24", interface="eth1")
    host.route("default", via="203.0.113.10")
    report = examined(host, *STUN)
    assert (report["kind"], report["two_nics"]) == ("public", True)
    assert "eth1 (10.9.0.5/24)" in what(report, "interfaces")


@pytest.mark.parametrize("how", ["dropped", "rejected"])
def test_blocked_udp_is_bad_and_ends_with_status_1(world: World, how: str) -> None:
    host, router = world.site("port-restricted")
    router.firewall("wan", Firewall(udp=how))  # type: ignore[arg-type]
    report = examined(host, *STUN, status=1)
    assert report["kind"] == "unknown"
    assert levels(report)["UDP"] == "bad"


def test_a_firewall_on_the_host_itself_is_told_from_one_outside(world: World) -> None:
    host, _ = world.site("port-restricted")
    host.nft("table ip mine {\nchain out {\ntype filter hook output priority 0\nudp dport 3478 reject\n}\n}\n")
    report = examined(host, *STUN, status=1)
    assert "this host itself refuses" in what(report, "UDP")


def test_no_network_at_all_is_bad(lab: Lab) -> None:
    report = examined(lab.host("host"), *STUN, status=1)
    assert levels(report)["way out"] == "bad"
    assert report["kind"] == "unknown"


def test_a_carriers_nat_behind_the_own_one_is_seen(world: World) -> None:
    carrier, home, host = world.lab.router("carrier"), world.lab.router("home"), world.lab.host("host")
    world.lab.attach(carrier, world.switch, "203.0.113.10/24", interface="wan")
    world.lab.link(home, carrier, "100.64.0.2/24", "100.64.0.1/24", interfaces=("wan", "lan"))
    world.lab.link(host, home, "192.168.1.10/24", "192.168.1.1/24", interfaces=("eth0", "lan"))
    home.route("default", via="100.64.0.1")
    host.route("default", via="192.168.1.1")
    carrier.nat("wan", "symmetric")
    home.nat("wan", "port-restricted")
    report = examined(host, *STUN)
    assert report["observed"]["hops"][:2] == ["192.168.1.1", "100.64.0.1"]
    assert "carrier's NAT (100.64.0.1)" in what(report, "double NAT")


def test_a_small_mtu_on_the_way_is_measured(world: World) -> None:
    host, _ = world.site("port-restricted", mtu=1400)
    report = examined(host, *STUN)
    assert report["observed"]["ipv4"]["path_mtu"] == 1400
    assert levels(report)["MTU"] == "note"


@pytest.mark.skipif(not shutil.which("miniupnpd"), reason="not installed: miniupnpd-nftables")
def test_port_mapping_protocols_of_the_router_are_found(world: World) -> None:
    host, router = world.site("port-restricted")
    gateway = start_gateway(router, lan="lan", wan="wan")
    report = examined(host, *STUN)
    assert {one["protocol"] for one in report["observed"]["gateways"]} >= {"pcp"}
    assert levels(report)["port mapping"] == "good"
    assert gateway.ways_in() == []  # it only asks


def test_lifetimes_are_measured_on_demand(world: World) -> None:
    host, _ = world.site(NatKind("eim", "apdf", "random", udp_lifetime_s=7))
    report = examined(host, *STUN, "--within", "6", "--lifetime", "12")
    assert report["observed"]["ipv4"]["lifetime"] == {"at_least_s": 5.0, "below_s": 10.0}
    assert levels(report)["lifetime"] == "warning"


def test_router_advertisements_that_are_not_heeded_are_told(world: World) -> None:
    """A host that forwards, and so passes them over with accept_ra=1: the usual reason on servers with containers."""
    host, router = world.site("port-restricted")
    host.sysctl("net.ipv6.conf.eth0.forwarding", 1)
    link_local = router.run(["ip", "-6", "-o", "addr", "show", "dev", "lan", "scope", "link"]).stdout.split()[3]
    router.call(advertise, link_local.partition("/")[0])
    report = examined(host, *STUN)
    assert levels(report)["IPv6"] == "warning"
    assert "accept_ra=2" in json.dumps(report["findings"])


def advertise(source: str) -> None:
    """Send a router advertisement (RFC 4861 §4.2) with a prefix to all nodes."""
    import socket
    import struct

    prefix = struct.pack("!BBBBIII16s", 3, 4, 64, 0xC0, 3600, 3600, 0, ip_address("2001:db8:9::").packed)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("lan"))
        raw.bind((source, 0, 0, socket.if_nametoindex("lan")))
        raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix, ("ff02::1", 0))


def test_the_relays_and_coordinators_of_a_network_are_asked_by_themselves(lab: Lab) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    network.start()
    host, relay = underlay.host("host"), underlay.host("relay")
    network.start_relay(relay, addresses=["198.51.100.11"])
    network.join(host)
    report = examined(host)
    seen = {(one["role"], one["outcome"]) for one in report["observed"]["tcp"]}
    assert seen == {("coordinator", "good"), ("relay", "good")}
    assert "198.51.100.11:3478" in report["observed"]["ipv4"]["nat"]["answered"]
    assert report["observed"]["ipv4"]["nat"]["translated"] is False
    assert levels(report)["clock"] == "good"
    assert not any("warren" in nic["name"] for nic in report["observed"]["nics"])
