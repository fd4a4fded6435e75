"""Zones out of documents."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import msgspec
import pytest

from tests.support.policy_node import member, network
from warren.dns.names import records, reverse_zones
from warren.model.addresses import service_address
from warren.model.documents import NetworkSpec
from warren.model.services import Service

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


def served(*services: Service) -> NetworkSpec:
    return msgspec.structs.replace(network(()), services=services)


def service(name: str, *at: str) -> Service:
    return Service(name=name, at=at, target="localhost:80")


def test_a_service_has_a_name_with_the_address_at_each_member_that_serves_it() -> None:
    zone = records(served(service("web", "member:printer", "member:laptop"), service("idle", "member:nobody")), MEMBERS)
    places = tuple(service_address(member.prefix6, "web") for member in (MEMBERS[1], MEMBERS[0], MEMBERS[2]))
    assert zone.addresses["web.svc.home.internal"] == places
    assert {zone.pointers[place.reverse_pointer] for place in places} == {"web.svc.home.internal"}
    assert "idle.svc.home.internal" not in zone.addresses
    assert zone.addresses["laptop.home.internal"] == records(network(()), MEMBERS).addresses["laptop.home.internal"]


def test_a_member_called_as_the_label_of_services_is_in_nobodys_way() -> None:
    zone = records(served(service("web", "member:svc")), [member(2, "svc")])
    assert zone.addresses["svc.home.internal"][0] == ip_address("fd11:2233:4455:2::1")
    assert zone.addresses["web.svc.home.internal"] == (service_address(member(2, "svc").prefix6, "web"),)


def test_a_service_of_many_members_has_no_more_records_than_an_answer_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("warren.dns.names.SERVICE_RECORDS_MAX", 3)
    zone = records(served(service("web", "members")), [member(number, f"n{number}") for number in range(1, 9)])
    assert zone.addresses["web.svc.home.internal"] == tuple(
        service_address(member(number, "n").prefix6, "web") for number in (1, 2, 3)
    )


def test_a_service_whose_name_is_too_long_is_left_out_and_said() -> None:
    suffix = ".".join(["a" * 60] * 4)
    spec = msgspec.structs.replace(served(service("x" * 9, "members")), name="n", suffix=suffix)
    assert records(spec, [member(2, "m")]).left_out == ("x" * 9 + ".svc",)


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
