"""What every netlink door must do, as scenarios for a host that has one interface, down, without addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from warren.errors import OperationFailed
from warren.linux.netlink import Netlink
from warren.linux.netlink_values import Address, Path, Route, Rule

Scenario = Callable[[Netlink, str], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}

_NOTICE_S = 10.0


def _scenario(function: Scenario) -> Scenario:
    SCENARIOS[getattr(function, "__name__", "")] = function
    return function


@_scenario
async def a_link_is_listed_and_changed(netlink: Netlink, interface: str) -> None:
    before = {link.name: link for link in await netlink.links()}[interface]
    assert not before.up
    await netlink.set_link(interface, up=True, mtu=1380, gso_max_segs=44)
    after = {link.name: link for link in await netlink.links()}[interface]
    assert (after.up, after.mtu, after.gso_max_segs, after.index) == (True, 1380, 44, before.index)
    await netlink.set_link(interface, mtu=1300)
    assert {link.name: link for link in await netlink.links()}[interface].up


@_scenario
async def a_missing_link_is_an_error(netlink: Netlink, interface: str) -> None:
    for work in (
        netlink.set_link("absent", up=True),
        netlink.add_address(Address("absent", ip_interface("10.9.0.1/24"))),
        netlink.add_route(Route(ip_network("10.9.0.0/24"), "absent")),
    ):
        with pytest.raises(OperationFailed, match="there is no interface absent"):
            await work


@_scenario
async def addresses_come_and_go(netlink: Netlink, interface: str) -> None:
    addresses = [Address(interface, ip_interface(text)) for text in ("10.9.0.1/24", "10.9.1.1/32", "fd09::1/64")]
    for address in addresses:
        await netlink.add_address(address)
    assert _on(interface, await netlink.addresses()) == set(addresses)
    with pytest.raises(OperationFailed, match=r"adding the address 10.9.0.1/24 on .* there is one already"):
        await netlink.add_address(addresses[0])
    for address in addresses:
        await netlink.remove_address(address)
        await netlink.remove_address(address)
    assert _on(interface, await netlink.addresses()) == set()


@_scenario
async def an_address_at_which_nothing_is_to_begin_stays_so(netlink: Netlink, interface: str) -> None:
    usual = Address(interface, ip_interface("fd09:1::1/128"))
    passive = Address(interface, ip_interface("fd09:1::2/128"), lasting=False)
    for address in (usual, passive):
        await netlink.add_address(address)
    await netlink.set_link(interface, up=True)
    found = {one.value: one.lasting for one in await netlink.addresses() if one.interface == interface}
    assert (found[usual.value], found[passive.value]) == (True, False)
    await netlink.remove_address(passive)
    assert usual in _on(interface, await netlink.addresses())


@_scenario
async def an_address_brings_the_route_to_its_network(netlink: Netlink, interface: str) -> None:
    for text in ("10.9.0.1/24", "10.9.1.1/32", "fd09::1/64", "fd09:1::1/128"):
        await netlink.add_address(Address(interface, ip_interface(text)))
    await netlink.set_link(interface, up=True)
    routes = {str(route.network) for route in await netlink.routes() if route.interface == interface}
    assert routes == {"10.9.0.0/24", "fd09::/64", "fd09:1::1/128"}


@_scenario
async def routes_come_and_go(netlink: Netlink, interface: str) -> None:
    routes = [
        Route(ip_network("10.20.0.0/16"), interface),
        Route(ip_network("0.0.0.0/0"), interface, 51820),
        Route(ip_network("::/0"), interface, 51820),
        Route(ip_network("fd20::/48"), interface, 7),
    ]
    with pytest.raises(OperationFailed, match=r"adding the route 10.20.0.0/16"):
        await netlink.add_route(routes[0])
    await netlink.set_link(interface, up=True)
    for route in routes:
        await netlink.add_route(route)
    assert set(await netlink.routes()).issuperset(routes)
    with pytest.raises(OperationFailed, match="there is one already"):
        await netlink.add_route(routes[1])
    for route in routes:
        await netlink.remove_route(route)
        await netlink.remove_route(route)
    assert not set(await netlink.routes()).intersection(routes)


@_scenario
async def a_link_that_goes_down_loses_its_routes(netlink: Netlink, interface: str) -> None:
    await netlink.set_link(interface, up=True)
    await netlink.add_route(Route(ip_network("10.20.0.0/16"), interface))
    await netlink.set_link(interface, up=False)
    assert not [route for route in await netlink.routes() if route.network.version == 4]


@_scenario
async def rules_come_and_go(netlink: Netlink, interface: str) -> None:
    rules = [
        Rule(4, 32765, 51820, fwmark=51820, inverted=True),
        Rule(4, 32764, 254, suppress_prefixlength=0),
        Rule(6, 32765, 51820, fwmark=51820, inverted=True),
        Rule(6, 100, 7),
    ]
    before = await netlink.rules()
    assert [rule.table for rule in before if rule.version == 4] == [255, 254, 253]
    for rule in rules:
        await netlink.add_rule(rule)
    after = await netlink.rules()
    assert set(after) == {*before, *rules}
    assert list(after) == sorted(after, key=lambda rule: (rule.version, rule.priority))
    with pytest.raises(OperationFailed, match=r"IPv4 rule not fwmark 0xca6c table 51820 .* there is one already"):
        await netlink.add_rule(rules[0])
    for rule in rules:
        await netlink.remove_rule(rule)
        await netlink.remove_rule(rule)
    assert await netlink.rules() == before


@_scenario
async def the_way_to_an_address_obeys_rules_and_marks(netlink: Netlink, interface: str) -> None:
    there = ip_address("198.51.100.1")
    assert await netlink.path_to(there) is None
    assert await netlink.path_to(ip_address("2001:db8::1")) is None
    await netlink.set_link(interface, up=True, mtu=1400)
    await netlink.add_address(Address(interface, ip_interface("10.9.0.1/24")))
    await netlink.add_route(Route(ip_network("0.0.0.0/0"), interface, 51820))
    assert await netlink.path_to(there) is None
    await netlink.add_rule(Rule(4, 32765, 51820, fwmark=51820, inverted=True))
    assert await netlink.path_to(there) == Path(interface, 1400)
    assert await netlink.path_to(there, fwmark=51820) is None
    assert await netlink.path_to(ip_address("10.9.0.7"), fwmark=51820) == Path(interface, 1400)


@_scenario
async def a_removed_link_takes_everything_along(netlink: Netlink, interface: str) -> None:
    await netlink.set_link(interface, up=True)
    await netlink.add_address(Address(interface, ip_interface("10.9.0.1/24")))
    await netlink.remove_link(interface)
    await netlink.remove_link(interface)
    assert interface not in {link.name for link in await netlink.links()}
    assert _on(interface, await netlink.addresses()) == set()
    assert not [route for route in await netlink.routes() if route.interface == interface]


@_scenario
async def a_change_is_noticed(netlink: Netlink, interface: str) -> None:
    noticed = asyncio.Event()
    listening = asyncio.Event()

    async def listen() -> None:
        listening.set()
        async for _ in netlink.changes():
            noticed.set()

    listener = asyncio.create_task(listen())
    await listening.wait()
    for mtu in range(1300, 1500):
        await netlink.set_link(interface, mtu=mtu)  # the listener may not have been there for the first
        await asyncio.sleep(0)
        if noticed.is_set():
            break
    await asyncio.wait_for(noticed.wait(), _NOTICE_S)
    listener.cancel()
    await asyncio.gather(listener, return_exceptions=True)


def _on(interface: str, addresses: tuple[Address, ...]) -> set[Address]:
    # The kernel adds a link-local address by itself.
    return {address for address in addresses if address.interface == interface and not address.value.is_link_local}
