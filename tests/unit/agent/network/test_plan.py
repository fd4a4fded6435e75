"""The plan for the host: only what differs, in an order in which nothing is open or cut off on the way."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

import pytest

from warren.agent.network.plan import Add, Change, Item, Mtu, Policy, Remove, Up, observed_on, plan
from warren.linux.netlink_values import PROTOCOL_KERNEL, Address, Link, Route

IF = "w-home"
POLICY, OTHER_POLICY = Policy(IF, "wanted"), Policy(IF, "of before")
MTU, SMALL, UP = Mtu(IF, 1420), Mtu(IF, 1280), Up(IF)
A6, A4 = Address(IF, ip_interface("fd00::1/128")), Address(IF, ip_interface("10.0.0.1/32"))
R6, R4 = Route(ip_network("fd00::/48"), IF), Route(ip_network("10.0.0.0/16"), IF)
ALL: list[Item] = [R4, UP, A6, R6, MTU, A4, POLICY]


@pytest.mark.parametrize(
    ("desired", "observed", "changes"),
    [
        (ALL, [], [Add(POLICY), Add(MTU), Add(A6), Add(A4), Add(UP), Add(R4), Add(R6)]),
        (ALL, ALL, []),
        (ALL, [POLICY, MTU, A6, A4, UP, R6], [Add(R4)]),
        ([POLICY, MTU, UP, A6, R6], ALL, [Remove(R4), Remove(A4)]),
        ([POLICY, MTU, UP], [OTHER_POLICY, SMALL, UP], [Add(POLICY), Add(MTU)]),
        ([POLICY, MTU, A4, UP], [POLICY, MTU, A6, UP], [Add(A4), Remove(A6)]),
        ([], [POLICY, MTU, UP, A6], [Remove(A6)]),
        ([R6, R6], [], [Add(R6)]),
    ],
)
def test_what_turns_observed_into_desired(desired: list[Item], observed: list[Item], changes: list[Change]) -> None:
    assert plan(desired, observed) == changes


def test_carrying_out_a_plan_leaves_nothing_to_do() -> None:
    observed: set[Item] = {POLICY, A4}
    for change in plan([POLICY, A6], observed):
        observed = observed | {change.item} if isinstance(change, Add) else observed - {change.item}
    assert plan([POLICY, A6], observed) == []


def test_only_what_is_on_our_interface_is_seen_and_the_kernels_own_is_not() -> None:
    links = [Link("eth0", 1, True, 1500, 65535), Link(IF, 2, True, 1420, 65535)]
    addresses = [Address("eth0", ip_interface("192.0.2.1/24")), A6, Address(IF, ip_interface("fe80::1/64"))]
    routes = [
        Route(ip_network("0.0.0.0/0"), "eth0"),
        R6,
        Route(ip_network("fd00::1/128"), IF, protocol=PROTOCOL_KERNEL),
        Route(ip_network("ff00::/8"), IF),
    ]
    assert observed_on(IF, links, addresses, routes, "wanted") == {POLICY, MTU, UP, A6, R6}
    assert observed_on(IF, links, addresses, routes, None) == {MTU, UP, A6, R6}
    assert observed_on("w-gone", links, addresses, routes, None) == set()
