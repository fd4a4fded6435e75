"""What the table of an overlay keeps shut besides the rules, and what it keeps open; by real packets."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.support.policy_cases import (
    HOST,
    LAN,
    LAPTOP,
    ME,
    MEMBERS,
    ONLY_22,
    OPEN,
    VERSIONS,
    allow,
    answered,
    datagram_arrives,
    deny,
    echo_to,
    has_flow,
    of_protocol,
    on_a_node,
    syn_to,
    udp_to,
)
from tests.support.policy_node import INTERFACE, STRANGER, PolicyNode, address, network
from tests.support.probes import ACK, ICMP4, ICMP6, RST, SYN, TCP, UDP, ip_packet, port_unreachable, tcp
from warren.l3.firewall import ruleset
from warren.lab import Lab
from warren.model.policy import Flow, resolve

LAN_OF_HOST = {4: "192.168.5.1", 6: "fd55::1"}
# Flows


def _an_open_flow_is_cut(node: PolicyNode, version: int) -> None:
    client = LAPTOP[version]
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as server:
        server.bind((ME[version], 22))
        server.listen()
        node.enforce(ONLY_22)
        node.drain()
        node.overlay.inject(syn_to(client, ME[version]))
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
            node.enforce((allow("members", "members", "tcp", "23"),))
            node.overlay.inject(segment(1004, b"two"))
            with pytest.raises(BlockingIOError):
                connection.recv(10)
            node.enforce(ONLY_22)
            node.overlay.inject(segment(1004, b"two"))
            assert connection.recv(10) == b"two"


def _replies_come_back(node: PolicyNode, version: int) -> None:
    node.enforce((deny("member:laptop", "member:me"), allow("member:me", "member:laptop", "udp", "5353")))
    with node.listen(7777) as ours:
        node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert not node.received(7777), "nobody asked for it"
        ours.sendto(b"", (_mapped(LAPTOP[version]), 5353))
        node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert node.received(7777)
        node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5354))
        assert not node.received(7777), "it is another flow"
        node.enforce((allow("member:me", "member:laptop", "udp", "5354"),))
        node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert not node.received(7777), "what it answers is forbidden now"


def _a_flow_that_was_forgotten_on_one_side_goes_on(node: PolicyNode, version: int) -> None:
    """A late answer of this node begins an entry of its own, which makes the other's permitted packets answers."""
    policy = (deny("member:me", "member:laptop"), allow("member:laptop", "member:me", "udp", "7777"))
    node.enforce(policy)
    with node.listen(7777) as ours:
        ours.sendto(b"", (_mapped(LAPTOP[version]), 5353))
        node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5353))
        assert node.received(7777)
        node.refuse(policy)
        node.drain()
        ours.sendto(b"", (_mapped(LAPTOP[version]), 5353))
        assert len(of_protocol(node.overlay.sent(), UDP)) == 1, "nobody is told that it may not"
        node.refuse(policy[:1])
        with pytest.raises(PermissionError):
            ours.sendto(b"", (_mapped(LAPTOP[version]), 5353))


def _answers_end_with_what_they_answer(node: PolicyNode, version: int) -> None:
    """However wide is what this node may open by itself."""
    opened = (allow("members", "members"), allow("192.168.5.0/24 fd55::/64", "members"))
    forbidden = (deny("member:laptop", f"members {' '.join(map(str, node.own.routes))}", "udp", "53"), *opened)
    permitted = (allow("member:laptop", f"members {' '.join(map(str, node.own.routes))}", "udp", "53"), *opened)
    with node.listen(53) as ours:
        for policy, sent in ((permitted, 1), (forbidden, 0), (permitted, 1), (opened[1:], 0)):
            node.enforce(policy)
            for to in (ME, LAN):
                node.overlay.inject(udp_to(LAPTOP[version], to[version], 53))
            assert node.received(53) == bool(sent)
            assert len(of_protocol(node.lan.sent(), UDP)) == sent
            node.drain()
            with contextlib.nullcontext() if sent else pytest.raises(PermissionError):
                ours.sendto(b"", (_mapped(LAPTOP[version]), 40_000))
            node.lan.inject(udp_to(LAN[version], LAPTOP[version], 40_000, source_port=53))
            assert len(of_protocol(node.overlay.sent(), UDP)) == 2 * sent


def _mapped(address: str) -> str:
    return f"::ffff:{address}" if "." in address else address


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
        other = udp_to(ME[version], LAPTOP[version], 5354, source_port=port)
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
        for policy in (None, ()):
            node.enforce(policy)
            ours.sendto(b"", (_mapped(LAPTOP[version]), 5353))
            node.overlay.inject(udp_to(LAPTOP[version], ME[version], 7777, source_port=5353))
            assert not node.received(7777)


def _a_flow_of_the_subnet_is_answered(node: PolicyNode, version: int) -> None:
    """In both directions: to a host behind this node, and from it."""
    lan, laptop = LAN[version], LAPTOP[version]
    node.enforce((allow("member:laptop", "192.168.5.0/24 fd55::/64", "tcp", "80"),))
    node.drain()
    node.overlay.inject(syn_to(laptop, lan, 80))
    assert len(of_protocol(node.lan.sent(), TCP)) == 1
    answer = tcp(lan, laptop, 40_000, source_port=80, flags=SYN | ACK, acknowledge=1001)
    node.lan.inject(ip_packet(lan, laptop, TCP, answer))
    assert len(of_protocol(node.overlay.sent(), TCP)) == 1
    node.lan.inject(ip_packet(lan, laptop, TCP, tcp(lan, laptop, 40_001, source_port=80, flags=SYN | ACK)))
    assert not of_protocol(node.overlay.sent(), TCP), "it answers nothing"
    node.enforce((allow("192.168.5.0/24 fd55::/64", "member:laptop", "tcp", "80"),))
    node.lan.inject(syn_to(lan, laptop, 80, 40_002))
    assert len(of_protocol(node.overlay.sent(), TCP)) == 1
    node.overlay.inject(
        ip_packet(laptop, lan, TCP, tcp(laptop, lan, 40_002, source_port=80, flags=SYN | ACK, acknowledge=1001))
    )
    assert len(of_protocol(node.lan.sent(), TCP)) == 1


def _a_subnet_that_is_offered_no_more_is_shut(node: PolicyNode, version: int) -> None:
    """For its open flows too, whatever else is still offered."""
    lan, laptop = LAN[version], LAPTOP[version]
    node.enforce(OPEN)
    node.drain()
    node.overlay.inject(syn_to(laptop, lan, 80))
    assert len(of_protocol(node.lan.sent(), TCP)) == 1
    answer = ip_packet(lan, laptop, TCP, tcp(lan, laptop, 40_000, source_port=80, flags=SYN | ACK, acknowledge=1001))
    node.lan.inject(answer)
    assert len(of_protocol(node.overlay.sent(), TCP)) == 1
    left = tuple(route for route in node.own.routes if route.version != version)
    node.nft.run(ruleset(INTERFACE, replace(node.own, routes=left), resolve(network(OPEN), MEMBERS)))
    node.lan.inject(answer)
    node.lan.inject(syn_to(lan, laptop))
    assert not of_protocol(node.overlay.sent(), TCP)
    node.overlay.inject(syn_to(laptop, lan, 80))
    assert not of_protocol(node.lan.sent(), TCP)


def _this_side_is_told_what_is_forbidden_now(node: PolicyNode, version: int) -> None:
    """A host behind by a reset or ICMP, a program by its call; never the overlay, nor who only tries."""
    lan, laptop, me = LAN[version], LAPTOP[version], ME[version]
    behind = "192.168.5.0/24 fd55::/64"
    node.enforce((allow(behind, "members"), allow("members", f"members {behind}")))
    segment = ip_packet(lan, laptop, TCP, tcp(lan, laptop, 80, flags=ACK, sequence=1001, acknowledge=2001))
    answer = ip_packet(
        laptop, lan, TCP, tcp(laptop, lan, 40_000, source_port=80, flags=SYN | ACK, sequence=2000, acknowledge=1001)
    )
    datagram, back = udp_to(lan, laptop), udp_to(laptop, lan, 40_000, source_port=53)
    for tun, packet in ((node.lan, syn_to(lan, laptop, 80)), (node.overlay, answer), (node.lan, segment)):
        tun.inject(packet)
    for tun, packet in ((node.lan, datagram), (node.overlay, back), (node.lan, datagram)):
        tun.inject(packet)
    icmp = ICMP6 if version == 6 else ICMP4
    with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.setblocking(False)
        ours.bind((me, 7777))
        ours.connect((laptop, 5353))
        ours.send(b"")
        node.overlay.inject(udp_to(laptop, me, 7777, source_port=5353))
        node.overlay.inject(udp_to(laptop, me, 7777, source_port=5353))
        assert (ours.recv(10), ours.recv(10)) == (b"", b"")
        node.drain()

        node.refuse((allow("members", "members", "icmp"),))
        with pytest.raises(PermissionError):
            ours.send(b"")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in {errno.EACCES, errno.EHOSTUNREACH}
        node.lan.inject(segment)
        (told,) = of_protocol(node.lan.sent(), TCP)
        assert has_flow([told], Flow(ip_address(laptop), ip_address(lan), "tcp"))
        assert told[(40 if version == 6 else 20) + 13] & RST
        node.lan.inject(datagram)
        (told,) = of_protocol(node.lan.sent(), icmp)
        assert tuple(told[40:42] if version == 6 else told[20:22]) == ((1, 1) if version == 6 else (3, 13))
        for packet in (answer, back, udp_to(laptop, me, 7777, source_port=5353)):
            node.overlay.inject(packet)
        node.lan.inject(syn_to(lan, laptop, 80, 40_009))
        node.underlay.inject(syn_to(STRANGER[version], laptop, 80, 40_009))
        sent = node.lan.sent() + node.overlay.sent() + node.underlay.sent()
        assert not [one for one in sent if one[24 if version == 6 else 16] not in {0xFF, 224}], "but multicast"

        node.refuse((allow(behind, "members", "udp"), allow("members", "members", "udp")))
        ours.send(b"")
        node.lan.inject(datagram)
        assert len(of_protocol(node.overlay.sent(), UDP)) == 2, "what is permitted again goes on"


def _whom_this_host_answers_for_is_told_as_well(node: PolicyNode, version: int) -> None:
    """Behind a masquerade towards the LAN; but not where the overlay would see another address than is known here."""
    lan, laptop, host = LAN[version], LAPTOP[version], LAN_OF_HOST[version]
    behind = "192.168.5.0/24 fd55::/64"
    family = "ip" if version == 4 else "ip6"
    text = f"""table {family} masked {{ chain out {{ type nat hook postrouting priority srcnat;
        oifname lan masquerade
        {family} saddr {lan} oifname {INTERFACE} snat to {ME[version]}
    }}\n}}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    node.enforce(OPEN)
    node.overlay.inject(syn_to(laptop, lan, 80))
    answer = tcp(lan, host, 40_000, source_port=80, flags=SYN | ACK, sequence=2000, acknowledge=1001)
    node.lan.inject(ip_packet(lan, host, TCP, answer))
    node.lan.inject(udp_to(lan, laptop))
    node.overlay.inject(udp_to(laptop, ME[version], 40_000, source_port=53))
    node.drain()

    node.refuse((allow("members", "members", "icmp"), deny("members", behind), allow("members", "members", "udp")))
    node.lan.inject(ip_packet(lan, host, TCP, answer))
    (told,) = of_protocol(node.lan.sent(), TCP)
    assert has_flow([told], Flow(ip_address(host), ip_address(lan), "tcp"))
    assert told[(40 if version == 6 else 20) + 13] & RST
    assert not of_protocol(node.overlay.sent(), TCP)
    node.lan.inject(udp_to(lan, laptop))
    assert len(of_protocol(node.overlay.sent(), UDP)) == 1, "that goes as this node's own, which may"


# Addresses


def _the_overlay_address_is_not_for_the_underlay(node: PolicyNode, version: int) -> None:
    """CVE-2019-14899, from a neighbour, from a spoofed member, and from an address of this host itself."""
    node.listen(53)
    node.enforce(OPEN)
    for tun in (node.underlay, node.lan):
        for source in (STRANGER[version], LAPTOP[version], HOST[version]):
            tun.inject(udp_to(source, ME[version]))
            assert not node.received(53), source
    assert datagram_arrives(node, udp_to(LAPTOP[version], ME[version]))


def _a_member_is_no_source_elsewhere(node: PolicyNode, version: int) -> None:
    """A service that trusts the overlay's range is not deceived. IPv4 blocks may be the underlay's too."""
    node.listen(53)
    node.enforce(OPEN)
    node.underlay.inject(udp_to(STRANGER[version], HOST[version]))
    assert node.received(53)
    node.underlay.inject(udp_to(LAPTOP[version], HOST[version]))
    assert node.received(53) == (version == 4)
    node.lan.inject(udp_to(LAN[version], HOST[version]))
    assert node.received(53), "the subnet behind is where it should be"


def _this_node_does_not_speak_to_itself_through_the_overlay(node: PolicyNode, version: int) -> None:
    node.enforce(OPEN)
    assert not datagram_arrives(node, udp_to(ME[version], LAN_OF_HOST[version]))
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
        tun.inject(syn_to(source[version], LAPTOP[version], source_port=41_000 + number))
        assert not of_protocol(node.overlay.sent(), TCP), (tun.name, source[version])
    node.lan.inject(syn_to(LAN[version], LAPTOP[version]))
    assert len(of_protocol(node.overlay.sent(), TCP)) == 1


def _other_addresses_of_the_host_are_out_of_reach(node: PolicyNode, version: int) -> None:
    node.enforce(OPEN)
    loopback = "127.0.0.1" if version == 4 else "::1"
    everyone = "224.0.0.1" if version == 4 else "ff02::1"
    for destination in (HOST[version], loopback, everyone, STRANGER[version]):
        assert not datagram_arrives(node, udp_to(LAPTOP[version], destination)), destination
        assert not answered(node, echo_to(LAPTOP[version], destination)), destination
    assert datagram_arrives(node, udp_to(LAPTOP[version], LAN_OF_HOST[version])), "that is in a subnet that it offers"


def _the_overlay_is_no_transit(node: PolicyNode, version: int) -> None:
    """Neither back into the overlay, nor into the underlay, nor out of it."""
    node.enforce(OPEN)
    node.drain()
    node.overlay.inject(syn_to(LAPTOP[version], address(3, version)))
    node.overlay.inject(syn_to(LAPTOP[version], HOST[version][:-1] + "9"))
    node.underlay.inject(syn_to(HOST[version][:-1] + "9", LAPTOP[version]))
    assert not of_protocol(node.overlay.sent() + node.underlay.sent(), TCP)


def _redirected_packets_are_judged_as_they_were_sent(node: PolicyNode, version: int) -> None:
    """Containers publish their ports so: the host translates the address before it filters."""
    family, inside = ("ip", "192.168.5.9") if version == 4 else ("ip6", "[fd55::9]")
    text = f"""table {family} published {{ chain in {{ type nat hook prerouting priority dstnat;
        tcp dport 8080 dnat to {inside}:80
    }}\n}}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    node.drain()
    for policy, passed in ((ONLY_22, 0), ((allow("members", "192.168.5.0/24 fd55::/64", "tcp", "80"),), 0)):
        node.enforce(policy)
        node.overlay.inject(syn_to(LAPTOP[version], ME[version], 8080))
        assert len(of_protocol(node.lan.sent(), TCP)) == passed
    node.enforce((allow("members", "members", "tcp", "8080"),))
    node.overlay.inject(syn_to(LAPTOP[version], ME[version], 8080, 40_001))
    (packet,) = of_protocol(node.lan.sent(), TCP)
    assert has_flow([packet], Flow(ip_address(LAPTOP[version]), ip_address(LAN[version]), "tcp"))


def _only_what_goes_as_ours_goes_out(node: PolicyNode, version: int) -> None:
    """A container reaches the overlay behind this node's own address, and not with its own."""
    node.enforce(ONLY_22)
    node.drain()
    container = "203.0.113.77" if version == 4 else "2001:db8::77"
    node.underlay.inject(syn_to(container, LAPTOP[version]))
    assert not of_protocol(node.overlay.sent(), TCP)
    family = "ip" if version == 4 else "ip6"
    text = f"""table {family} masked {{ chain out {{ type nat hook postrouting priority srcnat;
        {family} saddr {container} oifname {INTERFACE} snat to {ME[version]}
    }}\n}}"""
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    node.underlay.inject(syn_to(container, LAPTOP[version], source_port=40_001))
    assert len(of_protocol(node.overlay.sent(), TCP)) == 1
    answer = tcp(LAPTOP[version], ME[version], 40_001, source_port=22, flags=SYN | ACK, acknowledge=1001)
    node.overlay.inject(ip_packet(LAPTOP[version], ME[version], TCP, answer))
    assert len(of_protocol(node.underlay.sent(), TCP)) == 1, "its replies find the way back"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "check",
    [
        _an_open_flow_is_cut,
        _replies_come_back,
        _a_flow_that_was_forgotten_on_one_side_goes_on,
        _answers_end_with_what_they_answer,
        _errors_about_flows_come_back,
        _nothing_comes_back_without_a_policy,
        _a_flow_of_the_subnet_is_answered,
        _a_subnet_that_is_offered_no_more_is_shut,
        _this_side_is_told_what_is_forbidden_now,
        _whom_this_host_answers_for_is_told_as_well,
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
    lab.host("n").call(on_a_node, check, version)
