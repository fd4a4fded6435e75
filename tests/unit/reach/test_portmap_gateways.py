from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from warren.linux.netlink_values import Address, Link, Route
from warren.proto.portmap.values import Gateway
from warren.reach.portmap_gateways import gateways_of

LINKS = [Link("eth0", 2, True, 1500, 0), Link("wlan0", 3, True, 1500, 0), Link("eth9", 4, False, 1500, 0)]
ALL4, ALL6 = ip_network("0.0.0.0/0"), ip_network("::/0")


def address(interface: str, value: str, *, lasting: bool = True) -> Address:
    return Address(interface, ip_interface(value), lasting)


def default(interface: str, gateway: str, *, table: int = 254) -> Route:
    via = ip_address(gateway)
    return Route(ALL4 if via.version == 4 else ALL6, interface, table, via)


def test_each_uplink_has_its_router_and_the_address_on_its_link() -> None:
    addresses = [address("eth0", "10.9.0.5/24"), address("eth0", "192.168.1.20/24"), address("wlan0", "172.16.0.9/16")]
    routes = [default("eth0", "192.168.1.1"), default("wlan0", "172.16.0.1")]
    assert gateways_of(LINKS, addresses, routes) == (
        Gateway(ip_address("192.168.1.1"), 2, ip_address("192.168.1.20")),
        Gateway(ip_address("172.16.0.1"), 3, ip_address("172.16.0.9")),
    )


def test_with_ipv6_each_lasting_public_address_has_its_own() -> None:
    addresses = [
        address("eth0", "fe80::20/64"),
        address("eth0", "fd00::20/64"),
        address("eth0", "2a0c:d000::99/64", lasting=False),
        address("eth0", "2a0c:d000::20/64"),
        address("eth0", "2a0c:d000:1::20/64"),
        address("eth0", "2a0c:d000:2::20/64"),
    ]
    found = gateways_of(LINKS, addresses, [default("eth0", "fe80::1")])
    assert [str(one.source) for one in found] == ["2a0c:d000::20", "2a0c:d000:1::20"]
    assert {(str(one.address), one.interface) for one in found} == {("fe80::1", 2)}


def test_what_is_no_way_out_has_no_gateway() -> None:
    addresses = [address("eth0", "192.168.1.20/24"), address("eth9", "192.168.9.20/24")]
    routes = [
        Route(ip_network("10.0.0.0/8"), "eth0", gateway=ip_address("192.168.1.7")),
        Route(ALL4, "eth0"),
        default("eth0", "192.168.1.1", table=51820),
        default("eth9", "192.168.9.1"),
        default("gone", "192.168.8.1"),
        default("wlan0", "172.16.0.1"),
    ]
    assert gateways_of(LINKS, addresses, routes) == ()


def test_the_same_router_by_two_routes_is_one() -> None:
    routes = [default("eth0", "192.168.1.1")] * 2
    assert len(gateways_of(LINKS, [address("eth0", "192.168.1.20/24")], routes)) == 1
