"""What a policy means, and that its prefixes mean the same."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policy_flows import FLOWS, HOME, MEMBERS, RULES, SERVICES, V6, A, B, rule, spec
from warren.model.documents import NetworkSpec, Rule
from warren.model.members import Member
from warren.model.policy import DEFAULT_POLICY, Flow, ResolvedRule, Verdict, resolve, verdict, without_nested
from warren.model.serving import serving
from warren.model.tunnel import IPAddress, IPNetwork


def flow(source: object, destination: object, protocol: str = "tcp", port: int | None = 80) -> Flow:
    return Flow(ip_address(str(source)), ip_address(str(destination)), protocol, port)  # type: ignore[arg-type]


def passes(policy: NetworkSpec, *arguments: Any) -> bool:
    """By the policy, and by its prefixes, which must say the same."""
    asked = flow(*arguments)
    answer = verdict(policy, MEMBERS, asked)
    assert by_prefixes(resolve(policy, MEMBERS), asked) == answer
    return answer.allowed


def test_without_a_rule_nothing_passes() -> None:
    assert verdict(spec(), MEMBERS, flow(A.address6, B.address6)) == Verdict(allowed=False, rule=None)
    assert resolve(spec(), MEMBERS) == ()


def test_a_fresh_network_lets_members_reach_each_other_and_nothing_else() -> None:
    fresh = spec(*DEFAULT_POLICY)
    assert verdict(fresh, MEMBERS, flow(A.address6, B.address6)) == Verdict(allowed=True, rule=0)
    assert passes(fresh, A.address4, B.address4, "icmp", None)
    assert passes(fresh, A.prefix6[77], V6.address6, "udp", 53)
    assert not passes(fresh, A.address4, "192.168.9.1")
    assert not passes(fresh, "192.168.9.1", A.address4)
    assert not passes(fresh, A.address6, "2001:db8:9::1")
    assert not passes(fresh, HOME.prefix6[1], A.address6)
    assert not passes(fresh, A.address6, f"{HOME.plan.prefix(99)[1]}")
    assert not passes(fresh, "10.77.0.99", A.address4)


def test_the_first_rule_that_matches_decides() -> None:
    deny, allow = rule("deny", "tag:web", "member:v6"), rule("allow", "members", "members")
    question = flow(B.address6, V6.address6)
    assert verdict(spec(deny, allow), MEMBERS, question) == Verdict(allowed=False, rule=0)
    assert verdict(spec(allow, deny), MEMBERS, question) == Verdict(allowed=True, rule=0)
    assert verdict(spec(deny, allow), MEMBERS, flow(V6.address6, B.address6)) == Verdict(allowed=True, rule=1)


@pytest.mark.parametrize(
    ("selector", "matched"),
    [
        ("members", {"a", "b", "v6"}),
        ("member:a", {"a"}),
        ("member:c", set()),
        ("tag:web", {"a", "b"}),
        ("tag:admin", {"a"}),
        ("tag:we", set()),
        ("::/0", {"a", "b", "v6"}),
        ("0.0.0.0/0", set()),
        (str(B.prefix6), {"b"}),
        (str(HOME.prefix6), {"a", "b", "v6"}),
        (f"{B.address6}/128", {"b"}),
    ],
)
def test_selectors_stand_for_members(selector: str, matched: set[str]) -> None:
    for policy, both in (
        (spec(rule("allow", selector, "members")), lambda m: (m.address6, A.address6)),
        (spec(rule("allow", "members", selector)), lambda m: (A.address6, m.address6)),
    ):
        assert {member.name for member in MEMBERS if passes(policy, *both(member))} == matched


def test_a_subnet_behind_a_member_is_reached_by_its_prefix_only() -> None:
    by_name = spec(rule("allow", "members", "member:b tag:web members"))
    assert not passes(by_name, A.address4, "192.168.9.7")
    assert passes(spec(rule("allow", "members", "192.168.9.0/24")), A.address4, "192.168.9.7")
    assert passes(spec(rule("allow", "192.168.0.0/16", "member:a")), "192.168.9.7", A.address4)


@pytest.mark.parametrize(
    ("protocol", "ports", "asked", "port", "matches"),
    [
        ("any", (), "tcp", 1, True),
        ("any", (), "icmp", None, True),
        ("tcp", (), "tcp", None, True),
        ("tcp", (), "udp", 22, False),
        ("icmp", (), "icmp", None, True),
        ("icmp", (), "tcp", 22, False),
        ("tcp", ("22", "8000-8100"), "tcp", 22, True),
        ("tcp", ("22", "8000-8100"), "tcp", 8000, True),
        ("tcp", ("22", "8000-8100"), "tcp", 8100, True),
        ("tcp", ("22", "8000-8100"), "tcp", 8101, False),
        ("tcp", ("22", "8000-8100"), "tcp", 7999, False),
        ("tcp", ("22", "8000-8100"), "udp", 22, False),
        ("tcp", ("22",), "tcp", None, False),
        ("udp", ("53",), "udp", 53, True),
    ],
)
def test_protocols_and_ports(
    protocol: str, ports: tuple[str, ...], asked: str, port: int | None, matches: bool
) -> None:
    policy = spec(rule("allow", "members", "members", protocol, *ports))
    assert passes(policy, A.address6, B.address6, asked, port) is matches


def test_a_flow_between_the_families_is_none() -> None:
    policy = spec(rule("allow", "0.0.0.0/0 ::/0 members", "0.0.0.0/0 ::/0 members"))
    assert verdict(policy, MEMBERS, flow(A.address4, B.address6)) == Verdict(allowed=False, rule=None)
    assert verdict(policy, MEMBERS, flow(A.address6, B.address4)) == Verdict(allowed=False, rule=None)


def test_a_mapped_address_is_not_the_members() -> None:
    policy = spec(rule("allow", "members", "members"))
    assert A.address4 is not None
    assert not passes(policy, IPv6Address(f"::ffff:{A.address4}"), B.address6)


def test_who_is_not_given_is_nobody() -> None:
    policy = spec(rule("allow", "members", "members"))
    assert not verdict(policy, (B,), flow(A.address6, B.address6)).allowed
    (resolved,) = resolve(policy, (B,))
    assert A.prefix6 not in resolved.sources


# Services


@pytest.mark.parametrize(
    ("selector", "served"),
    [
        ("service:page", {("a", "page"), ("b", "page")}),
        ("service:files", {("a", "files"), ("v6", "files")}),
        ("service:idle", set()),
        ("service:x", set()),
        ("member:b", {("b", "page"), ("b", "dns")}),
        ("tag:admin", {("a", "page"), ("a", "files")}),
        (f"{B.service_address('dns')}/128", {("b", "dns")}),
    ],
)
def test_a_service_is_reached_by_its_name_or_as_what_is_its_members(
    selector: str, served: set[tuple[str, str]]
) -> None:
    policy = spec(rule("allow", "members", selector))
    places = [(m, one) for m in MEMBERS for one in SERVICES if m in serving(policy, MEMBERS, one.name)]
    found = {(m.name, one.name) for m, one in places if passes(policy, V6.address6, m.service_address(one.name))}
    assert found == served


def test_a_rule_about_a_service_is_about_nothing_else_of_its_member() -> None:
    policy = spec(rule("allow", "members", "service:page service:idle"))
    for address in (
        A.address6,
        A.address4,
        A.service_address("files"),
        A.service_address("idle"),
        V6.service_address("page"),
    ):
        assert not passes(policy, B.address4 if address == A.address4 else B.address6, address)


@pytest.mark.parametrize(
    ("rules", "service", "protocol", "port", "allowed"),
    [
        ([("allow", "21")], "files", "tcp", 21, True),
        ([("allow", "21")], "files", "tcp", 49_152, True),
        ([("allow", "21")], "files", "tcp", 65_535, True),
        ([("allow", "21")], "files", "tcp", 49_151, False),
        ([("allow", "21")], "files", "udp", 49_152, False),
        ([("allow", "21")], "page", "tcp", 49_152, False),
        ([("allow", "80")], "files", "tcp", 49_152, False),
        ([("allow", "20-22")], "files", "tcp", 65_534, True),
        ([("deny", "21"), ("allow", "1-65535")], "files", "tcp", 50_000, False),
        ([("deny", "22"), ("allow", "1-65535")], "files", "tcp", 50_000, True),
        ([("deny", "50000"), ("allow", "21")], "files", "tcp", 50_000, False),
        ([("allow", "50000")], "files", "tcp", 50_000, True),
        ([("allow", "50000")], "files", "tcp", 50_001, False),
    ],
)
def test_what_is_said_of_a_services_port_is_said_of_its_high_ports(
    rules: list[tuple[str, str]], service: str, protocol: str, port: int, allowed: bool
) -> None:
    policy = spec(*(rule(action, "members", "members", "tcp", ports) for action, ports in rules))
    assert passes(policy, B.address6, A.service_address(service), protocol, port) is allowed
    assert not passes(spec(rule("allow", "members", "members", "tcp", "21")), B.address6, A.address6, "tcp", 50_000)


def test_udp_has_high_ports_of_its_own() -> None:
    policy = spec(rule("allow", "members", "service:dns service:files", "udp", "53", "21"))
    assert passes(policy, A.address6, B.service_address("dns"), "udp", 60_000)
    assert not passes(policy, A.address6, B.service_address("dns"), "tcp", 60_000)
    assert not passes(policy, B.address6, A.service_address("files"), "udp", 60_000), "it speaks TCP"


def test_high_ports_are_those_at_members_that_the_rule_is_about() -> None:
    policy = spec(rule("allow", "members", "member:a", "tcp", "80"))
    assert passes(policy, V6.address6, A.service_address("page"), "tcp", 60_000)
    assert not passes(policy, V6.address6, B.service_address("page"), "tcp", 60_000)


def test_a_service_that_a_member_does_not_serve_has_no_high_ports_there() -> None:
    policy = spec(rule("allow", "members", "members", "tcp", "80"))
    assert passes(policy, V6.address6, A.service_address("page"), "tcp", 60_000)
    assert not passes(policy, A.address6, V6.service_address("page"), "tcp", 60_000)
    assert passes(policy, A.address6, V6.service_address("page"), "tcp", 80), "an address of a member's like another"


def test_rules_about_ports_of_services_are_followed_by_one_about_their_high_ports() -> None:
    policy = spec(rule("allow", "member:v6", "members", "tcp", "80", "443"), rule("deny", "members", "members", "tcp"))
    first, derived, other = resolve(policy, MEMBERS)
    assert (derived.index, derived.action, derived.protocol) == (0, "allow", "tcp")
    assert derived.sources == first.sources
    assert derived.destinations == networks(f"{A.service_address('page')}/128", f"{B.service_address('page')}/128")
    assert derived.ports == ((49_152, 65_535),)
    assert other.index == 1


# Prefixes


def test_selectors_become_sorted_prefixes() -> None:
    policy = spec(
        rule("allow", "tag:web", "member:v6 192.168.9.0/24", "tcp", "22", "80-90"),
        rule("deny", f"members {HOME.prefix6}", "members", "icmp"),
    )
    assert resolve(policy, MEMBERS) == (
        ResolvedRule(
            0,
            "allow",
            networks(f"{A.address4}/32", f"{B.address4}/32", str(A.prefix6), str(B.prefix6)),
            networks("192.168.9.0/24", str(V6.prefix6)),
            "tcp",
            ((22, 22), (80, 90)),
        ),
        ResolvedRule(
            1,
            "deny",
            networks(f"{A.address4}/32", f"{B.address4}/32", str(HOME.prefix6)),
            networks(f"{A.address4}/32", f"{B.address4}/32", str(A.prefix6), str(B.prefix6), str(V6.prefix6)),
            "icmp",
            (),
        ),
    )


def networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


def test_a_rule_that_cannot_match_is_left_out_and_the_others_keep_their_numbers() -> None:
    policy = spec(
        rule("allow", "tag:nobody", "members"),
        rule("allow", "members", "member:nobody"),
        rule("allow", "10.0.0.0/8", "member:v6"),
        rule("allow", "members", "members"),
    )
    assert [resolved.index for resolved in resolve(policy, MEMBERS)] == [3]
    assert resolve(policy, ()) == ()


def test_nested_prefixes_are_left_out() -> None:
    texts = ("10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "11.0.0.0/8", "fd00::/8", "fd00::/64", "fc00::/8")
    assert without_nested(map(ip_network, texts)) == networks("10.0.0.0/8", "11.0.0.0/8", "fc00::/8", "fd00::/8")


def by_prefixes(rules: tuple[ResolvedRule, ...], asked: Flow) -> Verdict:
    """What an enforcement does that knows prefixes only."""
    for resolved in rules:
        if (
            within(asked.source, resolved.sources)
            and within(asked.destination, resolved.destinations)
            and asked.source.version == asked.destination.version
            and resolved.protocol in {"any", asked.protocol}
            and (not resolved.ports or any(asked.port in range(low, high + 1) for low, high in resolved.ports))
        ):
            return Verdict(resolved.action == "allow", resolved.index)
    return Verdict(allowed=False, rule=None)


def within(address: IPAddress, prefixes: tuple[IPNetwork, ...]) -> bool:
    return any(address in prefix for prefix in prefixes)


@given(
    rules=st.lists(RULES, max_size=5),
    asked=FLOWS,
    members=st.lists(st.sampled_from(MEMBERS), unique_by=lambda member: member.name),
)
def test_prefixes_mean_what_the_policy_means(rules: list[Rule], asked: Flow, members: list[Member]) -> None:
    policy = spec(*rules)
    resolved = resolve(policy, members)
    assert by_prefixes(resolved, asked) == verdict(policy, members, asked)
    for one in resolved:
        for side in (one.sources, one.destinations):
            assert side
            assert without_nested(side) == side
