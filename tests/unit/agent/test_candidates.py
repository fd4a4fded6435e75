"""What the host's interfaces say of where a node is: tables."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_interface, ip_network

import pytest

from warren.agent.candidates import (
    Surroundings,
    candidates,
    disagreements,
    interfaces,
    outside,
    own_places,
    reachability,
)
from warren.agent.config import AgentConfig
from warren.agent.stated import Stated, StatedAddress
from warren.linux.netlink_values import Address, Link, Route
from warren.model.documents import Candidate
from warren.model.tunnel import TransportAddress
from warren.paths.values import RemoteCandidate

LINKS = (
    Link("lo", 1, True, 65536, 65535),
    Link("eth0", 2, True, 1500, 65535, mac="02:00:00:00:00:01"),
    Link("eth1", 3, False, 1400, 65535, mac="02:00:00:00:00:02"),
    Link("docker0", 4, True, 1500, 65535, mac="02:00:00:00:00:03"),
    Link("w-home", 5, True, 1420, 65535, "tun"),
)
DEFAULT = Route(ip_network("0.0.0.0/0"), "eth0", gateway=ip_address("192.0.2.1"))


def at(interface: str, text: str, *, lasting: bool = True) -> Address:
    return Address(interface, ip_interface(text), lasting)


def around(
    *addresses: Address, routes: tuple[Route, ...] = (DEFAULT,), nat64: IPv6Network | None = None
) -> Surroundings:
    return Surroundings.of(LINKS, addresses, routes, ["w-home"], nat64)


@pytest.mark.parametrize(
    ("addresses", "offered"),
    [
        ([at("lo", "127.0.0.1/8"), at("eth0", "192.0.2.5/24")], ["192.0.2.5"]),
        ([at("eth0", "fe80::1/64"), at("eth0", "169.254.1.1/16")], []),
        ([at("eth0", "2001:4860::5/64", lasting=False), at("eth0", "2001:4860::6/64")], ["2001:4860::6"]),
        ([at("eth1", "192.0.2.6/24")], []),  # its link is down
        ([at("docker0", "172.17.0.1/16")], []),
        ([at("w-home", "fd00::1/128")], []),
        ([at("eth0", "10.0.0.5/24"), at("eth0", "8.8.8.8/24")], ["8.8.8.8", "10.0.0.5"]),
        (
            [at("eth0", "8.8.8.8/24"), at("eth0", "2001:4860::6/64"), at("eth0", "fd01::1/64")],
            ["2001:4860::6", "8.8.8.8", "fd01::1"],
        ),
        ([at("eth0", "fd99::1/64")], []),  # within an overlay: there lies the tunnel
    ],
)
def test_what_is_offered(addresses: list[Address], offered: list[str]) -> None:
    found = candidates(around(*addresses), AgentConfig(), 4711, [ip_network("fd99::/48")])
    assert [(one.kind, one.address, one.port) for one in found] == [("host", text, 4711) for text in offered]


def test_stated_addresses_come_first_each_place_once() -> None:
    stated = Stated((StatedAddress(ip_address("203.0.113.7"), 99), StatedAddress(ip_address("192.0.2.5"))))
    found = candidates(around(at("eth0", "192.0.2.5/24")), AgentConfig(stated=stated), 4711, [])
    assert [(one.kind, one.address, one.port) for one in found] == [
        ("stated", "203.0.113.7", 99),
        ("stated", "192.0.2.5", 4711),
    ]


def test_a_peers_place_inside_an_overlay_is_not_tried() -> None:
    places = [TransportAddress(ip_address(text), 1) for text in ("192.168.7.5", "192.0.2.5", "fd99:0:0:1::1")]
    theirs = [RemoteCandidate("host", place) for place in places]
    overlays = [ip_network("192.168.7.0/24"), ip_network("fd99::/48")]
    assert [str(one.address.ip) for one in outside(theirs, overlays)] == ["192.0.2.5"]


def test_the_underlay() -> None:
    prefix = IPv6Network("64:ff9b::/96")
    underlay = around(at("eth0", "2001:db8::5/64"), at("w-home", "10.0.0.1/32"), nat64=prefix).underlay()
    assert (underlay.has4, underlay.has6, underlay.nat64) == (False, True, prefix)
    assert underlay.on_link == (ip_network("2001:db8::/64"),)


@pytest.mark.parametrize(("mtu", "expected"), [(1500, 1420), (9000, 1420), (1400, 1320), (1300, 1280)])
def test_the_mtu_follows_the_way_out(mtu: int, expected: int) -> None:
    links = (Link("eth0", 1, True, mtu, 65535), Link("eth1", 2, True, 1280, 65535))
    assert Surroundings.of(links, (), (DEFAULT,), ()).mtu() == expected


@pytest.mark.parametrize(
    ("addresses", "observed", "expected"),
    [
        (["192.168.1.5/24"], "8.8.8.8", "hidden"),
        (["192.168.1.5/24", "2001:4860::5/64"], "8.8.8.8", "hidden-dual-stack"),
        (["8.8.8.8/24"], "8.8.8.8", "unknown"),
        (["192.168.1.5/24"], "192.168.1.5", "unknown"),
        (["192.168.1.5/24"], None, "unknown"),
    ],
)
def test_reachability_as_far_as_it_shows(addresses: list[str], observed: str | None, expected: str) -> None:
    here = around(*(at("eth0", text) for text in addresses))
    assert reachability(here, AgentConfig(), ip_address(observed) if observed else None) == expected
    stated = AgentConfig(stated=Stated((StatedAddress(ip_address("203.0.113.7")),)))
    assert reachability(here, stated, None) == "public"


@pytest.mark.parametrize(
    ("stated", "observed", "says"),
    [
        (Stated(), "8.8.8.8", ()),
        (Stated((StatedAddress(ip_address("8.8.8.8")),)), "8.8.8.8", ()),
        (Stated((StatedAddress(ip_address("8.8.4.4")),)), "8.8.8.8", ("stated address 8.8.4.4, observed 8.8.8.8",)),
        (Stated((StatedAddress(ip_address("8.8.4.4")),)), None, ()),
        (Stated(gateway=ip_address("192.0.2.1")), None, ()),
        (Stated(gateway=ip_address("192.0.2.2")), None, ("stated gateway 192.0.2.2, observed 192.0.2.1",)),
        (Stated(segment=ip_network("192.0.2.0/25")), None, ("stated segment 192.0.2.0/25, observed 192.0.2.0/24",)),
        (Stated(segment=ip_network("2001:db8::/64")), None, ()),
    ],
)
def test_stated_and_observed_stand_side_by_side(stated: Stated, observed: str | None, says: tuple[str, ...]) -> None:
    here = around(at("eth0", "192.0.2.5/24"))
    what_to_do = ": correct [public] in agent.toml unless you know better"
    found = disagreements(stated, here, ip_address(observed) if observed else None)
    assert found == tuple(f"{one}{what_to_do}" for one in says)


def test_the_inventory_has_what_is_there() -> None:
    listed = interfaces(around(at("eth0", "192.0.2.5/24"), at("eth0", "fe80::1/64")))
    assert [(one.name, one.mac, one.addresses, one.up) for one in listed] == [
        ("eth0", "02:00:00:00:00:01", ("192.0.2.5/24",), True),
        ("eth1", "02:00:00:00:00:02", (), False),
        ("docker0", "02:00:00:00:00:03", (), True),
    ]


def test_what_leads_to_a_relay_does_not_lead_to_this_node() -> None:
    offered = [
        Candidate(kind="host", address="192.168.1.2", port=1),
        Candidate(kind="srflx", address="8.8.8.8", port=2),
        Candidate(kind="relay", address="9.9.9.9", port=3),
    ]
    assert own_places(offered) == (ip_address("192.168.1.2"), ip_address("8.8.8.8"))
