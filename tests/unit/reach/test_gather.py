"""Bases and candidates: which addresses packets leave from, and which are told to others."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from tests.unit.reach.relay_world import at
from warren.model.documents import Candidate
from warren.reach.gather import BASES_MAX, CANDIDATES_MAX, HostAddress, all_candidates, host_bases


def host(text: str, interface: int = 2, lasting: bool = True) -> HostAddress:
    return HostAddress(ip_address(text), interface, lasting)


def bases(*addresses: HostAddress, overlays: tuple[str, ...] = ()) -> list[str]:
    return [str(base) for base in host_bases(addresses, [ip_network(text) for text in overlays])]


def test_ipv6_comes_first_and_public_before_private() -> None:
    found = bases(host("192.168.1.2"), host("45.80.1.2"), host("fd00::2"), host("2a0c:d000::2"))
    assert found == ["2a0c:d000::2", "fd00::2", "45.80.1.2", "192.168.1.2"]


def test_addresses_that_lead_nowhere_or_into_a_tunnel_are_left_out() -> None:
    found = bases(host("fe80::1"), host("127.0.0.1"), host("fd99::1"), host("10.77.0.1"), overlays=("fd99::/48",))
    assert found == ["10.77.0.1"]


def test_a_temporary_address_is_used_only_where_its_interface_has_no_other() -> None:
    assert bases(host("2a0c:d000::2"), host("2a0c:d000::99", lasting=False)) == ["2a0c:d000::2"]
    assert bases(host("45.80.1.2"), host("2a0c:d000::99", lasting=False)) == ["2a0c:d000::99", "45.80.1.2"]


def test_a_host_with_very_many_addresses_uses_some() -> None:
    assert len(bases(*(host(f"45.80.1.{number}") for number in range(1, 100)))) == BASES_MAX


def test_an_address_is_told_once_as_what_it_was_named_first() -> None:
    own = [Candidate(kind="host", address="45.80.1.2", port=1000)]
    found = all_candidates(own, [("srflx", at("45.80.1.2", 1000)), ("srflx", at("45.80.9.9", 7)), ("relay", at("::1"))])
    assert [(one.kind, one.address) for one in found] == [("host", "45.80.1.2"), ("srflx", "45.80.9.9")]
    many = [("srflx", at("45.80.9.9", port)) for port in range(1, 200)]
    assert len(all_candidates(own, many)) == CANDIDATES_MAX  # type: ignore[arg-type]
