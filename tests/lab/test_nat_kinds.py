"""Each NAT kind does what its name says, in the judgement of coturn's ``turnutils_natdiscovery`` (RFC 5780)."""

from __future__ import annotations

import re
import shutil
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from warren.lab import Bridge, Host, Lab, Router
from warren.lab.coturn import start_coturn
from warren.lab.nat import KINDS, NatAllocation, NatKind

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not (shutil.which("turnserver") and shutil.which("turnutils_natdiscovery")), reason="not installed: coturn"
    ),
]
SERVER = ("203.0.113.1", "203.0.113.2")
INSIDE = "192.168.1.1"

WORDS = {
    "eim": "Endpoint Independent Mapping",
    "adm": "Address Dependent Mapping",
    "apdm": "Address and Port Dependent Mapping",
    "eif": "Endpoint Independent Filtering",
    "adf": "Address Dependent Filtering",
    "apdf": "Address and Port Dependent Filtering",
}
OTHERS = {
    "hairpin": NatKind("eim", "apdf", hairpin=True),
    "hairpin-full-cone": NatKind("eim", "eif", hairpin=True),
    "hairpin-symmetric": NatKind("apdm", "apdf", "random", hairpin=True),
    "hairpin-sequential": NatKind("eim", "adf", "sequential", hairpin=True),
    "open-symmetric": NatKind("apdm", "eif", "random"),
    "address-sequential": NatKind("adm", "apdf", "sequential"),
}


class Internet:
    """A server with the judge on two addresses, and sites with a host behind a NAT."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.switch: Bridge = lab.bridge("internet")
        self.server = lab.host("server")
        lab.attach(self.server, self.switch, *(f"{address}/24" for address in SERVER))
        start_coturn(self.server, SERVER)
        self.sites = 0

    def site(self, kind: NatKind | str) -> tuple[Host, Router]:
        self.sites += 1
        host, router = self.lab.host(f"host{self.sites}"), self.lab.router(f"router{self.sites}")
        self.lab.link(host, router, "192.168.1.10/24", f"{INSIDE}/24", interfaces=("eth0", "lan"))
        self.lab.attach(router, self.switch, f"203.0.113.{9 + self.sites}/24", interface="wan")
        host.route("default", via=INSIDE)
        router.nat("wan", kind)
        return host, router


@pytest.fixture
def internet(lab: Lab) -> Internet:
    return Internet(lab)


def judged(host: Host, *options: str) -> str:
    return host.run(["turnutils_natdiscovery", *options, SERVER[0]], timeout=60).stdout


def seen_ports(judgement: str) -> list[int]:
    return [int(port) for port in re.findall(r"UDP reflexive addr: [\d.]+:(\d+)", judgement)]


def judge(internet: Internet, kinds: Mapping[str, NatKind]) -> dict[str, tuple[str, str, bool]]:
    """Mapping, filtering and hairpin of each kind as judged; all at the same time, since silence takes seconds."""
    hosts = {name: internet.site(kind)[0] for name, kind in kinds.items()}
    behaviours = {name: host.begin(judged, host, "-m", "-f") for name, host in hosts.items()}
    hairpins = {name: host.begin(judged, host, "-H") for name, host in hosts.items()}
    results = {}
    for name in kinds:
        mapping, filtering = re.findall(r"NAT with (.*)!", behaviours[name].result(60))
        results[name] = (mapping, filtering, "successful hairpinning" in hairpins[name].result(60))
    return results


@pytest.mark.parametrize("kinds", [KINDS, OTHERS], ids=["named", "others"])
def test_every_kind_is_judged_to_be_what_it_claims(internet: Internet, kinds: Mapping[str, NatKind]) -> None:
    claims = {name: (WORDS[kind.mapping], WORDS[kind.filtering], kind.hairpin) for name, kind in kinds.items()}
    assert judge(internet, kinds) == claims


@pytest.mark.parametrize(
    "kind", [NatKind("eim", "eif", udp_lifetime_s=4), NatKind("apdm", "apdf", "random", udp_lifetime_s=4)]
)
def test_a_mapping_lives_as_long_as_it_says(internet: Internet, kind: NatKind) -> None:
    host, _ = internet.site(replace(kind, udp_lifetime_s=4))
    short, long = (host.begin(judged, host, "-t", "-T", str(seconds)) for seconds in (2, 7))
    assert short.result(60).count("UDP reflexive addr") == 2
    said = long.result(60)
    assert said.count("UDP reflexive addr") == 1
    assert "timeout" in said


def mapped(local_port: int, *servers: tuple[str, int]) -> list[tuple[str, int]]:
    """Where each server sees a socket with that port, by RFC 8489 Binding requests; ("", 0): no answer."""
    seen = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(15)
        asker.bind(("", local_port))
        for server in servers:
            asker.sendto(struct.pack("!HHI12s", 1, 0, 0x2112A442, b"123456789012"), server)
            try:
                answer = asker.recv(2048)
            except TimeoutError:
                seen.append(("", 0))
                continue
            at = answer.index(struct.pack("!HHH", 0x0020, 8, 1))  # XOR-MAPPED-ADDRESS, IPv4
            port, address = struct.unpack_from("!HI", answer, at + 6)
            seen.append((str(IPv4Address(address ^ 0x2112A442)), port ^ 0x2112))
    return seen


PLACES = [(SERVER[0], 3478), (SERVER[0], 3479), (SERVER[1], 3478)]


def test_sequential_ports_follow_each_other(internet: Internet) -> None:
    host, _ = internet.site("symmetric-sequential")
    ports = [port for _, port in host.call(mapped, 5000, *PLACES)]
    assert ports == [ports[0], ports[0] + 1, ports[0] + 2]
    assert [port for _, port in host.call(mapped, 5001, *PLACES)] == [ports[2] + 1, ports[2] + 2, ports[2] + 3]


def test_two_hosts_with_one_port_get_two_and_each_keeps_its_own(internet: Internet) -> None:
    first, router = internet.site("port-restricted")
    second = second_host(internet, router)
    assert {port for _, port in first.call(mapped, 5000, PLACES[0])} == {5000}
    ports = {port for _, port in second.call(mapped, 5000, *reversed(PLACES))}
    assert len(ports) == 1
    assert 5000 not in ports


def test_behind_linux_the_second_one_has_another_port_only_where_they_collide(internet: Internet) -> None:
    first, router = internet.site("linux")
    second = second_host(internet, router)
    assert {port for _, port in first.call(mapped, 5000, PLACES[0])} == {5000}
    alone, collided = (port for _, port in second.call(mapped, 5000, PLACES[2], PLACES[0]))
    assert collided != 5000
    assert alone == 5000


def second_host(internet: Internet, router: Router) -> Host:
    host = internet.lab.host("second")
    internet.lab.link(host, router, "192.168.2.10/24", "192.168.2.1/24", interfaces=("eth0", "lan2"))
    host.route("default", via="192.168.2.1")
    return host


@pytest.mark.parametrize("kind", ["port-restricted", "full-cone", "symmetric-sequential", "symmetric"])
def test_after_a_rebinding_the_same_socket_has_another_port(internet: Internet, kind: str) -> None:
    host, router = internet.site(kind)
    before = host.call(mapped, 5000, PLACES[0])
    router.rebind()
    between = host.call(mapped, 5000, PLACES[0])
    router.rebind("wan")
    after = host.call(mapped, 5000, PLACES[0])
    assert len({*before, *between, *after}) == 3
    assert judged(host, "-m").count(WORDS[KINDS[kind].mapping]) == 1


@pytest.mark.parametrize("kind", ["port-restricted", "full-cone", "address-symmetric", "symmetric-sequential"])
def test_one_port_is_rebound_and_the_others_keep_theirs(internet: Internet, kind: str) -> None:
    host, router = internet.site(kind)
    before, other = (host.call(mapped, port, PLACES[0]) for port in (5000, 5001))
    assert router.rebind_one("192.168.1.10", 5000) == 1
    after = host.call(mapped, 5000, PLACES[0])
    assert after != before
    assert host.call(mapped, 5001, PLACES[0]) == other
    if kind == "full-cone":
        assert heard(internet, host, 5000, after[0][1])
        assert not heard(internet, host, 5000, before[0][1], 0.5)
    assert router.rebind_one("192.168.1.10", 4999) == 0


def test_a_nat_that_forgets_gives_the_same_kind_of_mapping_again(internet: Internet) -> None:
    host, router = internet.site("full-cone")
    assert host.call(mapped, 5000, PLACES[0]) == [("203.0.113.10", 5000)]
    assert heard(internet, host, 5000)
    router.forget_flows()
    assert not heard(internet, host, 5000, within_s=0.5)
    assert host.call(mapped, 5000, PLACES[0]) == [("203.0.113.10", 5000)]
    assert heard(internet, host, 5000)


def heard(internet: Internet, host: Host, port: int, outer: int | None = None, within_s: float = 15.0) -> bool:
    """Whether what the server sends from a new port to the ``outer`` one at the site's address arrives inside."""
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", port))
        listener.settimeout(within_s)
        internet.server.call(_send, ("203.0.113.10", outer or port))
        try:
            return listener.recv(100) == b"hello"
        except TimeoutError:
            return False


def _send(target: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"hello", target)


def test_what_is_kept_out_gets_no_answer(internet: Internet) -> None:
    """Neither an ICMP message nor a reset: TCP's simultaneous open would end with one."""
    host, _ = internet.site("port-restricted")
    host.call(mapped, 5000, PLACES[0])
    capture = internet.server.capture("eth0")
    internet.server.call(_send, ("203.0.113.10", 5000))
    internet.server.call(_send, ("203.0.113.10", 5001))
    assert internet.server.call(_connect_error, ("203.0.113.10", 5000)) == "TimeoutError"
    answers = [packet for packet in capture.packets() if packet[26:30] == bytes([203, 0, 113, 10])]
    assert answers == []


def _connect_error(target: tuple[str, int]) -> str:
    try:
        socket.create_connection(target, 1).close()
    except OSError as error:
        return type(error).__name__
    return ""


def test_two_hosts_that_open_a_connection_at_once_meet_in_the_middle(internet: Internet) -> None:
    """RFC 5382 REQ-2: what TCP punching needs."""
    a, _ = internet.site("port-restricted")
    b, _ = internet.site("address-restricted")
    calls = [
        a.begin(_open_at_once, 5000, ("203.0.113.11", 6000)),
        b.begin(_open_at_once, 6000, ("203.0.113.10", 5000)),
    ]
    assert [call.result(60) for call in calls] == [b"hello", b"hello"]


def _open_at_once(port: int, target: tuple[str, int]) -> bytes:
    with socket.socket() as connection:
        connection.settimeout(40)
        connection.bind(("", port))
        connection.connect(target)
        connection.sendall(b"hello")
        return connection.recv(100)


@pytest.mark.parametrize("allocation", ["preserving", "random"])
def test_a_hairpinned_packet_comes_from_the_outer_address(internet: Internet, allocation: NatAllocation) -> None:
    first, router = internet.site(NatKind("eim", "apdf", allocation, hairpin=True))
    second = second_host(internet, router)
    (one,), (other,) = first.call(mapped, 5000, PLACES[0]), second.call(mapped, 6000, PLACES[0])
    assert one[0] == other[0] == "203.0.113.10"
    with first.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", 5000))
        listener.settimeout(15)
        second.call(_send_from, 6000, one)
        assert listener.recvfrom(100) == (b"hello", other)


def _send_from(port: int, target: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("", port))
        sender.sendto(b"hello", target)


def test_inner_addresses_are_not_reached_from_outside_even_with_a_route(internet: Internet) -> None:
    host, _ = internet.site("full-cone")
    internet.server.route("192.168.1.0/24", via="203.0.113.10")
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("", 5000))
        listener.settimeout(0.5)
        internet.server.call(_send, ("192.168.1.10", 5000))
        with pytest.raises(TimeoutError):
            listener.recv(100)
