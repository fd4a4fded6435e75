"""What an operator states of where a node stands."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from warren.agent.stated import PublicTable, Stated, StatedAddress, stated_in
from warren.model.tunnel import TransportAddress
from warren.toml.settings import Unusable


def test_an_address_may_have_a_port_and_else_has_the_one_that_is_listened_on() -> None:
    table = PublicTable(addresses=("203.0.113.7", "203.0.113.7:99", "2001:db8::7", "[2001:db8::7]:99"))
    four, six = ip_address("203.0.113.7"), ip_address("2001:db8::7")
    stated = stated_in(table)
    assert stated.addresses == tuple(StatedAddress(ip, port) for ip in (four, six) for port in (0, 99))
    assert [address.at(51820) for address in stated.addresses] == [
        TransportAddress(ip, port) for ip in (four, six) for port in (51820, 99)
    ]


def test_nothing_need_be_stated() -> None:
    assert stated_in(PublicTable()) == Stated()
    assert Stated().lines() == ()


def test_it_is_shown_in_the_words_it_was_stated_in() -> None:
    table = PublicTable(addresses=("[2001:db8::7]:99",), gateway="192.0.2.1", segment="192.0.2.0/24")
    stated = stated_in(table)
    assert (stated.gateway, stated.segment) == (ip_address("192.0.2.1"), ip_network("192.0.2.0/24"))
    assert stated.lines() == ("address [2001:db8::7]:99", "gateway 192.0.2.1", "segment 192.0.2.0/24")


@pytest.mark.parametrize(
    "text", ["", "x", "203.0.113.7:0", "[203.0.113.7", "224.0.0.1", "::", "::1", "fe80::1", "ff02::1"]
)
def test_what_nobody_else_can_reach_is_no_address_of_this_node(text: str) -> None:
    with pytest.raises(Unusable):
        stated_in(PublicTable(addresses=(text,)))
