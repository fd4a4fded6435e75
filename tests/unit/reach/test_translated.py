"""What a host with IPv6 alone makes of addresses of IPv4."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address

from warren.model.tunnel import TransportAddress
from warren.paths.values import Surroundings
from warren.reach.relay_values import RelayPlace
from warren.reach.translated import translated, translated_places

AROUND = Surroundings(nat64=IPv6Network("64:ff9b::/96"))
PUBLIC, PRIVATE, SIX = (
    TransportAddress(ip_address(text), 7) for text in ("45.80.1.2", "192.168.1.10", "2a0c:d000:1::2")
)
PLACE = RelayPlace("r1", ("2a0c:d000:1::2", "45.80.1.2", "relay.example"), tcp_port=3478)


def test_without_a_nat64_all_stays_as_it_is() -> None:
    assert translated([PUBLIC, PRIVATE, SIX], Surroundings()) == [PUBLIC, PRIVATE, SIX]
    assert translated_places([PLACE], Surroundings()) == [PLACE]


def test_a_nat64_is_told_public_addresses_of_ipv4_and_never_private_ones() -> None:
    assert translated([PUBLIC, PRIVATE, SIX], AROUND) == [TransportAddress(ip_address("64:ff9b::2d50:102"), 7), SIX]


def test_a_relay_is_asked_through_the_nat64_first() -> None:
    [place] = translated_places([PLACE], AROUND)
    assert place.hosts == ("64:ff9b::2d50:102", "2a0c:d000:1::2", "relay.example")
    assert place.tcp_port == PLACE.tcp_port
