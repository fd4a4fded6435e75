"""What a policy means, and that its prefixes mean the same."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import MadeNetwork
from warren.model.documents import NetworkSpec, Rule
from warren.model.members import Member
from warren.model.policy import DEFAULT_POLICY, Flow, ResolvedRule, Verdict, resolve, verdict, without_nested
from warren.model.tunnel import IPAddress, IPNetwork

HOME = MadeNetwork()
A = HOME.member("a", tags=("admin", "web"))
B = HOME.member("b", tags=("web",), routes=("192.168.9.0/24", "2001:db8:9::/48"))
V6 = HOME.member("v6", address4=None)
MEMBERS = (A, B, V6)


def spec(*rules: Rule) -> NetworkSpec:
    return HOME.spec(policy=rules).document


def rule(action: str, sources: str, destinations: str, protocol: str = "any", *ports: str) -> Rule:
    values: dict[str, Any] = {"action": action, "protocol": protocol, "ports": ports}
    return Rule(sources=tuple(sources.split()), destinations=tuple(destinations.split()), **values)


def flow(source: object, destination: object, protocol: str = "tcp", port: int | None = 80) -> Flow:
    return Flow(ip_address(str(source)), ip_address(str(destination)), protocol, port)  # type: ignore[arg-type]


def passes(policy: NetworkSpec, *arguments: Any) -> bool:
    return verdict(policy, MEMBERS, flow(*arguments)).allowed


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


SELECTORS = st.sampled_from(
    [
        *("members", "member:a", "member:b", "member:v6", "member:x", "tag:web", "tag:admin", "tag:x"),
        *("0.0.0.0/0", "::/0", "10.77.0.0/30", "10.77.0.2/32", "192.168.9.0/24", "2001:db8:9::/48"),
        *(str(HOME.prefix6), str(A.prefix6), f"{B.address6}/128", str(A.prefix6.supernet())),
    ]
)
PROTOCOLS = st.sampled_from(["any", "tcp", "udp", "icmp"]).flatmap(
    lambda protocol: st.tuples(
        st.just(protocol),
        st.lists(
            st.sampled_from(["1", "22", "20-25", "8000-8100", "65535"]), max_size=2 * (protocol in {"tcp", "udp"})
        ),
    )
)
RULES = st.builds(
    lambda action, sources, destinations, protocol: rule(
        action, " ".join(sources), " ".join(destinations), protocol[0], *protocol[1]
    ),
    st.sampled_from(["allow", "deny"]),
    st.lists(SELECTORS, min_size=1, max_size=3),
    st.lists(SELECTORS, min_size=1, max_size=3),
    PROTOCOLS,
)
ADDRESSES = st.sampled_from(
    [
        *(member.address6 for member in MEMBERS),
        *(member.address4 for member in MEMBERS if member.address4 is not None),
        *(member.prefix6[-1] for member in MEMBERS),
        *map(ip_address, ("10.77.0.0", "10.77.0.3", "192.168.9.9", "192.168.8.9", "8.8.8.8", "2001:db8:9::9", "::")),
        HOME.prefix6[0],
        HOME.plan.prefix(9)[1],
    ]
)
FLOWS = st.builds(
    Flow,
    ADDRESSES,
    ADDRESSES,
    st.sampled_from(["tcp", "udp", "icmp"]),
    st.sampled_from([None, 1, 21, 22, 26, 8000, 8101, 65_535]),
)


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
