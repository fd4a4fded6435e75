from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.model.tunnel import TransportAddress
from warren.paths.candidates import WELL_KNOWN_NAT64, Underlay, embed, prefix_of, rank


def at(*texts: str) -> list[TransportAddress]:
    return [TransportAddress(ip_address(text), 51820) for text in texts]


def ranked(candidates: list[TransportAddress], underlay: Underlay) -> list[str]:
    return [str(address.ip) for address in rank(candidates, underlay)]


BOTH = Underlay(has4=True, has6=True)


def test_ipv6_comes_before_ipv4() -> None:
    assert ranked(at("192.0.2.1", "2001:db8::1"), BOTH) == ["2001:db8::1", "192.0.2.1"]


def test_the_same_link_comes_before_everything() -> None:
    underlay = Underlay(has4=True, has6=True, on_link=(ip_network("192.168.1.0/24"),))
    assert ranked(at("2001:db8::1", "192.168.1.7"), underlay) == ["192.168.1.7", "2001:db8::1"]


def test_within_a_class_the_order_of_the_peer_stands_and_nothing_is_named_twice() -> None:
    assert ranked(at("192.0.2.9", "192.0.2.1", "192.0.2.9"), BOTH) == ["192.0.2.9", "192.0.2.1"]


@pytest.mark.parametrize(
    ("underlay", "expected"),
    [
        (Underlay(has4=False, has6=True), ["2001:db8::1"]),
        (Underlay(has4=True, has6=False), ["8.8.8.8"]),
        (Underlay(has4=False, has6=False), []),
        (Underlay(has4=False, has6=True, nat64=WELL_KNOWN_NAT64), ["2001:db8::1", "64:ff9b::808:808"]),
        (Underlay(has4=True, has6=True, nat64=WELL_KNOWN_NAT64), ["2001:db8::1", "8.8.8.8"]),
        (Underlay(has4=False, has6=False, nat64=WELL_KNOWN_NAT64), []),
    ],
)
def test_what_the_host_cannot_send_to_is_left_out_or_translated(underlay: Underlay, expected: list[str]) -> None:
    assert ranked(at("8.8.8.8", "2001:db8::1"), underlay) == expected


def test_a_private_address_is_not_put_behind_the_well_known_prefix() -> None:
    assert ranked(at("10.0.0.1"), Underlay(has4=False, has6=True, nat64=WELL_KNOWN_NAT64)) == []
    own = IPv6Network("2001:db8:64::/96")
    assert ranked(at("10.0.0.1"), Underlay(has4=False, has6=True, nat64=own)) == ["2001:db8:64::a00:1"]


@pytest.mark.parametrize(
    ("prefix", "address"),
    [  # the table of RFC 6052 §2.4
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::c000:221"),
    ],
)
def test_addresses_are_embedded_as_the_rfc_shows(prefix: str, address: str) -> None:
    known = IPv4Address("192.0.2.33")
    assert embed(known, IPv6Network(prefix)) == IPv6Address(address)
    assert prefix_of(IPv6Address(address), [known]) == IPv6Network(prefix)


def test_an_answer_without_a_known_address_has_no_prefix() -> None:
    assert prefix_of(IPv6Address("2001:db8::1"), [IPv4Address("192.0.0.170")]) is None


def test_a_prefix_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="no NAT64 prefix"):
        embed(IPv4Address("192.0.2.1"), IPv6Network("2001:db8::/33"))


addresses = st.one_of(st.ip_addresses(), st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(
    st.lists(st.builds(TransportAddress, addresses, st.integers(1, 65535)), max_size=20), st.booleans(), st.booleans()
)
def test_only_what_can_be_sent_to_is_ever_ranked(found: list[TransportAddress], has4: bool, has6: bool) -> None:
    underlay = Underlay(has4=has4, has6=has6, nat64=WELL_KNOWN_NAT64)
    result = rank(found, underlay)
    assert len(set(result)) == len(result)
    assert all(underlay.can_send_to(address) for address in result)
