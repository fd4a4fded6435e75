"""What tests of policies by real packets share: the members, rules in short, packets, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Literal

from tests.support.policy_node import PolicyNode, address, member
from tests.support.probes import ICMP4, ICMP6, TCP, UDP, echo, ip_packet, tcp, udp
from warren.model.documents import Rule
from warren.model.policy import Flow

Protocol = Literal["any", "tcp", "udp", "icmp"]
VERSIONS = (4, 6)
LAPTOP = {version: address(2, version) for version in VERSIONS}
MEMBERS = (
    member(1, "me", ["router"], ["192.168.5.0/24", "fd55::/64"]),
    member(2, "laptop", ["people"]),
    member(3, "printer", ["things", "old"]),
    member(4, "branch", ["router", "old"], ["172.20.0.0/24", "fd66::/64"]),
    member(5, "phone", ["people", "old"]),
)
ME = {version: address(1, version) for version in (4, 6)}
HOST = {4: "203.0.113.1", 6: "2001:db8::1"}
"""Addresses of this node that are not the overlay's."""
LAN = {4: "192.168.5.9", 6: "fd55::9"}
EVERYTHING = "0.0.0.0/0 ::/0"


def allow(sources: str, destinations: str, protocol: Protocol = "any", ports: str = "") -> Rule:
    return rule("allow", sources, destinations, protocol, ports)


def deny(sources: str, destinations: str, protocol: Protocol = "any", ports: str = "") -> Rule:
    return rule("deny", sources, destinations, protocol, ports)


def rule(action: Literal["allow", "deny"], sources: str, destinations: str, protocol: Protocol, ports: str) -> Rule:
    return Rule(
        action=action,
        sources=tuple(sources.split()),
        destinations=tuple(destinations.split()),
        protocol=protocol,
        ports=tuple(ports.split()),
    )


OPEN = (allow(EVERYTHING, EVERYTHING),)
ONLY_22 = (allow("members", "members", "tcp", "22"),)


def has_flow(packets: list[bytes], flow: Flow) -> bool:
    ends = flow.source.packed + flow.destination.packed
    place = slice(12, 20) if flow.source.version == 4 else slice(8, 40)
    return any(packet[0] >> 4 == flow.source.version and packet[place] == ends for packet in packets)


def answered(node: PolicyNode, packet: bytes) -> bool:
    """Whether this node answers to a packet out of the overlay."""
    node.drain()
    node.overlay.inject(packet)
    version = packet[0] >> 4
    place = (slice(12, 16), slice(16, 20)) if version == 4 else (slice(8, 24), slice(24, 40))
    source, destination = (ip_address(packet[one]) for one in place)
    return has_flow(node.overlay.sent(), Flow(destination, source, "tcp"))


def datagram_arrives(node: PolicyNode, *packets: bytes, port: int = 53) -> bool:
    node.listen(port)
    for packet in packets:
        node.overlay.inject(packet)
    return node.received(port)


def syn_to(source: str, destination: str, port: int = 22, source_port: int = 40_000) -> bytes:
    return ip_packet(source, destination, TCP, tcp(source, destination, port, source_port=source_port))


def udp_to(source: str, destination: str, port: int = 53, source_port: int = 40_000) -> bytes:
    return ip_packet(source, destination, UDP, udp(source, destination, port, source_port=source_port))


def echo_to(source: str, destination: str) -> bytes:
    kind = ICMP4 if ip_address(source).version == 4 else ICMP6
    return ip_packet(source, destination, kind, echo(source, destination))


def of_protocol(packets: list[bytes], protocol: int) -> list[bytes]:
    return [packet for packet in packets if packet[6 if packet[0] >> 4 == 6 else 9] == protocol]


def on_a_node(check: Callable[..., None], *arguments: object) -> None:
    with PolicyNode(MEMBERS[0], MEMBERS) as node:
        check(node, *arguments)
