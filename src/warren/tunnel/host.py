"""The thin driver below the plan: reads which items are there and carries out one change at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from warren.errors import OperationFailed
from warren.linux.netlink import Netlink
from warren.linux.netlink_values import Address, Route, Rule
from warren.linux.nft import Nft
from warren.linux.sysctl import Sysctls
from warren.tunnel import firewall
from warren.tunnel.dns import Resolver
from warren.tunnel.items import Dns, Firewall, Item, Mtu, Sysctl, Up
from warren.tunnel.plan import Add, Change

_ADDRESS_BY_HAND = "1"  # IN6_ADDR_GEN_MODE_NONE: no link-local address, as the kernel's own WireGuard has it
_OTHERS = ("warren-", "wg-quick-")


@dataclass(frozen=True, slots=True)
class Doors:
    """The host's doors. nftables and the resolver are opened when a config needs them; opening may raise
    OperationFailed.
    """

    netlink: Netlink
    sysctls: Sysctls
    nft: Callable[[], Nft]
    resolver: Callable[[], Resolver]


class Host:
    """The host as one tunnel sees it. Errors: OperationFailed; the host is then as it was before that change."""

    def __init__(self, interface: str, doors: Doors) -> None:
        self._interface = interface
        self._doors = doors

    async def observe(self, made: Collection[Item]) -> frozenset[Item]:
        """What is there of the kinds a tunnel makes: all rules, all that is on our interface, and of ``made`` the rest.

        DNS cannot be asked for and is taken to be as it was made.
        """
        netlink, interface = self._doors.netlink, self._interface
        found: set[Item] = set(await netlink.rules())
        found.update(address for address in await netlink.addresses() if address.interface == interface)
        found.update(route for route in await netlink.routes() if route.interface == interface)
        for link in await netlink.links():
            if link.name == interface:
                found.add(Mtu(interface, link.mtu))
                found.update([Up(interface)] if link.up else [])
        firewalls = [item for item in made if isinstance(item, Firewall)]
        tables = self._doors.nft().tables() if firewalls else frozenset()
        found.update(item for item in firewalls if firewall.table_of(interface, item.version) in tables)
        found.update(item for item in made if isinstance(item, Dns))
        found.update(item for item in made if isinstance(item, Sysctl) and self._sysctl(item.name) == item.value)
        return frozenset(found)

    def with_previous(self, item: Item) -> Item:
        """``item`` as it is to be remembered: a setting knows what it was before."""
        if isinstance(item, Sysctl):
            return replace(item, previous=self._sysctl(item.name) or "")
        return item

    def _sysctl(self, name: str) -> str | None:
        return self._doors.sysctls.get(name)

    async def apply(self, change: Change) -> None:
        if isinstance(change, Add):
            await self._add(change.item)
        else:
            await self._remove(change.item)

    async def _add(self, item: Item) -> None:
        netlink = self._doors.netlink
        match item:
            case Address():
                await netlink.add_address(item)
            case Mtu(interface, value):
                await netlink.set_link(interface, mtu=value)
            case Up(interface):
                name = f"net/ipv6/conf/{interface}/addr_gen_mode"
                if self._sysctl(name) is not None:
                    self._doors.sysctls.set(name, _ADDRESS_BY_HAND)
                await netlink.set_link(interface, up=True)
            case Route():
                await netlink.add_route(item)
            case Rule():
                await netlink.add_rule(item)
            case Sysctl(name, value):
                if self._sysctl(name) != value:
                    self._doors.sysctls.set(name, value)
            case Firewall(interface, version, mark, addresses):
                self._doors.nft().run(firewall.protect(interface, version, mark, addresses))
            case Dns():
                await self._doors.resolver().set(item)

    async def _remove(self, item: Item) -> None:
        netlink = self._doors.netlink
        match item:
            case Address():
                await netlink.remove_address(item)
            case Route():
                await netlink.remove_route(item)
            case Rule():
                await netlink.remove_rule(item)
            case Firewall(interface, version):
                self._doors.nft().run(firewall.forget(firewall.table_of(interface, version)))
            case Sysctl(name, _, previous):
                if previous and not self._others_need_it():
                    self._doors.sysctls.set(name, previous)
            case Dns(interface):
                await self._doors.resolver().unset(interface)
            case _:
                raise OperationFailed(f"{item} goes with its interface; it cannot be removed alone")

    def _others_need_it(self) -> bool:
        """Whether another tunnel uses the default-route method, and so the settings it needs."""
        own = {firewall.table_of(self._interface, version) for version in firewall.FAMILIES}
        return any(table.name.startswith(_OTHERS) for table in self._doors.nft().tables() - own)
