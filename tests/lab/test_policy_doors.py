"""What the table of an overlay keeps shut besides the rules, and what it keeps open; by real packets."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.lab.test_policy_packets import EVERYTHING, LAN, ME, MEMBERS, _allow, _deny, _has
from tests.support.policy_node import INTERFACE, STRANGER, PolicyNode, address, network
from tests.support.probes import (
    ACK,
    AUTHENTICATION,
    DESTINATION,
    HOP_BY_HOP,
    ICMP4,
    ICMP6,
    MOBILITY,
    OPTIONS,
    ROUTING,
    SYN,
    TCP,
    UDP,
    Header,
    echo,
    fragment_header,
    fragments4,
    fragments6,
    ip_packet,
    port_unreachable,
    tcp,
    udp,
)
from warren.l3.firewall import ruleset
from warren.l3.table import PolicyTable
from warren.lab import Lab
from warren.linux.nft import LibNft
from warren.model.policy import Flow, resolve

VERSIONS = (4, 6)
LAPTOP = {version: address(2, version) for version in VERSIONS}
HOST = {4: "203.0.113.1", 6: "2001:db8::1"}
LAN_OF_HOST = {4: "192.168.5.1", 6: "fd55::1"}
OPEN = (_allow(EVERYTHING, EVERYTHING),)
ONLY_22 = (_allow("members", "members", "tcp", "22"),)


def _answered(node: PolicyNode, packet: bytes) -> bool:
    """Whether this node answers to a packet out of the overlay."""
    node.drain()
    node.overlay.inject(packet)
    version = packet[0] >> 4
    place = (slice(12, 16), slice(16, 20)) if version == 4 else (slice(8, 24), slice(24, 40))
    source, destination = (ip_address(packet[one]) for one in place)
    return _has(node.overlay.sent(), Flow(destination, source, "tcp"))


def _datagram_arrives(node: PolicyNode, *packets: bytes, port: int = 53) -> bool:
    node.listen(port)
    for packet in packets:
        node.overlay.inject(packet)
    return node.received(port)


def _syn(source: str, destination: str, port: int = 22, source_port: int = 40_000) -> bytes:
    return ip_packet(source, destination, TCP, tcp(source, destination, port, source_port=source_port))


def _udp(source: str, destination: str, port: int = 53, source_port: int = 40_000) -> bytes:
    return ip_packet(source, destination, UDP, udp(source, destination, port, source_port=source_port))


def _echo(source: str, destination: str) -> bytes:
    kind = ICMP4 if ip_address(source).version == 4 else ICMP6
    return ip_packet(source, destination, kind, echo(source, destination))


# Flows


def _an_open_flow_is_cut(node: PolicyNode, version: int) -> None:
    client = LAPTOP[version]
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as server:
        server.bind((ME[version], 22))
        server.listen()
        node.enforce(ONLY_22)
        node.drain()
        node.overlay.inject(_syn(client, ME[version]))
        (answer,) = (packet for packet in node.overlay.sent() if packet[6 if version == 6 else 9] == TCP)
        theirs = struct.unpack_from(">I", answer, (40 if version == 6 else 20) + 4)[0] + 1

        def segment(sequence: int, data: bytes = b"") -> bytes:
            payload = tcp(client, ME[version], 22, flags=ACK, sequence=sequence, acknowledge=theirs, data=data)
            return ip_packet(client, ME[version], TCP, payload)

        node.overlay.inject(segment(1001, b"one"))
        connection, _ = server.accept()
        with connection:
            connection.setblocking(False)
            assert connection.recv(10) == b"one"
            node.enforce((_allow("members", "members", "tcp", "23"),))
            node.overlay.inject(segment(1004, b"two"))
            with pytest.raises(BlockingIOError):
                connection.recv(10)
            node.enforce(ONLY_22)
            node.overlay.inject(segment(1004, b"two"))
            assert connection.recv(10) == b"two"


def _replies_come_back(node: PolicyNode, version: int) -> None:
    node.enforce((_deny("member:laptop", "member:me"), *ONLY_22))
    with node.listen(7777) as ours:
        node.overlay.inject(_udp(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert not node.received(7777), "nobody asked for it"
        mapped = f"::ffff:{LAPTOP[version]}" if version == 4 else LAPTOP[version]
        ours.sendto(b"", (mapped, 5353))
        node.overlay.inject(_udp(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert node.received(7777)
        node.overlay.inject(_udp(LAPTOP[version], ME[version], 7777, source_port=5354))
        assert not node.received(7777), "it is another flow"


def _errors_about_flows_come_back(node: PolicyNode, version: int) -> None:
    node.enforce(ONLY_22)
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as ours:
        ours.setblocking(False)
        ours.connect((LAPTOP[version], 5353))
        node.drain()
        ours.send(b"")
        (packet,) = node.overlay.sent()
        node.overlay.inject(port_unreachable(LAPTOP[version], packet))
        with pytest.raises(ConnectionRefusedError):
            ours.recv(10)
        port = struct.unpack_from(">H", packet, 40 if version == 6 else 20)[0]
        other = _udp(ME[version], LAPTOP[version], 5354, source_port=port)
        counted = _inbound_drops(node)
        node.overlay.inject(port_unreachable(LAPTOP[version], other))
        assert _inbound_drops(node) == counted + 1, "an error about nothing"


def _inbound_drops(node: PolicyNode) -> int:
    """Packets that came to the end of the chain: what is in front of it counts them from now on."""
    listed = node.nft.run([{"list": {"chain": {"family": "inet", "table": f"warren-{INTERFACE}", "name": "inbound"}}}])
    counters = [part for one in listed if "rule" in one for part in one["rule"]["expr"] if "counter" in part]
    if counters:
        packets: int = counters[0]["counter"]["packets"]
        return packets
    last = listed[-1]["rule"]["handle"]
    place = {"family": "inet", "table": f"warren-{INTERFACE}", "chain": "inbound", "handle": last}
    node.nft.run([{"insert": {"rule": {**place, "expr": [{"counter": None}]}}}])
    return 0


def _nothing_comes_back_without_a_policy(node: PolicyNode, version: int) -> None:
    with node.listen(7777) as ours:
        mapped = f"::ffff:{LAPTOP[version]}" if version == 4 else LAPTOP[version]
        for policy in (None, ()):
            node.enforce(policy)
            ours.sendto(b"", (mapped, 5353))
            node.overlay.inject(_udp(LAPTOP[version], ME[version], 7777, source_port=5353))
            assert not node.received(7777)


def _a_flow_of_the_subnet_is_answered(node: PolicyNode, version: int) -> None:
    """In both directions: to a host behind this node, and from it."""
    lan, laptop = LAN[version], LAPTOP[version]
    node.enforce((_allow("member:laptop", "192.168.5.0/24 fd55::/64", "tcp", "80"),))
    node.drain()
    node.overlay.inject(_syn(laptop, lan, 80))
    assert len(_of(node.lan.sent(), TCP)) == 1
    answer = tcp(lan, laptop, 40_000, source_port=80, flags=SYN | ACK, acknowledge=1001)
    node.lan.inject(ip_packet(lan, laptop, TCP, answer))
    assert len(_of(node.overlay.sent(), TCP)) == 1
    node.lan.inject(ip_packet(lan, laptop, TCP, tcp(lan, laptop, 40_001, source_port=80, flags=SYN | ACK)))
    assert not _of(node.overlay.sent(), TCP), "it answers nothing"
    node.enforce((_allow("192.168.5.0/24 fd55::/64", "member:laptop", "tcp", "80"),))
    node.lan.inject(_syn(lan, laptop, 80, 40_002))
    assert len(_of(node.overlay.sent(), TCP)) == 1
    node.overlay.inject(
        ip_packet(laptop, lan, TCP, tcp(laptop, lan, 40_002, source_port=80, flags=SYN | ACK, acknowledge=1001))
    )
    assert len(_of(node.lan.sent(), TCP)) == 1


def _a_subnet_that_is_offered_no_more_is_shut(node: PolicyNode, version: int) -> None:
    """For its open flows too, whatever else is still offered."""
    lan, laptop = LAN[version], LAPTOP[version]
    node.enforce(OPEN)
    node.drain()
    node.overlay.inject(_syn(laptop, lan, 80))
    assert len(_of(node.lan.sent(), TCP)) == 1
    answer = ip_packet(lan, laptop, TCP, tcp(lan, laptop, 40_000, source_port=80, flags=SYN | ACK, acknowledge=1001))
    node.lan.inject(answer)
    assert len(_of(node.overlay.sent(), TCP)) == 1
    left = tuple(route for route in node.own.routes if route.version != version)
    node.nft.run(ruleset(INTERFACE, replace(node.own, routes=left), resolve(network(OPEN), MEMBERS)))
    node.lan.inject(answer)
    node.lan.inject(_syn(lan, laptop))
    assert not _of(node.overlay.sent(), TCP)
    node.overlay.inject(_syn(laptop, lan, 80))
    assert not _of(node.lan.sent(), TCP)


def _of(packets: list[bytes], protocol: int) -> list[bytes]:
    return [packet for packet in packets if packet[6 if packet[0] >> 4 == 6 else 9] == protocol]


# Addresses


def _the_overlay_address_is_not_for_the_underlay(node: PolicyNode, version: int) -> None:
    """CVE-2019-14899, from a neighbour, from a spoofed member, and from an address of this host itself."""
    node.listen(53)
    node.enforce(OPEN)
    for tun in (node.underlay, node.lan):
        for source in (STRANGER[version], LAPTOP[version], HOST[version]):
            tun.inject(_udp(source, ME[version]))
            assert not node.received(53), source
    assert _datagram_arrives(node, _udp(LAPTOP[version], ME[version]))


def _a_member_is_no_source_elsewhere(node: PolicyNode, version: int) -> None:
    """A service that trusts the overlay's range is not deceived. IPv4 blocks may be the underlay's too."""
    node.listen(53)
    node.enforce(OPEN)
    node.underlay.inject(_udp(STRANGER[version], HOST[version]))
    assert node.received(53)
    node.underlay.inject(_udp(LAPTOP[version], HOST[version]))
    assert node.received(53) == (version == 4)
    node.lan.inject(_udp(LAN[version], HOST[version]))
    assert node.received(53), "the subnet behind is where it should be"


def _this_node_does_not_speak_to_itself_through_the_overlay(node: PolicyNode, version: int) -> None:
    node.enforce(OPEN)
    assert not _datagram_arrives(node, _udp(ME[version], LAN_OF_HOST[version]))
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as own:
        node.listen(53)
        own.bind((ME[version], 0))
        own.sendto(b"", (ME[version], 53))
        assert node.received(53), "but as it always could"


def _nobody_else_speaks_for_this_node_or_its_subnet(node: PolicyNode, version: int) -> None:
    """A host that passes packets on would send them into the overlay; the kernel sees through some of it in IPv4."""
    without_prefixes = replace(node.own, prefixes=())
    node.nft.run(ruleset(INTERFACE, without_prefixes, resolve(network(OPEN), MEMBERS)))
    node.drain()
    for number, (tun, source) in enumerate([(node.underlay, ME), (node.lan, ME), (node.underlay, LAN)]):
        tun.inject(_syn(source[version], LAPTOP[version], source_port=41_000 + number))
        assert not _of(node.overlay.sent(), TCP), (tun.name, source[version])
    node.lan.inject(_syn(LAN[version], LAPTOP[version]))
    assert len(_of(node.overlay.sent(), TCP)) == 1


def _other_addresses_of_the_host_are_out_of_reach(node: PolicyNode, version: int) -> None:
    node.enforce(OPEN)
    loopback = "127.0.0.1" if version == 4 else "::1"
    everyone = "224.0.0.1" if version == 4 else "ff02::1"
    for destination in (HOST[version], loopback, everyone, STRANGER[version]):
        assert not _datagram_arrives(node, _udp(LAPTOP[version], destination)), destination
        assert not _answered(node, _echo(LAPTOP[version], destination)), destination
    assert _datagram_arrives(node, _udp(LAPTOP[version], LAN_OF_HOST[version])), "that is in a subnet that it offers"


def _the_overlay_is_no_transit(node: PolicyNode, version: int) -> None:
    """Neither back into the overlay, nor into the underlay, nor out of it."""
    node.enforce(OPEN)
    node.drain()
    node.overlay.inject(_syn(LAPTOP[version], address(3, version)))
    node.overlay.inject(_syn(LAPTOP[version], HOST[version][:-1] + "9"))
    node.underlay.inject(_syn(HOST[version][:-1] + "9", LAPTOP[version]))
    assert not _of(node.overlay.sent() + node.underlay.sent(), TCP)


def _redirected_packets_are_judged_as_they_were_sent(node: PolicyNode, version: int) -> None:
    """Containers publish their ports so: the host translates the address before it filters."""
    family, inside = ("ip", "192.168.5.9") if version == 4 else ("ip6", "[fd55::9]")
    text = f"""table {family} published {{ chain in {{ type nat hook prerouting priority dstnat;
        tcp dport 8080 dnat to {inside}:80
    }}\n}}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    node.drain()
    for policy, passed in ((ONLY_22, 0), ((_allow("members", "192.168.5.0/24 fd55::/64", "tcp", "80"),), 0)):
        node.enforce(policy)
        node.overlay.inject(_syn(LAPTOP[version], ME[version], 8080))
        assert len(_of(node.lan.sent(), TCP)) == passed
    node.enforce((_allow("members", "members", "tcp", "8080"),))
    node.overlay.inject(_syn(LAPTOP[version], ME[version], 8080, 40_001))
    (packet,) = _of(node.lan.sent(), TCP)
    assert _has([packet], Flow(ip_address(LAPTOP[version]), ip_address(LAN[version]), "tcp"))


def _only_what_goes_as_ours_goes_out(node: PolicyNode, version: int) -> None:
    """A container reaches the overlay behind this node's own address, and not with its own."""
    node.enforce(ONLY_22)
    node.drain()
    container = "203.0.113.77" if version == 4 else "2001:db8::77"
    node.underlay.inject(_syn(container, LAPTOP[version]))
    assert not _of(node.overlay.sent(), TCP)
    family = "ip" if version == 4 else "ip6"
    text = f"""table {family} masked {{ chain out {{ type nat hook postrouting priority srcnat;
        {family} saddr {container} oifname {INTERFACE} snat to {ME[version]}
    }}\n}}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    node.underlay.inject(_syn(container, LAPTOP[version], source_port=40_001))
    assert len(_of(node.overlay.sent(), TCP)) == 1
    answer = tcp(LAPTOP[version], ME[version], 40_001, source_port=22, flags=SYN | ACK, acknowledge=1001)
    node.overlay.inject(ip_packet(LAPTOP[version], ME[version], TCP, answer))
    assert len(_of(node.underlay.sent(), TCP)) == 1, "its replies find the way back"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "check",
    [
        _an_open_flow_is_cut,
        _replies_come_back,
        _errors_about_flows_come_back,
        _nothing_comes_back_without_a_policy,
        _a_flow_of_the_subnet_is_answered,
        _a_subnet_that_is_offered_no_more_is_shut,
        _the_overlay_address_is_not_for_the_underlay,
        _a_member_is_no_source_elsewhere,
        _this_node_does_not_speak_to_itself_through_the_overlay,
        _nobody_else_speaks_for_this_node_or_its_subnet,
        _other_addresses_of_the_host_are_out_of_reach,
        _the_overlay_is_no_transit,
        _redirected_packets_are_judged_as_they_were_sent,
        _only_what_goes_as_ours_goes_out,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_at_the_door(lab: Lab, check: Callable[[PolicyNode, int], None], version: int) -> None:
    lab.host("n").call(_on_a_node, check, version)


def _on_a_node(check: Callable[..., None], *arguments: object) -> None:
    with PolicyNode(MEMBERS[0], MEMBERS) as node:
        check(node, *arguments)


# Headers

NOT_53 = (_deny(EVERYTHING, EVERYTHING, "udp", "53"), *OPEN)
ONLY_53 = (_allow("members", "members", "udp", "53"),)
CHAINS: dict[str, list[Header]] = {
    "none": [],
    "hop by hop": [Header(HOP_BY_HOP, OPTIONS)],
    "destination options": [Header(DESTINATION, OPTIONS)],
    "destination options twice": [Header(DESTINATION, OPTIONS)] * 2,
    "a segment routing header that is done": [Header(ROUTING, b"\0\x02\0\0\0\0\0")],
    "a whole fragment": [fragment_header(0, more=False)],
    "all in a row": [
        Header(HOP_BY_HOP, OPTIONS),
        Header(DESTINATION, OPTIONS),
        Header(ROUTING, b"\0\x02\0\0\0\0\0"),
        Header(DESTINATION, OPTIONS),
    ],
}
UNREADABLE: dict[str, list[Header]] = {
    "a header of unknown kind": [Header(MOBILITY, OPTIONS)],
    "an experimental header": [Header(253, OPTIONS)],
    "an authentication header": [Header(AUTHENTICATION, b"\x04" + bytes(22))],
    "a header longer than the packet": [Header(DESTINATION, b"\xff" + OPTIONS[1:])],
}


def _extension_headers_hide_no_port(node: PolicyNode) -> None:
    source, destination = LAPTOP[6], ME[6]
    for number, (name, headers) in enumerate(CHAINS.items()):
        packet = ip_packet(source, destination, UDP, udp(source, destination, 53, source_port=1000 + number), headers)
        node.enforce(NOT_53)
        assert not _datagram_arrives(node, packet), name
        node.enforce(ONLY_53)
        assert _datagram_arrives(node, packet), name


def _what_the_kernel_cannot_read_has_no_port(node: PolicyNode) -> None:
    """Passed on to the subnet behind, where somebody may read it in another way."""
    source, destination = LAPTOP[6], LAN[6]
    allows_53 = (_allow("members", "fd55::/64", "udp", "53"),)
    for name, headers in UNREADABLE.items():
        packet = ip_packet(source, destination, UDP, udp(source, destination, 53), headers)
        node.enforce(allows_53)
        node.drain()
        node.overlay.inject(packet)
        assert not _has(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp")), name
    node.enforce(OPEN)
    node.overlay.inject(ip_packet(source, destination, UDP, b"", [Header(DESTINATION, b"")]))
    assert not _has(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp")), "no protocol at all"


def _fragments_are_put_together_first(node: PolicyNode) -> None:
    for version in VERSIONS:
        source, destination = LAPTOP[version], ME[version]
        for number, (policy, arrives) in enumerate([(ONLY_53, True), (NOT_53, False)]):
            payload = udp(source, destination, 53, source_port=2000 + number, data=bytes(64))
            if version == 4:
                pieces = fragments4(ip_packet(source, destination, UDP, payload), 8)
            else:
                pieces = fragments6(source, destination, UDP, payload, 8, identification=number)
            node.enforce(policy)
            assert _datagram_arrives(node, *pieces) == arrives
            assert _datagram_arrives(node, *reversed(pieces)) == arrives


def _fragments_that_stay_apart_are_dropped(node: PolicyNode) -> None:
    """Where the host's own rules keep the kernel from putting them together."""
    apart = "table inet apart { chain early { type filter hook prerouting priority -450; notrack; }\n}"
    subprocess.run(["nft", "-f", "-"], input=apart, text=True, check=True)
    for policy, version in itertools.product((NOT_53, OPEN), VERSIONS):
        node.enforce(policy)
        source, destination = LAPTOP[version], LAN[version]
        payload = udp(source, destination, 53, data=bytes(64))
        if version == 4:
            pieces = fragments4(ip_packet(source, destination, UDP, payload), 8)
        else:
            pieces = fragments6(source, destination, UDP, payload, 8)
        node.drain()
        for piece in pieces:
            node.overlay.inject(piece)
        assert not _has(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp"))
        node.overlay.inject(_udp(source, destination, 54))
        assert _has(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp"))


@pytest.mark.parametrize(
    "check",
    [
        _extension_headers_hide_no_port,
        _what_the_kernel_cannot_read_has_no_port,
        _fragments_are_put_together_first,
        _fragments_that_stay_apart_are_dropped,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_headers(lab: Lab, check: Callable[[PolicyNode], None]) -> None:
    lab.host("n").call(_on_a_node, check)


# The table


def _drift_is_noticed(node: PolicyNode) -> None:
    rules = resolve(network((*ONLY_22, _allow("10.7.0.2/32 10.7.0.4/32", "members"))), MEMBERS)
    document = ruleset(INTERFACE, node.own, rules)
    table = PolicyTable(LibNft(), INTERFACE)
    assert not table.is_in_place(document)
    table.put(document)
    assert table.is_in_place(document)
    for interference in (
        f"insert rule inet warren-{INTERFACE} inbound accept",
        f"flush chain inet warren-{INTERFACE} inbound",
        f"delete table inet warren-{INTERFACE}",
        f"add table inet warren-{INTERFACE} {{ flags dormant; }}",
        f"add element inet warren-{INTERFACE} s0 {{ fd77::7 }}",
    ):
        subprocess.run(["nft", *interference.split(" ")], check=True)
        assert not table.is_in_place(document), interference
        table.put(document)
        assert table.is_in_place(document), interference
    assert not table.is_in_place(ruleset(INTERFACE, node.own, rules[:1]))
    assert not PolicyTable(LibNft(), INTERFACE).is_in_place(document), "another process left it there"
    _udp_comes = _datagram_arrives(node, _syn(LAPTOP[4], ME[4]))
    assert not _udp_comes
    assert table.is_in_place(document), "packets change nothing"
    table.remove()
    table.remove()
    assert not table.is_in_place(document)
    assert table.digest() is None


def _two_networks_stay_apart(node: PolicyNode) -> None:
    """A second overlay on the same node, with its own table; each lets in only its own, and neither passes on."""
    node.enforce(OPEN)
    table = PolicyTable(LibNft(), "uplink")
    other = resolve(network(ONLY_22), MEMBERS)
    table.put(ruleset("uplink", type(node.own)((ip_address(HOST[6]),), ip_address(HOST[4])), other))
    for version in VERSIONS:
        node.drain()
        node.underlay.inject(_syn(HOST[version][:-1] + "9", LAPTOP[version]))
        node.overlay.inject(_syn(LAPTOP[version], HOST[version][:-1] + "9"))
        node.overlay.inject(_syn(LAPTOP[version], HOST[version]))
        assert not _of(node.overlay.sent() + node.underlay.sent(), TCP)
    table.remove()
    assert _datagram_arrives(node, _udp(LAPTOP[4], ME[4]))


@pytest.mark.parametrize(
    "check", [_drift_is_noticed, _two_networks_stay_apart], ids=lambda check: check.__name__.strip("_")
)
def test_the_table(lab: Lab, check: Callable[[PolicyNode], None]) -> None:
    lab.host("n").call(_on_a_node, check)
