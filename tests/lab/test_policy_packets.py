"""Policies by real packets: what the kernel lets through is what the reference says, verdict by verdict."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from tests.support.policy_cases import EVERYTHING, LAN, ME, MEMBERS, allow, deny, has_flow, rule
from tests.support.policy_node import STRANGER, PolicyNode, address
from tests.support.probes import ICMP4, ICMP6, TCP, UDP, echo, ip_packet, tcp, udp
from warren.lab import Lab
from warren.model.documents import Rule
from warren.model.policy import DEFAULT_POLICY, Flow
from warren.model.services import Service

BEHIND_BRANCH = {4: "172.20.0.9", 6: "fd66::9"}
PORTS = (22, 53, 80, 8000, 8050, 8101)
KINDS = [("icmp", None), *((protocol, port) for protocol in ("tcp", "udp") for port in PORTS)]


def _members_workload(version: int) -> str:
    return address(3, 4) if version == 4 else address(3, 6).replace("::1", "::77")


def inbound_flows() -> Iterator[Flow]:
    """From every kind of source in the overlay to this node and to the subnet behind it."""
    for version in (4, 6):
        sources = [address(index, version) for index in (2, 3, 4, 5)]
        sources += [_members_workload(version), BEHIND_BRANCH[version], STRANGER[version]]
        for source, destination in itertools.product(sources, (ME[version], LAN[version])):
            yield from _kinds(source, destination)


def outbound_flows() -> Iterator[Flow]:
    """From the subnet behind this node to members and to the subnet behind another."""
    for version in (4, 6):
        for destination in (address(2, version), address(4, version), BEHIND_BRANCH[version]):
            yield from _kinds(LAN[version], destination)


def _kinds(source: str, destination: str) -> Iterator[Flow]:
    for protocol, port in KINDS:
        yield Flow(ip_address(source), ip_address(destination), protocol, port)


_numbers = itertools.count(1)


def packet_of(flow: Flow) -> bytes:
    """The first packet of a flow that was never before."""
    source, destination, number = str(flow.source), str(flow.destination), next(_numbers) % 60_000 + 1024
    if flow.protocol == "icmp":
        kind = ICMP4 if flow.source.version == 4 else ICMP6
        return ip_packet(source, destination, kind, echo(source, destination, identifier=number))
    assert flow.port is not None
    if flow.protocol == "tcp":
        return ip_packet(source, destination, TCP, tcp(source, destination, flow.port, source_port=number))
    return ip_packet(source, destination, UDP, udp(source, destination, flow.port, source_port=number))


def passes_in(node: PolicyNode, flow: Flow) -> bool:
    """Whether the flow's first packet, out of the overlay, reaches this node or goes on to the subnet behind it."""
    node.overlay.inject(packet_of(flow))
    answers, passed_on = node.overlay.sent(), node.lan.sent()
    if str(flow.destination) in LAN.values():
        return has_flow(passed_on, flow)
    if flow.protocol == "udp":
        assert flow.port is not None
        return node.received(flow.port)
    return has_flow(answers, Flow(flow.destination, flow.source, flow.protocol))


def passes_out(node: PolicyNode, flow: Flow) -> bool:
    node.lan.inject(packet_of(flow))
    return has_flow(node.overlay.sent(), flow)


POLICIES: dict[str, tuple[Rule, ...]] = {
    "nothing": (),
    "only a deny": (deny("members", "members"),),
    "what a fresh network has": DEFAULT_POLICY,
    "everything": (allow(EVERYTHING, EVERYTHING),),
    "one port of one protocol": (allow("members", "members", "tcp", "22"),),
    "ports and ranges that touch": (allow("members", "members", "udp", "53 8000-8049 8050-8100"),),
    "icmp alone": (allow("members", "members", "icmp"),),
    "a protocol with all ports": (allow("members", "members", "udp"),),
    "a deny before an allow": (deny("tag:things", "members"), allow("members", "members")),
    "an allow before a deny": (allow("members", "members", "tcp", "80"), deny(EVERYTHING, EVERYTHING)),
    "a hole in a deny": (
        allow("member:printer", "member:me", "tcp", "80"),
        deny("member:printer", EVERYTHING),
        allow("members", "members"),
    ),
    "tags on both sides": (allow("tag:people", "tag:router", "tcp"), allow("tag:old", "tag:router", "udp", "53")),
    "a tag that nobody has": (deny("tag:ghosts", EVERYTHING), allow("tag:ghosts", "members")),
    "the subnet behind": (allow("tag:people", "192.168.5.0/24 fd55::/64", "tcp", "80"),),
    "part of the subnet behind": (allow("members", "192.168.5.8/30 fd55::8/125"), allow("members", "192.168.5.0/29")),
    "subnet to subnet": (
        allow("172.20.0.0/24 fd66::/64", "192.168.5.0/24 fd55::/64", "tcp", "22 80"),
        allow("192.168.5.0/24 fd55::/64", "172.20.0.0/24 fd66::/64", "icmp"),
    ),
    "the subnet behind to members": (allow("192.168.5.0/24 fd55::/64", "tag:people", "tcp"),),
    "one version of the IP": (allow("10.7.0.0/24", "10.7.0.1/32"),),
    "versions that do not meet": (allow("10.7.0.0/24", "fd11:2233:4455::/48"),),
    "one address against its neighbours": (
        deny("10.7.0.3/32", EVERYTHING),
        allow("10.7.0.2/31 10.7.0.4/31", "members"),
    ),
}


def random_policy(seed: int) -> tuple[Rule, ...]:
    chance = random.Random(seed)
    ends = ["members", "member:me", "member:laptop", "member:printer", "tag:people", "tag:router", "tag:old"]
    ends += ["tag:ghosts", "10.7.0.0/30", "fd11:2233:4455:2::/63", "192.168.5.0/24", "fd55::/64", "172.20.0.0/16"]
    ends += ["fd66::9/128", "0.0.0.0/0", "::/0"]
    rules = []
    for _ in range(chance.randint(1, 12)):
        protocol = chance.choice(["any", "tcp", "udp", "icmp"])
        choices = ["22", "53", "80", "8000-8100", "1-79", "8050-65535"]
        ports = chance.sample(choices, chance.randint(0, 3)) if protocol in {"tcp", "udp"} else []
        sources, destinations = (" ".join(chance.sample(ends, chance.randint(1, 3))) for _ in range(2))
        action = chance.choice(["allow", "allow", "deny"])
        rules.append(rule(action, sources, destinations, protocol, " ".join(ports)))
    return tuple(rules)


def _kernel_agrees(policies: list[tuple[Rule, ...]]) -> int:
    allowed = 0
    with PolicyNode(MEMBERS[0], MEMBERS) as node:
        for port in PORTS:
            node.listen(port)
        for policy in policies:
            node.enforce(policy)
            for passes, flows in ((passes_in, inbound_flows()), (passes_out, outbound_flows())):
                for flow in flows:
                    expected = node.expects(policy, flow)
                    allowed += expected
                    assert passes(node, flow) == expected, (flow, policy)
    return allowed


@pytest.mark.parametrize("name", POLICIES)
def test_the_kernel_agrees_with_the_reference(lab: Lab, name: str) -> None:
    allowed = lab.host("n").call(_kernel_agrees, [POLICIES[name]])
    assert bool(allowed) == (
        name not in {"nothing", "only a deny", "a tag that nobody has", "versions that do not meet"}
    )


def test_the_kernel_agrees_with_the_reference_on_policies_by_chance(lab: Lab) -> None:
    assert lab.host("n").call(_kernel_agrees, [random_policy(seed) for seed in range(40)]) > 1000


SERVICES = (
    Service(name="files", at=("tag:router",), target="localhost:21", helper="ftp"),
    Service(name="dns", at=("member:me",), target="localhost:53", protocol="udp"),
    Service(name="elsewhere", at=("tag:people",), target="localhost:21"),
)
SERVICE_PORTS = (21, 53, 49_151, 49_152, 65_535)
SERVICE_POLICIES = (
    (allow("tag:people", "service:files", "tcp", "21"),),
    (allow("members", "service:dns service:elsewhere", "udp", "53"),),
    (allow("members", "members", "tcp", "20-22"), allow("members", "members", "udp", "50000-65535")),
    (deny("member:phone", "service:files", "tcp", "21"), allow("members", "members")),
    (deny("tag:old", "service:files"), allow("members", "service:files")),
)


def _kernel_agrees_on_services() -> int:
    allowed = 0
    me = MEMBERS[0]
    places = [me.address6, *(me.service_address(service.name) for service in SERVICES)]
    kinds = [("icmp", None), *itertools.product(("tcp", "udp"), SERVICE_PORTS)]
    with PolicyNode(me, MEMBERS, SERVICES) as node:
        for port in SERVICE_PORTS:
            node.listen(port)
        for policy in SERVICE_POLICIES:
            node.enforce(policy)
            for index, place, (protocol, port) in itertools.product((2, 4, 5), places, kinds):
                flow = Flow(ip_address(address(index, 6)), place, protocol, port)  # type: ignore[arg-type]
                expected = node.expects(policy, flow) and place != places[-1]  # which it does not have
                allowed += expected
                assert passes_in(node, flow) == expected, (flow, policy)
    return allowed


def test_the_kernel_agrees_with_the_reference_about_services_and_their_high_ports(lab: Lab) -> None:
    assert lab.host("n").call(_kernel_agrees_on_services) > 50
