"""Extension headers, fragments, and the table itself as it is watched; by real packets."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.support.policy_cases import (
    EVERYTHING,
    HOST,
    LAN,
    LAPTOP,
    ME,
    MEMBERS,
    ONLY_22,
    OPEN,
    VERSIONS,
    allow,
    datagram_arrives,
    deny,
    has_flow,
    of_protocol,
    on_a_node,
    syn_to,
    udp_to,
)
from tests.support.policy_node import INTERFACE, PolicyNode, network
from tests.support.probes import (
    AUTHENTICATION,
    DESTINATION,
    HOP_BY_HOP,
    MOBILITY,
    OPTIONS,
    ROUTING,
    TCP,
    UDP,
    Header,
    fragment_header,
    fragments4,
    fragments6,
    ip_packet,
    udp,
)
from warren.l3.firewall import ruleset
from warren.l3.table import PolicyTable
from warren.lab import Lab
from warren.linux.nft import LibNft
from warren.model.policy import Flow, resolve

# Headers

NOT_53 = (deny(EVERYTHING, EVERYTHING, "udp", "53"), *OPEN)
ONLY_53 = (allow("members", "members", "udp", "53"),)
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
        assert not datagram_arrives(node, packet), name
        node.enforce(ONLY_53)
        assert datagram_arrives(node, packet), name


def _what_the_kernel_cannot_read_has_no_port(node: PolicyNode) -> None:
    """Passed on to the subnet behind, where somebody may read it in another way."""
    source, destination = LAPTOP[6], LAN[6]
    allows_53 = (allow("members", "fd55::/64", "udp", "53"),)
    for name, headers in UNREADABLE.items():
        packet = ip_packet(source, destination, UDP, udp(source, destination, 53), headers)
        node.enforce(allows_53)
        node.drain()
        node.overlay.inject(packet)
        assert not has_flow(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp")), name
    node.enforce(OPEN)
    node.overlay.inject(ip_packet(source, destination, UDP, b"", [Header(DESTINATION, b"")]))
    assert not has_flow(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp")), "no protocol at all"


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
            assert datagram_arrives(node, *pieces) == arrives
            assert datagram_arrives(node, *reversed(pieces)) == arrives


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
        assert not has_flow(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp"))
        node.overlay.inject(udp_to(source, destination, 54))
        assert has_flow(node.lan.sent(), Flow(ip_address(source), ip_address(destination), "udp"))


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
    lab.host("n").call(on_a_node, check)


# The table


def _drift_is_noticed(node: PolicyNode) -> None:
    rules = resolve(network((*ONLY_22, allow("10.7.0.2/32 10.7.0.4/32", "members"))), MEMBERS)
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
    _udp_comes = datagram_arrives(node, syn_to(LAPTOP[4], ME[4]))
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
        node.underlay.inject(syn_to(HOST[version][:-1] + "9", LAPTOP[version]))
        node.overlay.inject(syn_to(LAPTOP[version], HOST[version][:-1] + "9"))
        node.overlay.inject(syn_to(LAPTOP[version], HOST[version]))
        assert not of_protocol(node.overlay.sent() + node.underlay.sent(), TCP)
    table.remove()
    assert datagram_arrives(node, udp_to(LAPTOP[4], ME[4]))


@pytest.mark.parametrize(
    "check", [_drift_is_noticed, _two_networks_stay_apart], ids=lambda check: check.__name__.strip("_")
)
def test_the_table(lab: Lab, check: Callable[[PolicyNode], None]) -> None:
    lab.host("n").call(on_a_node, check)
