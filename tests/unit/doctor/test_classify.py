from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.unit.doctor.seen import FIREWALLED6, LAN, NO_IPV6, OPEN4, OPEN6, SILENT4, family, nat, observed
from warren.doctor.classify import classify, has_two_nics, words
from warren.doctor.observed import Family, Nic

FIREWALLED4 = family(nat=nat(mapped="192.168.1.10:40000", translated=False, filtering="adf", hairpin=None))
UNTRIED4 = family(nat=nat(translated=False, filtering=None, discovery=None, hairpin=None))
DUAL = msgspec.structs.replace(LAN, addresses=(*LAN.addresses, "2001:db8::10/64"), gateways=(*LAN.gateways, "fe80::1"))


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "kind", "said"),
    [
        (OPEN4, NO_IPV6, "public", "public: anybody can reach this host by IPv4"),
        (OPEN4, OPEN6, "public", "public: anybody can reach this host by IPv4 and IPv6"),
        (family(), OPEN6, "public", "public: anybody can reach this host by IPv6"),
        (SILENT4, OPEN6, "public", "public: anybody can reach this host by IPv6"),
        (family(), NO_IPV6, "hidden", "hidden: behind a NAT, and no IPv6"),
        (FIREWALLED4, NO_IPV6, "hidden", "hidden: behind a firewall, and no IPv6"),
        (family(), FIREWALLED6, "hidden-dual-stack", "hidden dual-stack: IPv4 behind NAT, IPv6 behind a firewall"),
        (UNTRIED4, NO_IPV6, "unknown", "not behind NAT; nobody could try whether strangers' packets come in"),
        (SILENT4, NO_IPV6, "unknown", "unknown: nobody outside answers"),
        (Family(version=4), NO_IPV6, "unknown", "unknown: there is nobody to ask"),
    ],
)
def test_how_a_node_is_connected_follows_from_both_families(ipv4: Family, ipv6: Family, kind: str, said: str) -> None:
    seen = observed(ipv4=ipv4, ipv6=ipv6)
    assert classify(seen) == kind
    assert words(seen) == said


def test_ipv6_without_a_server_to_ask_still_counts_as_there() -> None:
    assert classify(observed(nics=(DUAL,))) == "hidden-dual-stack"
    assert classify(observed(nics=(DUAL,), ipv6=family(6, nat=SILENT4.nat))) == "hidden"


def nic(name: str, *addresses: str, **changes: Any) -> Nic:
    return Nic(name=name, mtu=1500, addresses=addresses, **changes)


@pytest.mark.parametrize(
    ("nics", "apart"),
    [
        ((LAN,), False),
        ((nic("eth0", "198.51.100.1/24"), nic("eth1", "10.0.0.1/24")), True),
        ((nic("eth0", "198.51.100.1/24"), nic("eth1", "fd00::1/64")), True),
        ((nic("eth0", "198.51.100.1/24"), nic("eth1", "100.64.0.2/24")), True),
        ((nic("eth0", "198.51.100.1/24", "10.0.0.1/24"),), False),
        ((nic("eth0", "198.51.100.1/24"), nic("eth1", "203.0.113.7/24")), False),
        ((nic("eth0", "10.0.0.1/24"), nic("eth1", "192.168.0.1/24")), False),
        ((nic("eth0", "198.51.100.1/24"), nic("eth1")), False),
    ],
)
def test_two_nics_lead_apart_when_one_is_public_and_another_is_not(nics: tuple[Nic, ...], apart: bool) -> None:
    seen = observed(nics=nics, ipv4=OPEN4)
    assert has_two_nics(seen) == apart
    assert ("another segment" in words(seen)) == apart
