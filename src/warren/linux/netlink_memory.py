"""The network configuration of a host in memory: the twin of :class:`~warren.linux.netlink.KernelNetlink` for tests.

It behaves like the kernel where callers can tell the difference: an address brings its connected route, a link set down
loses its routes, a removed link takes everything on it along, a second identical item is refused.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import replace

from warren.errors import OperationFailed
from warren.linux.netlink_values import (
    PROTOCOL_KERNEL,
    Address,
    Link,
    Path,
    Route,
    Rule,
    explain,
)
from warren.model.tunnel import IPAddress

_GSO_MAX_SEGS = 65535
_FIRST_RULES = tuple(
    Rule(version, priority, table)
    for version, priority, table in ((4, 0, 255), (4, 32766, 254), (4, 32767, 253), (6, 0, 255), (6, 32766, 254))
)


class MemoryNetlink:
    """A host with the given links (name → MTU), none of them up."""

    def __init__(self, links: dict[str, int] | None = None) -> None:
        self._links: dict[str, Link] = {}
        self._addresses: list[Address] = []
        self._routes: list[Route] = []
        self._rules: list[Rule] = list(_FIRST_RULES)
        self._listeners: set[asyncio.Event] = set()
        for name, mtu in (links or {}).items():
            self.add_link(name, mtu)

    def add_link(self, name: str, mtu: int, kind: str = "tun") -> None:
        """What an engine does when it opens its interface."""
        index = 1 + max((link.index for link in self._links.values()), default=0)
        self._links[name] = Link(name, index, False, mtu, _GSO_MAX_SEGS, kind)
        self._changed()

    async def links(self) -> tuple[Link, ...]:
        return tuple(self._links.values())

    async def set_link(
        self, interface: str, *, up: bool | None = None, mtu: int | None = None, gso_max_segs: int | None = None
    ) -> None:
        link = self._link(interface)
        wanted = {"up": up, "mtu": mtu, "gso_max_segs": gso_max_segs}
        link = replace(link, **{key: value for key, value in wanted.items() if value is not None})  # type: ignore[arg-type]
        self._links[interface] = link
        if up is False:
            self._routes = [route for route in self._routes if route.interface != interface]
        if up:
            for address in self._addresses:
                if address.interface == interface:
                    self._connect(address)
        self._changed()

    async def remove_link(self, interface: str) -> None:
        self._links.pop(interface, None)
        self._addresses = [address for address in self._addresses if address.interface != interface]
        self._routes = [route for route in self._routes if route.interface != interface]
        self._changed()

    async def addresses(self) -> tuple[Address, ...]:
        return tuple(self._addresses)

    async def add_address(self, address: Address) -> None:
        link = self._link(address.interface)
        taken = {(other.interface, other.value.ip) for other in self._addresses if other.value == address.value}
        if (address.interface, address.value.ip) in taken:
            raise OperationFailed(explain(errno.EEXIST, f"adding the {address}"))
        self._addresses.append(address)
        if link.up:
            self._connect(address)
        self._changed()

    async def remove_address(self, address: Address) -> None:
        self._link(address.interface)
        if address in self._addresses:
            self._addresses.remove(address)
            kept = {other.value.network for other in self._addresses if other.interface == address.interface}
            connected = Route(address.value.network, address.interface)
            if address.value.network not in kept and connected in self._routes:
                self._routes.remove(connected)
        self._changed()

    def _connect(self, address: Address) -> None:
        network = address.value.network
        route = Route(network, address.interface, protocol=PROTOCOL_KERNEL)
        # A lone IPv4 address has no connected route (it is in the local table only); a lone IPv6 address has.
        if (network.version == 6 or network.prefixlen < network.max_prefixlen) and route not in self._routes:
            self._routes.append(route)

    async def routes(self) -> tuple[Route, ...]:
        return tuple(self._routes)

    async def add_route(self, route: Route) -> None:
        if not self._link(route.interface).up:
            raise OperationFailed(explain(errno.ENETDOWN, f"adding the {route}"))
        if any((other.network, other.table) == (route.network, route.table) for other in self._routes):
            raise OperationFailed(explain(errno.EEXIST, f"adding the {route}"))
        self._routes.append(route)
        self._changed()

    async def remove_route(self, route: Route) -> None:
        self._link(route.interface)
        if route in self._routes:
            self._routes.remove(route)
        self._changed()

    async def rules(self) -> tuple[Rule, ...]:
        return tuple(sorted(self._rules, key=lambda rule: (rule.version, rule.priority)))

    async def add_rule(self, rule: Rule) -> None:
        if rule in self._rules:
            raise OperationFailed(explain(errno.EEXIST, f"adding the {rule}"))
        self._rules.append(rule)

    async def remove_rule(self, rule: Rule) -> None:
        if rule in self._rules:
            self._rules.remove(rule)

    async def path_to(self, destination: IPAddress, fwmark: int = 0) -> Path | None:
        rules = [rule for rule in await self.rules() if rule.version == destination.version and not rule.foreign]
        for rule in rules:
            if rule.fwmark and (rule.fwmark == fwmark) == rule.inverted:
                continue
            route = self._lookup(destination, rule.table)
            if route is None or route.network.prefixlen <= (
                -1 if rule.suppress_prefixlength is None else rule.suppress_prefixlength
            ):
                continue
            return Path(route.interface, route.mtu or self._links[route.interface].mtu)
        return None

    def _lookup(self, destination: IPAddress, table: int) -> Route | None:
        fitting = [route for route in self._routes if route.table == table and destination in route.network]
        return max(fitting, key=lambda route: route.network.prefixlen, default=None)

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            while True:
                await event.wait()
                event.clear()
                yield
        finally:
            self._listeners.discard(event)

    def _changed(self) -> None:
        for event in self._listeners:
            event.set()

    def _link(self, interface: str) -> Link:
        if interface not in self._links:
            raise OperationFailed(f"there is no interface {interface}")
        return self._links[interface]
