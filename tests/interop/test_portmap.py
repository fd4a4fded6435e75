"""Warren against Debian's miniupnpd on a router of the lab: by each protocol, for IPv4 ports and IPv6 pinholes.

What others' clients (upnpc, natpmpc) see at the same gateway is what Warren sees.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from warren.lab import Call, Host, Lab, Router
from warren.lab.gateway import LabGateway, Protocol, start_gateway
from warren.lab.site import INSIDE, OUTSIDE, Internet
from warren.model.tunnel import TransportAddress
from warren.proto.portmap import pcp
from warren.proto.portmap.natpmp import PORT as PCP_PORT
from warren.reach import portmap
from warren.reach.portmap import Gateway, PortMapping

pytestmark = pytest.mark.skipif(shutil.which("miniupnpd") is None, reason="not installed: miniupnpd")

PUBLIC, SERVER = "45.80.1.2", "45.80.1.1"
LAN, LAN6 = "192.168.8.1", "2a0c:d000:1:1::1"
WG_PORT = 51820
HELLO = b"hello from outside"
BY: list[list[Protocol]] = [["pcp"], ["nat-pmp"], ["upnp"]]
Held = tuple[list[str], list[tuple[str, str]]]
each_protocol = pytest.mark.parametrize("protocols", BY, ids=lambda protocols: protocols[0])


@dataclass
class Home:
    """Hosts behind a router that gives ways in, and somebody outside."""

    lab: Lab
    router: Router
    outside: Host
    hosts: list[Host]
    gateway: LabGateway

    def link_local(self) -> str:
        listed = json.loads(
            self.router.run(["ip", "-j", "-6", "address", "show", "dev", "lan", "scope", "link"]).stdout
        )
        found = [one for link in listed for one in link.get("addr_info", ())]
        return next(str(one["local"]) for one in found if "local" in one)


@pytest.fixture
def home(lab: Lab) -> Callable[..., Home]:
    def make(protocols: list[Protocol], *, hosts: int = 1, kind: str = "port-restricted", igd_version: int = 2) -> Home:
        router, outside = lab.router("router"), lab.host("outside")
        lan = lab.bridge("lan")
        lab.attach(router, lan, f"{LAN}/24", f"{LAN6}/64", interface="lan")
        lab.link(
            outside, router, [f"{SERVER}/24", "2a0c:d000:1::1/64"], [f"{PUBLIC}/24", "2a0c:d000:1::2/64"],
            interfaces=("eth0", "wan"),
        )  # fmt: skip
        outside.route("2a0c:d000:1:1::/64", via="2a0c:d000:1::2")
        router.nat("wan", kind)
        members = []
        for number in range(hosts):
            host = lab.host(f"inside{number}")
            lab.attach(host, lan, f"192.168.8.{10 + number}/24", f"2a0c:d000:1:1::{10 + number}/64")
            host.route("default", via=LAN)
            host.route("default", via=LAN6)
            members.append(host)
        gateway = start_gateway(
            router, lan="lan", wan="wan", protocols=protocols, firewall6=True,
            igd_version=igd_version,  # type: ignore[arg-type]
        )  # fmt: skip
        return Home(lab, router, outside, members, gateway)

    return make


def own_address(version: int) -> str:
    probe = "45.80.99.1" if version == 4 else "2a0c:d000:99::1"
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.connect((probe, 9))
        return str(sock.getsockname()[0])


def gateway_from(router_address: str) -> Gateway:
    address = ip_address(router_address)
    return Gateway(address, socket.if_nametoindex("eth0"), ip_address(own_address(address.version)))


# What runs on the hosts


def hold(
    router_address: str, port: int, wanted: int = 1, seconds: float = 90.0
) -> tuple[list[str], list[tuple[str, str]]]:
    """Keep a way in until ``wanted`` datagrams came by it; say what was told on the way, and what came from where."""

    async def main() -> Held:
        told: list[str] = []
        gateway = gateway_from(router_address)
        family = socket.AF_INET if gateway.address.version == 4 else socket.AF_INET6
        loop = asyncio.get_running_loop()
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind(("", port))

            held = asyncio.Event()

            def tell() -> None:
                held.set()
                told.extend(f"{one.protocol} {one.address} {one.verified}" for one in mapping.mapped)

            mapping = PortMapping(port=lambda: port, gateways=lambda: [gateway], changed=tell)
            came: list[tuple[str, str]] = []
            async with asyncio.timeout(seconds), mapping:
                await held.wait()
                for _ in range(wanted):
                    data, remote = await loop.sock_recvfrom(sock, 2048)
                    came.append((data.decode(), str(ip_address(remote[0].partition("%")[0]))))
                    mapping.confirm(mapping.mapped[0].address)
                    await loop.sock_sendto(sock, data, remote)
            return told, came

    return asyncio.run(main())


def call_in(address: str, port: int, seconds: float = 60.0) -> tuple[bytes, tuple[str, int]]:
    """Send to ``address`` from outside until there is an answer; say where that came from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sock.sendto(HELLO, (address, port))
            try:
                data, remote = sock.recvfrom(2048)
            except TimeoutError:
                continue
            return data, (remote[0], remote[1])
    raise TimeoutError(f"nobody answers at {address} port {port}")


def begin_holding(host: Host, router_address: str, *, wanted: int = 1) -> Call[Held]:
    return host.begin(hold, router_address, WG_PORT, wanted)


# IPv4


@each_protocol
@pytest.mark.parametrize("kind", ["port-restricted", "symmetric"])
def test_a_datagram_from_outside_arrives_and_at_the_end_no_rule_is_left(
    home: Callable[..., Home], protocols: list[Protocol], kind: str
) -> None:
    made = home(protocols, kind=kind)
    holding = begin_holding(made.hosts[0], LAN)
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    data, remote = made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    assert (data, remote) == (HELLO, (PUBLIC, WG_PORT))
    told, came = holding.result(60)
    assert told == [f"{protocols[0]} {PUBLIC}:{WG_PORT} False", f"{protocols[0]} {PUBLIC}:{WG_PORT} True"]
    assert came == [(HELLO.decode(), SERVER)]
    assert made.gateway.ways_in() == []


def test_without_asking_nobody_gets_in(home: Callable[..., Home]) -> None:
    made = home(["pcp"])
    with pytest.raises(TimeoutError):
        made.outside.call(call_in, PUBLIC, WG_PORT, 1.0)


def test_a_gateway_of_version_1_maps_too(home: Callable[..., Home]) -> None:
    made = home(["upnp"], igd_version=1)
    holding = begin_holding(made.hosts[0], LAN)
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    told, _ = holding.result(60)
    assert told[0] == f"upnp {PUBLIC}:{WG_PORT} False"


@each_protocol
def test_two_hosts_with_the_same_port_get_different_ones_outside(
    home: Callable[..., Home], protocols: list[Protocol]
) -> None:
    made = home(protocols, hosts=2)
    holding = [begin_holding(made.hosts[0], LAN)]
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    rules = len(made.gateway.ways_in())
    holding.append(begin_holding(made.hosts[1], LAN))
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 2 * rules)
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    first, _ = holding[0].result(60)
    rule = next(text for text in made.gateway.ways_in() if "192.168.8.11" in text and '"dport"' in text)
    matches = [one["match"] for one in json.loads(rule) if "match" in one]
    port = next(one["right"] for one in matches if one["left"].get("payload", {}).get("field") == "dport")
    assert port != WG_PORT
    made.outside.call(call_in, PUBLIC, port)
    second, _ = holding[1].result(60)
    assert first[0] == f"{protocols[0]} {PUBLIC}:{WG_PORT} False"
    assert second[0] == f"{protocols[0]} {PUBLIC}:{port} False"
    assert made.gateway.ways_in() == []


@each_protocol
def test_a_gateway_that_starts_anew_says_so_and_has_the_mapping_again(
    home: Callable[..., Home], protocols: list[Protocol]
) -> None:
    made = home(protocols)
    holding = begin_holding(made.hosts[0], LAN, wanted=2)
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    began = time.monotonic()
    # Both protocols forgive two seconds: a clock that stood at 0 and stands there again has to be older than that.
    made.router.wait_for(lambda: time.monotonic() - began > 5)
    made.gateway.restart()
    assert made.gateway.ways_in() == []
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1, timeout=60)
    made.router.forget_flows()
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    told, _ = holding.result(60)
    assert told == [f"{protocols[0]} {PUBLIC}:{WG_PORT} False", f"{protocols[0]} {PUBLIC}:{WG_PORT} True"]


def test_a_node_that_was_killed_gets_the_same_port_again(home: Callable[..., Home]) -> None:
    made = home(["pcp", "nat-pmp", "upnp"])
    killed = begin_holding(made.hosts[0], LAN)
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    killed.cancel()
    assert len(made.gateway.ways_in()) >= 1
    holding = begin_holding(made.hosts[0], LAN)
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    told, _ = holding.result(60)
    assert told[0].endswith(f" {PUBLIC}:{WG_PORT} False")
    assert made.gateway.ways_in() == []


def renewals(router_address: str, lifetimes: tuple[float, ...]) -> list[float]:
    """Ask for the same thing again and again, on a clock that jumps half a lease ahead; the time left each time."""

    async def main() -> list[float]:
        offset = 0.0
        gateway = gateway_from(router_address)
        left: list[float] = []
        clock = lambda: portmap.boot_clock() + offset  # noqa: E731
        async with PortMapping(port=lambda: WG_PORT, gateways=lambda: [gateway], clock=clock) as mapping:
            async with asyncio.timeout(60):
                await mapping.settled()
                for ahead in lifetimes:
                    offset += ahead
                    left.append(mapping.mapped[0].expires_in_s)
                    mapping.refresh()
                    while mapping.mapped and mapping.mapped[0].expires_in_s < 7100:
                        await asyncio.sleep(0.01)
            left.append(mapping.mapped[0].expires_in_s)
            return left

    return asyncio.run(main())


@each_protocol
def test_a_lease_is_renewed(home: Callable[..., Home], protocols: list[Protocol]) -> None:
    made = home(protocols)
    before, again, after = made.hosts[0].call(renewals, LAN, (5000.0, 5000.0))
    assert before < 2300
    assert again < 2300
    assert after > 7100
    assert made.gateway.ways_in() == []


# IPv6


@pytest.mark.parametrize("protocols", [["pcp"], ["upnp"]], ids=["pcp", "upnp"])
def test_an_ipv6_pinhole_lets_a_datagram_in_and_is_closed_at_the_end(
    home: Callable[..., Home], protocols: list[Protocol]
) -> None:
    made = home(protocols)
    own = "2a0c:d000:1:1::10"
    with pytest.raises(TimeoutError):
        made.outside.call(call_in, own, WG_PORT, 1.0)
    holding = begin_holding(made.hosts[0], made.link_local())
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    data, remote = made.outside.call(call_in, own, WG_PORT)
    assert (data, remote) == (HELLO, (own, WG_PORT))
    told, came = holding.result(60)
    assert told[0] == f"{protocols[0]} [{own}]:{WG_PORT} False"
    assert came == [(HELLO.decode(), "2a0c:d000:1::1")]
    assert made.gateway.ways_in() == []


# Others' clients at the same gateway


@pytest.mark.skipif(shutil.which("natpmpc") is None, reason="not installed: natpmpc")
def test_natpmpc_sees_the_address_that_warren_is_given(home: Callable[..., Home]) -> None:
    made = home(["nat-pmp"])
    said = made.hosts[0].run(["natpmpc", "-g", LAN]).stdout
    assert f"Public IP address : {PUBLIC}" in said
    said = made.hosts[0].run(["natpmpc", "-g", LAN, "-a", "40000", "40000", "udp", "100"]).stdout
    assert "Mapped public port 40000 protocol UDP to local port 40000" in said
    assert len(made.gateway.ways_in()) >= 1


@pytest.mark.skipif(shutil.which("upnpc") is None, reason="not installed: upnpc")
def test_upnpc_lists_what_warren_has_mapped(home: Callable[..., Home]) -> None:
    made = home(["upnp"])
    holding = begin_holding(made.hosts[0], LAN)
    made.router.wait_for(lambda: len(made.gateway.ways_in()) >= 1)
    said = made.hosts[0].run(["upnpc", "-l"]).stdout
    assert f"ExternalIPAddress = {PUBLIC}" in said
    assert f"UDP {WG_PORT}->192.168.8.10:{WG_PORT}" in said
    assert "'Warren'" in said
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    holding.result(60)
    assert f"{WG_PORT}->" not in made.hosts[0].run(["upnpc", "-l"]).stdout


# Asking for somebody else


def third_party(router_address: str, other: str) -> int:
    """The result of a MAP request for another host of the LAN (RFC 6887 §13.1)."""
    gateway = gateway_from(router_address)
    external = TransportAddress(IPv4Address(0), 40_000)
    mapping = pcp.Mapping(bytes(12), pcp.PROTOCOL_UDP, 40_000, external)
    option = pcp.Option.THIRD_PARTY, IPv6Address(f"::ffff:{other}").packed
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.sendto(pcp.pack_request(gateway.source, mapping, 100, [option]), (router_address, PCP_PORT))
        return pcp.unpack_answer_untrusted(sock.recv(2048)).result


def test_nobody_maps_ports_for_somebody_else(home: Callable[..., Home]) -> None:
    made = home(["pcp"], hosts=2)
    result = made.hosts[0].call(third_party, LAN, "192.168.8.11")
    assert result in {pcp.Result.UNSUPP_OPTION, pcp.Result.NOT_AUTHORIZED}
    assert made.gateway.ways_in() == []


def peer_request(router_address: str, remote: str) -> tuple[int, str, str]:
    """Ask for the mapping of a flow to one peer (RFC 6887 §12): the result, the address outside, the peer it is for."""
    gateway = gateway_from(router_address)
    mapping = pcp.Mapping(
        bytes(range(12)),
        pcp.PROTOCOL_UDP,
        40_000,
        TransportAddress(IPv4Address(0), 40_000),
        TransportAddress(ip_address(remote), 443),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.sendto(pcp.pack_request(gateway.source, mapping, 100), (router_address, PCP_PORT))
        answer = pcp.unpack_answer_untrusted(sock.recv(2048))
    given = answer.mapping
    assert given is not None
    assert given.nonce == mapping.nonce
    return answer.result, str(given.external), str(given.remote)


def test_a_request_for_one_peer_is_understood(home: Callable[..., Home]) -> None:
    made = home(["pcp"])
    assert made.hosts[0].call(peer_request, LAN, SERVER) == (0, f"{PUBLIC}:40000", f"{SERVER}:443")


# The switch


def stay_silent(router_address: str) -> None:
    async def main() -> None:
        gateway = gateway_from(router_address)
        off = PortMapping(port=lambda: WG_PORT, gateways=lambda: [gateway], enabled=lambda: False)
        async with off:
            for _ in range(20):
                off.refresh()
                await asyncio.sleep(0.05)

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="not installed: tcpdump")
def test_switched_off_tcpdump_sees_nothing(home: Callable[..., Home]) -> None:
    made = home(["pcp", "nat-pmp", "upnp"])
    host = made.hosts[0]

    def asked() -> str:
        capture = "src host 192.168.8.10 and udp and (port 1900 or port 5350 or port 5351)"
        return host.run(["tcpdump", "-nr", str(taken.path), capture]).stdout

    taken = host.capture("eth0")
    host.call(stay_silent, LAN)
    taken.stop()
    assert asked() == ""
    taken = host.capture("eth0")
    holding = begin_holding(host, LAN)
    made.outside.call(call_in, PUBLIC, WG_PORT, timeout=90)
    holding.result(60)
    taken.stop()
    assert "192.168.8.1.5351" in asked(), "the capture does see what there is"


# Behind the NAT of a provider


def ask_and_compare(router_address: str, seen: str) -> tuple[list[str], list[str]]:
    """What is held after somebody outside has told ``seen``, and what was refused."""

    async def main() -> tuple[list[str], list[str]]:
        gateway = gateway_from(router_address)
        async with PortMapping(port=lambda: WG_PORT, gateways=lambda: [gateway]) as mapping:
            async with asyncio.timeout(60):
                await mapping.settled()
            mapping.observed(TransportAddress(ip_address(seen), 3333), gateway.source)
            held = [f"{one.address} verified={one.verified} double_nat={one.double_nat}" for one in mapping.mapped]
            return held, [problem.why for problem in mapping.problems]

    return asyncio.run(main())


@each_protocol
def test_what_a_router_behind_another_nat_claims_is_found_out(lab: Lab, protocols: list[Protocol]) -> None:
    internet = Internet(lab)
    internet.server("server")
    site = internet.site("home", "cgn")
    host = site.host("alice")
    seen, claimed = internet.address("home"), "45.99.9.9"
    gateway = start_gateway(site.router, lan=INSIDE, wan=OUTSIDE, protocols=protocols)
    held, problems = host.call(ask_and_compare, site.gateway(4), seen)
    assert held == []
    assert len(problems) == 1
    gateway.stop()
    start_gateway(site.router, lan=INSIDE, wan=OUTSIDE, protocols=protocols, public_address=claimed)
    held, problems = host.call(ask_and_compare, site.gateway(4), seen)
    assert held == [f"{claimed}:{WG_PORT} verified=False double_nat=True"]
