"""Zones out of documents."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.support.policy_node import member, network
from warren.dns.names import records, reverse_zones
from warren.model.documents import NetworkSpec

MEMBERS = (member(3, "printer"), member(2, "laptop"), member(4, "laptop"))


def test_a_member_has_a_name_with_its_addresses() -> None:
    zone = records(network(()), MEMBERS)
    assert zone.origin == "home.internal"
    assert list(zone.addresses) == ["laptop.home.internal", "printer.home.internal"]
    assert zone.addresses["printer.home.internal"] == (ip_address("fd11:2233:4455:3::1"), ip_address("10.7.0.3"))


def test_of_two_members_with_one_name_the_lower_address_counts() -> None:
    zone = records(network(()), MEMBERS)
    assert zone.addresses["laptop.home.internal"][0] == ip_address("fd11:2233:4455:2::1")
    assert "4.0.7.10.in-addr.arpa" not in zone.pointers


def test_addresses_lead_back_to_names() -> None:
    zone = records(network(()), MEMBERS)
    assert zone.pointers["3.0.7.10.in-addr.arpa"] == "printer.home.internal"
    assert zone.pointers[ip_address("fd11:2233:4455:3::1").reverse_pointer] == "printer.home.internal"
    assert zone.domains == ("home.internal", "5.5.4.4.3.3.2.2.1.1.d.f.ip6.arpa", "0.7.10.in-addr.arpa")


def test_names_that_dns_cannot_have_are_left_out_and_said() -> None:
    suffix = ".".join(["a" * 60] * 4)
    spec = NetworkSpec(network=bytes(32), version=1, name="n", prefix6="fd11:2233:4455::/48", suffix=suffix)
    zone = records(spec, [member(2, "short"), member(3, "l" * 60)])
    assert zone.left_out == ("l" * 60,)
    assert list(zone.addresses) == [f"short.n.{suffix}"]


@pytest.mark.parametrize(
    ("prefix", "count", "first", "last"),
    [
        ("fd00::/48", 1, "0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", "0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"),
        ("10.0.0.0/8", 1, "10.in-addr.arpa", "10.in-addr.arpa"),
        ("100.64.0.0/10", 64, "64.100.in-addr.arpa", "127.100.in-addr.arpa"),
        ("10.7.0.0/22", 4, "0.7.10.in-addr.arpa", "3.7.10.in-addr.arpa"),
        ("192.168.1.8/29", 8, "8.1.168.192.in-addr.arpa", "15.1.168.192.in-addr.arpa"),
    ],
)
def test_reverse_zones_hold_the_prefix_and_nothing_else(prefix: str, count: int, first: str, last: str) -> None:
    zones = reverse_zones(ip_network(prefix))
    assert (len(zones), zones[0], zones[-1]) == (count, first, last)
