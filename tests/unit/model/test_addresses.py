"""The address plan: prefixes that follow from keys, indices given once, and claims that collide."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import signing_key
from warren.errors import OperationFailed
from warren.identity.signing import VerifyKey
from warren.model.addresses import (
    INDEX_MAX,
    AddressPlan,
    Claim,
    check_address4,
    check_prefix4,
    check_route,
    node_address,
    node_prefix,
    overlaps,
    ula_prefix,
)
from warren.model.tunnel import IPNetwork

PREFIX = IPv6Network("fd12:3456:789a::/48")


def test_the_prefix_of_a_key_never_changes() -> None:
    assert ula_prefix(VerifyKey(bytes(range(32)))) == IPv6Network("fd62:5f36:f247::/48")


@given(st.binary(min_size=32, max_size=32))
def test_a_network_has_locally_assigned_unique_addresses(raw: bytes) -> None:
    prefix = ula_prefix(VerifyKey(raw))
    assert prefix.prefixlen == 48
    assert prefix.subnet_of(IPv6Network("fd00::/8"))  # RFC 4193 §3.1: L is 1


def test_different_keys_have_different_prefixes() -> None:
    assert len({ula_prefix(signing_key(str(number)).verify_key) for number in range(200)}) == 200


def test_nodes_have_a_64_each_and_are_the_first_in_it() -> None:
    assert node_prefix(PREFIX, 1) == IPv6Network("fd12:3456:789a:1::/64")
    assert node_prefix(PREFIX, 65_535) == IPv6Network("fd12:3456:789a:ffff::/64")
    assert node_address(node_prefix(PREFIX, 0x2A)) == IPv6Address("fd12:3456:789a:2a::1")


@pytest.mark.parametrize("index", [-1, 0, 65_536])
def test_an_index_outside_the_plan_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        node_prefix(PREFIX, index)
    with pytest.raises(ValueError, match="1 to 65535"):
        AddressPlan(PREFIX).prefix(index)


def test_only_a_48_has_nodes() -> None:
    for text in ("fd12:3456:789a::/47", "fd12:3456:789a::/64"):
        with pytest.raises(ValueError, match="is not a /48"):
            node_prefix(IPv6Network(text), 1)
        with pytest.raises(ValueError, match="is not a /48"):
            AddressPlan(IPv6Network(text))


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "10.77.0.0/16", "172.16.0.0/12", "192.168.255.248/29", "100.64.0.0/10", "100.127.255.0/24"]
)
def test_blocks_that_a_network_may_have(text: str) -> None:
    check_prefix4(IPv4Network(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("8.8.8.0/24", "not private"),
        ("0.0.0.0/0", "not private"),
        ("8.0.0.0/7", "not private"),
        ("172.0.0.0/8", "not private"),
        ("100.128.0.0/16", "not private"),
        ("127.0.0.0/8", "not private"),
        ("169.254.0.0/16", "not private"),
        ("224.0.0.0/8", "not private"),
        ("10.0.0.0/30", "wrong size"),
        ("10.0.0.1/32", "wrong size"),
    ],
)
def test_blocks_that_a_network_may_not_have(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_prefix4(IPv4Network(text))
    with pytest.raises(ValueError, match=reason):
        AddressPlan(PREFIX, IPv4Network(text))


def test_an_address_is_private_or_shared() -> None:
    for text in ("10.0.0.1", "172.31.255.255", "192.168.0.0", "100.64.0.1"):
        check_address4(IPv4Address(text))
    for text in ("1.1.1.1", "127.0.0.1", "172.32.0.1", "169.254.0.1", "255.255.255.255", "0.0.0.0"):  # noqa: S104
        with pytest.raises(ValueError, match="not in private"):
            check_address4(IPv4Address(text))


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.0/8",
        "192.168.1.1/32",
        "8.8.8.0/24",
        "100.64.0.0/10",
        "2001:db8::/32",
        "2000::/3",
        "fd00::/8",
        "64:ff9b::/96",
    ],
)
def test_subnets_that_may_be_behind_a_member(text: str) -> None:
    check_route(ip_network(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.0.0.0/0", "everything"),
        ("::/0", "everything"),
        ("0.0.0.0/8", "this host"),
        ("0.0.0.0/1", "this host"),
        ("127.0.0.1/32", "loopback"),
        ("64.0.0.0/2", "loopback"),
        ("169.254.169.254/32", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("239.1.1.1/32", "multicast"),
        ("255.255.255.255/32", "reserved"),
        ("240.0.0.0/8", "reserved"),
        ("192.0.0.8/32", "protocols"),
        ("::/1", "loopback"),
        ("::1/128", "loopback"),
        ("::/128", "loopback"),
        ("::10.0.0.0/104", "IPv4-compatible"),
        ("::ffff:10.0.0.0/104", "IPv4-mapped"),
        ("::ffff:0:10.0.0.0/104", "IPv4-translated"),
        ("100::/64", "discarded"),
        ("fe80::/10", "link-local"),
        ("fe80::1/128", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff02::/16", "multicast"),
        ("8000::/1", "link-local"),
    ],
)
def test_subnets_that_can_be_behind_nobody(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_route(ip_network(text))


# The plan


def test_addresses_of_both_families_have_the_same_number() -> None:
    plan = AddressPlan(PREFIX, IPv4Network("10.77.0.0/16"))
    assert str(plan.address6(258)) == "fd12:3456:789a:102::1"
    assert str(plan.address4(258)) == "10.77.1.2"
    assert AddressPlan(PREFIX).address4(258) is None


@pytest.mark.parametrize(
    ("block", "greatest"),
    [(None, 65_535), ("10.0.0.0/29", 6), ("10.0.0.0/24", 254), ("10.77.0.0/16", 65_534), ("10.0.0.0/8", 65_535)],
)
def test_network_and_broadcast_address_are_nobodys(block: str | None, greatest: int) -> None:
    plan = AddressPlan(PREFIX, None if block is None else IPv4Network(block))
    assert plan.index_max == greatest
    if plan.prefix4 is not None:
        assert plan.address4(1) == plan.prefix4.network_address + 1
        assert plan.address4(greatest) != plan.prefix4.broadcast_address
    for index in (0, greatest + 1):
        with pytest.raises(ValueError, match="index is 1 to"):
            plan.address4(index)


@given(st.integers(1, 65_534))
def test_an_ipv4_address_lies_in_the_plan(index: int) -> None:
    address4 = AddressPlan(PREFIX, IPv4Network("10.77.0.0/16")).address4(index)
    assert address4 is not None
    assert address4 in IPv4Network("10.77.0.0/16")


def test_the_lowest_free_index_is_given() -> None:
    plan = AddressPlan(PREFIX)
    assert plan.allocate((), ()) == 1
    assert plan.allocate({1, 2, 4}, ()) == 3
    assert plan.allocate({1, 2, 4}, {3}) == 5
    assert plan.allocate([2], [1, 1]) == 3


def test_a_full_plan_says_what_to_do() -> None:
    plan = AddressPlan(PREFIX, IPv4Network("10.0.0.0/29"))
    with pytest.raises(OperationFailed, match=r"all 6 addresses of the network are taken: revoke members"):
        plan.allocate(range(1, 7), ())
    with pytest.raises(OperationFailed, match=r"taken or rest after their last use \(2 do\)"):
        plan.allocate(range(1, 5), (4, 5, 6))
    assert AddressPlan(PREFIX).allocate(range(1, INDEX_MAX), ()) == INDEX_MAX


@given(
    taken=st.sets(st.integers(1, 14), max_size=14),
    resting=st.sets(st.integers(1, 14), max_size=14),
)
def test_no_index_is_given_twice_or_while_it_rests(taken: set[int], resting: set[int]) -> None:
    plan = AddressPlan(PREFIX, IPv4Network("10.0.0.0/28"))
    given_out = []
    while len(taken | resting) < 14:
        index = plan.allocate(taken, resting)
        assert index not in taken | resting
        assert 1 <= index <= plan.index_max
        given_out.append(index)
        taken = taken | {index}
    assert given_out == sorted(given_out)
    with pytest.raises(OperationFailed):
        plan.allocate(taken, resting)


# Overlaps


def claims(*texts: str) -> list[Claim]:
    """``node a 10.0.0.0/8``."""
    found = []
    for text in texts:
        kind, owner, network = text.split()
        found.append(Claim(owner, kind, ip_network(network)))  # type: ignore[arg-type]
    return found


OWN = ("network home fd12:3456:789a::/48", "network home 10.77.0.0/16")


def test_a_network_as_it_should_be_has_no_overlaps() -> None:
    assert overlaps(()) == []
    assert (
        overlaps(
            claims(
                *OWN,
                "node a fd12:3456:789a:1::/64",
                "node a 10.77.0.1/32",
                "node b fd12:3456:789a:2::/64",
                "node b 10.77.0.2/32",
                "route a 192.168.0.0/24",
                "route a 192.168.1.0/24",
                "route b 10.78.0.0/16",
                "route b fd12:3456:789b::/48",
            )
        )
        == []
    )


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (
            ("route a 192.168.0.0/16", "route b 192.168.7.0/24"),
            "the route 192.168.7.0/24 of b lies within the route 192.168.0.0/16 of a",
        ),
        (
            ("route a 192.168.0.0/16", "route b 192.168.0.0/16"),
            "the route 192.168.0.0/16 of b is also the route 192.168.0.0/16 of a",
        ),
        (("route a 192.168.0.0/16", "route a 192.168.0.0/24"), "the route 192.168.0.0/24 of a lies within"),
        (("route a 10.77.3.0/24",), "the route 10.77.3.0/24 of a lies within the network's own 10.77.0.0/16"),
        (("route a 10.0.0.0/8",), "the network's own 10.77.0.0/16 lies within the route 10.0.0.0/8 of a"),
        (("route a 10.77.0.0/16",), "the route 10.77.0.0/16 of a is also the network's own 10.77.0.0/16"),
        (
            ("node b fd12:3456:789a:2::/64", "route a fd12:3456:789a:2:8000::/65"),
            "the route fd12:3456:789a:2:8000::/65 of a lies within fd12:3456:789a:2::/64 of b",
        ),
        (("node a 10.77.0.1/32", "node b 10.77.0.1/32"), "10.77.0.1/32 of b is also 10.77.0.1/32 of a"),
        (("network other 10.77.0.0/24",), "the network's own 10.77.0.0/24 lies within the network's own 10.77.0.0/16"),
    ],
)
def test_overlaps_are_said_in_a_sentence(texts: tuple[str, ...], sentence: str) -> None:
    found = overlaps(claims(*OWN, *texts))
    assert len(found) == 1
    assert str(found[0]).startswith(sentence)


NETWORKS = st.builds(
    lambda address, length: IPv4Network((address >> (32 - length) << (32 - length), length)),
    st.integers(0, 7).map(lambda bits: 0x0A000000 | bits << 21),
    st.integers(8, 12),
) | st.builds(
    lambda address, length: IPv6Network((address >> (128 - length) << (128 - length), length)),
    st.integers(0, 7).map(lambda bits: 0xFD << 120 | bits << 117),
    st.integers(8, 12),
)
CLAIMS = st.builds(Claim, st.sampled_from("abc"), st.sampled_from(["network", "node", "route"]), NETWORKS)


def share(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)  # type: ignore[arg-type]


@given(st.lists(CLAIMS, max_size=8))
def test_overlaps_are_found_exactly_where_there_are_some(claimed: list[Claim]) -> None:
    found = overlaps(claimed)
    pairs = [
        (one, other)
        for number, one in enumerate(claimed)
        for other in claimed[number + 1 :]
        if share(one.network, other.network)
        and not (
            {one.kind, other.kind} == {"network", "node"}
            and min((one, other), key=lambda c: (c.network.prefixlen, c.kind != "network")).kind == "network"
        )
    ]
    assert bool(found) == bool(pairs)
    assert len(found) <= len(claimed)
    for overlap in found:
        assert share(overlap.outer.network, overlap.inner.network)
        assert overlap.outer.network.prefixlen <= overlap.inner.network.prefixlen
