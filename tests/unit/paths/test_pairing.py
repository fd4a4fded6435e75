from __future__ import annotations

from ipaddress import IPv6Network, ip_network

import pytest

from tests.support.path_pair import at, host
from warren.paths.candidates import WELL_KNOWN_NAT64
from warren.paths.pair import Pair
from warren.paths.pairing import in_order, rank_of, target
from warren.paths.values import Base, Surroundings

RELAY = Base(kind="relay", relay="one")
NAT64 = Surroundings(nat64=IPv6Network("2001:db8:64::/96"))
OVERLAY = Surroundings(overlays=(ip_network("100.64.0.0/10"), ip_network("fd00::/8")))
RELAYED4 = Surroundings(relayed=(("one", at("203.0.113.1", 50_000)),))


@pytest.mark.parametrize(
    ("base", "remote", "around", "expected"),
    [
        (host("192.0.2.1"), "198.51.100.1", Surroundings(), "198.51.100.1"),
        (host("192.0.2.1"), "2001:db8::1", Surroundings(), None),
        (host("2001:db8::2"), "2001:db8::1", Surroundings(), "2001:db8::1"),
        (host("2001:db8::2"), "198.51.100.1", Surroundings(), None),
        (host("2001:db8::2"), "198.51.100.1", NAT64, "2001:db8:64::c633:6401"),
        (host("2001:db8::2"), "192.168.1.1", NAT64, "2001:db8:64::c0a8:101"),
        (host("2001:db8::2"), "192.168.1.1", Surroundings(nat64=WELL_KNOWN_NAT64), None),
        (RELAY, "198.51.100.1", Surroundings(), "198.51.100.1"),
        (RELAY, "198.51.100.1", RELAYED4, "198.51.100.1"),
        (RELAY, "2001:db8::1", RELAYED4, None),
        (RELAY, "192.168.1.1", RELAYED4, None),
        (RELAY, "fe80::1", Surroundings(), None),
        (host("192.0.2.1"), "100.64.0.1", Surroundings(), "100.64.0.1"),
        (host("192.0.2.1"), "100.64.0.1", OVERLAY, None),
        (host("2001:db8::2"), "fd00::1", OVERLAY, None),
        (RELAY, "100.64.0.1", OVERLAY, None),
    ],
)
def test_where_to_send_to(base: Base, remote: str, around: Surroundings, expected: str | None) -> None:
    found = target(base, at(remote), around)
    assert (None if found is None else str(found.ip)) == expected


def test_a_relay_does_not_send_to_its_own_allocation() -> None:
    assert target(RELAY, at("203.0.113.1", 50_000), RELAYED4) is None
    assert target(RELAY, at("203.0.113.1", 50_001), RELAYED4) is not None


def test_a_link_local_address_is_that_of_the_interface() -> None:
    found = target(host("fe80::2", 3), at("fe80::1"), Surroundings())
    assert found is not None
    assert found.scope == 3


@pytest.mark.parametrize(
    ("base", "remote", "kind", "rank"),
    [
        (host("192.168.1.2"), "192.168.1.1", "host", 0),
        (host("fe80::2"), "fe80::1", "host", 0),
        (host("192.168.1.2"), "198.51.100.1", "srflx", 1),
        (host("192.168.1.2"), "203.0.113.1", "relay", 2),
        (RELAY, "198.51.100.1", "srflx", 2),
        (RELAY, "203.0.113.1", "relay", 3),
    ],
)
def test_pairs_are_ranked_by_what_lies_between(base: Base, remote: str, kind: str, rank: int) -> None:
    around = Surroundings(on_link=(ip_network("192.168.1.0/24"), ip_network("2001:db8::/64")))
    assert rank_of(base, at(remote), kind, around) == rank  # type: ignore[arg-type]


def test_direct_and_relayed_pairs_are_tried_by_turns_the_best_first() -> None:
    def pair(ip: str, rank: int) -> Pair:
        return Pair(host("192.0.2.1"), at(ip), "host", rank)

    pairs = [
        pair("192.0.2.9", 3),
        pair("192.0.2.8", 2),
        pair("192.0.2.7", 1),
        pair("2001:db8::1", 1),
        pair("10.0.0.1", 0),
    ]
    assert [str(one.remote.ip) for one in in_order(pairs)] == [
        "10.0.0.1",
        "192.0.2.8",
        "2001:db8::1",
        "192.0.2.9",
        "192.0.2.7",
    ]
