"""Which peers a relay refuses, in every way that an address can be written (FAULTS: a relay that reaches loopback)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.turn.filter import NAT64_LENGTHS, PeerFilter, held_addresses, is_special

OWN = ip_address("9.9.9.9")
RELAYED = ip_address("9.9.9.10")
FILTER = PeerFilter(
    own=frozenset({OWN, RELAYED, ip_address("2600::9")}),
    relayed=frozenset({RELAYED}),
    denied=(ip_network("8.8.4.0/24"),),
    nat64_prefixes=(IPv6Network("64:ff9b::/96"), IPv6Network("2600:64::/96")),
)

REFUSED = """
0.0.0.0 0.0.0.1 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.0.0.53 127.255.255.254
169.254.169.254 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1
192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 8.8.4.4 9.9.9.9 :: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:0.0.0.0 ::ffff:10.0.0.1
::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:9.9.9.9 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8 64:ff9b::127.0.0.1
64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b::0.0.0.0 64:ff9b::9.9.9.9 64:ff9b::8.8.4.4 64:ff9b::224.0.0.1
64:ff9b:1::127.0.0.1 64:ff9b:1::8.8.8.8 2600:64::7f00:1 2600:64::a00:1 2600:64::909:909 2002:7f00:1:: 2002:a00:1::1
2002:808:808::1 2002:a9fe:a9fe:: 2001:0:7f00:1:: 2001:0:808:808::f5ff:fffe 2001::1 2001:2::1 2001:10::1 2001:20::1
2001:db8::1 3fff::1 5f00::1 100::1 100:0:0:1::1 fc00::1 fd00::1 fd12:3456::1 fe80::1 febf::1 fec0::1 ff02::1 ff0e::1
2600::9 2600:1::5efe:127.0.0.1 2600:1::5efe:10.0.0.1 2600:1::200:5efe:192.168.0.1 2600:1::5efe:169.254.169.254
2600:1::5efe:9.9.9.9 fe80::5efe:8.8.8.8
""".split()  # noqa: SIM905 - a table
ACCEPTED = """
1.1.1.1 8.8.8.8 9.9.9.10 11.0.0.1 100.63.255.255 100.128.0.1 128.0.0.1 172.15.255.255 172.32.0.1 192.0.1.1
192.167.0.1 198.17.0.1 198.20.0.1 223.255.255.255 2606:4700::1111 2a00::1 2001:4860:4860::8888 2001:200::1
64:ff9b::8.8.8.8 2600:64::808:808 2600:1::5efe:8.8.8.8
""".split()  # noqa: SIM905 - a table


def test_the_table_is_long_enough() -> None:
    assert len(set(REFUSED)) == len(REFUSED) >= 60


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_for_everybody_is_refused(text: str) -> None:
    assert FILTER.why_not(ip_address(text)) != ""


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_everybody_reaches_is_accepted(text: str) -> None:
    assert FILTER.why_not(ip_address(text)) == ""


@pytest.mark.parametrize(
    ("allowed", "peer", "accepted"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "192.168.0.1", False),
        ("10.0.0.0/8", "64:ff9b::10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("2002::/16", "2002:808:808::1", True),
        ("2002::/16", "2002:7f00:1::1", False),
        ("127.0.0.0/8", "127.0.0.1", True),
        ("0.0.0.0/0", "0.0.0.0", False),  # noqa: S104
        ("0.0.0.0/0", "224.0.0.1", False),
        ("0.0.0.0/0", "255.255.255.255", False),
        ("::/0", "::", False),
        ("::/0", "::ffff:8.8.8.8", False),
        ("::/0", "ff02::1", False),
        ("9.0.0.0/8", "9.9.9.9", False),
        ("9.9.9.9/32", "9.9.9.9", True),
        ("8.8.0.0/16", "8.8.4.4", False),
    ],
)
def test_the_operators_list_opens_what_it_names_and_no_more(allowed: str, peer: str, accepted: bool) -> None:
    own = PeerFilter(allowed=(ip_network(allowed),), own=frozenset({OWN}), denied=FILTER.denied)
    assert (own.why_not(ip_address(peer)) == "") is accepted


@given(st.integers(0, 2**32 - 1), st.sampled_from(NAT64_LENGTHS), st.integers(0, 2**128 - 1))
def test_an_address_behind_any_nat64_prefix_is_found(held: int, length: int, noise: int) -> None:
    """Written as RFC 6052 §2.2 says: the prefix, then the address around octet 8, which is zero."""
    octets = bytearray(IPv6Address(noise).packed[: length // 8])
    for octet in IPv4Address(held).packed:
        if len(octets) == 8:
            octets.append(0)
        octets.append(octet)
    octets += bytes(16 - len(octets))
    if length > 64:
        octets[8] = octets[8] if length == 96 else 0
    address = IPv6Address(bytes(octets))
    prefix = IPv6Network((address, length), strict=False)
    assert IPv4Address(held) in held_addresses(address, (prefix,))


@given(st.ip_addresses())
def test_the_standard_librarys_global_addresses_are_no_more_than_ours(address: IPv4Address | IPv6Address) -> None:
    """Python's own table, of another hand: what it calls private is special here too."""
    if address.is_multicast or (address.is_private and address not in IPv6Network("64:ff9b::/96")):
        assert is_special(address) or FILTER.why_not(address)
