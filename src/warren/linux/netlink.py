"""The door to rtnetlink(7): links, addresses, routes and policy rules of the network namespace it was opened in.

Only this file uses pyroute2 (imported when opened: that takes 0.1 s). :class:`KernelNetlink` is the real door and
:class:`~warren.linux.netlink_memory.MemoryNetlink` its twin; both pass the same conformance tests. A door carries out,
it decides nothing.

Errors: :class:`~warren.errors.OperationFailed` with a sentence when the kernel refuses; the door stays usable.
Removing what is not there is no error; adding what is there already is one.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Protocol

from warren.errors import OperationFailed
from warren.linux.netlink_messages import (
    FAMILIES,
    address_of,
    address_request,
    link_of,
    route_mtu,
    route_of,
    route_request,
    rule_of,
    rule_request,
)
from warren.linux.netlink_values import Address, Link, Path, Route, Rule, explain
from warren.model.tunnel import IPAddress

_RTMGRP = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; IPv4 addresses and routes; IPv6 addresses and routes
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT})


class Netlink(Protocol):
    """What the rest of Warren asks of the network configuration of its namespace."""

    async def links(self) -> tuple[Link, ...]:
        """All interfaces."""

    async def set_link(
        self, interface: str, *, up: bool | None = None, mtu: int | None = None, gso_max_segs: int | None = None
    ) -> None:
        """Change what is not None."""

    async def remove_link(self, interface: str) -> None:
        """Remove a virtual interface."""

    async def addresses(self) -> tuple[Address, ...]:
        """All addresses of all interfaces."""

    async def add_address(self, address: Address) -> None:
        """An IPv6 address that is not ``lasting`` is the source of connections only for who binds to it."""

    async def remove_address(self, address: Address) -> None: ...

    async def routes(self) -> tuple[Route, ...]:
        """The unicast and local routes of all tables but the kernel's own (local)."""

    async def add_route(self, route: Route) -> None: ...

    async def remove_route(self, route: Route) -> None: ...

    async def rules(self) -> tuple[Rule, ...]:
        """All rules that look up a table, both families, by priority."""

    async def add_rule(self, rule: Rule) -> None: ...

    async def remove_rule(self, rule: Rule) -> None: ...

    async def path_to(self, destination: IPAddress, fwmark: int = 0) -> Path | None:
        """How a packet with that mark would leave; None when there is no way."""

    def changes(self) -> AsyncIterator[None]:
        """Yields whenever links, addresses or routes may have changed; what changed is to be read afresh."""


@asynccontextmanager
async def open_netlink() -> AsyncIterator[Netlink]:
    """The real door, for as long as the block runs."""
    from warren.linux.pyroute import iproute_class

    async with iproute_class()() as iproute:
        yield KernelNetlink(iproute)


class KernelNetlink:
    """rtnetlink through an open ``AsyncIPRoute``, which stays the caller's. Several tasks may use it: the kernel
    answers one question of a socket at a time (else EBUSY), so they wait for each other.
    """

    def __init__(self, iproute: Any) -> None:
        self._iproute = iproute
        self._one_at_a_time = asyncio.Lock()

    async def _ask(self, request: Callable[[], Awaitable[Any]]) -> list[Any]:
        """What ``request`` is answered, all of it."""
        async with self._one_at_a_time:
            answer = await request()
            return [message async for message in answer] if hasattr(answer, "__aiter__") else list(answer or ())

    async def links(self) -> tuple[Link, ...]:
        return tuple(link_of(message) for message in await self._ask(self._iproute.get_links))

    async def set_link(
        self, interface: str, *, up: bool | None = None, mtu: int | None = None, gso_max_segs: int | None = None
    ) -> None:
        wanted: dict[str, Any] = {"mtu": mtu, "gso_max_segs": gso_max_segs}
        if up is not None:
            wanted["state"] = "up" if up else "down"
        wanted = {key: value for key, value in wanted.items() if value is not None}
        index = await self._index(interface)
        with _refusals(f"setting {' '.join(f'{key} {value}' for key, value in wanted.items())} of {interface}"):
            await self._ask(partial(self._iproute.link, "set", index=index, **wanted))

    async def remove_link(self, interface: str) -> None:
        names = {link.name: link.index for link in await self.links()}
        if interface in names:
            with _refusals(f"removing the interface {interface}", ignore=_GONE):
                await self._ask(partial(self._iproute.link, "del", index=names[interface]))

    async def addresses(self) -> tuple[Address, ...]:
        names = await self._names()
        found = (address_of(message, names) for message in await self._ask(self._iproute.get_addr))
        return tuple(address for address in found if address is not None)

    async def add_address(self, address: Address) -> None:
        request = address_request(address, await self._index(address.interface), adds=True)
        with _refusals(f"adding the {address}"):
            await self._ask(partial(self._iproute.addr, "add", **request))

    async def remove_address(self, address: Address) -> None:
        request = address_request(address, await self._index(address.interface))
        with _refusals(f"removing the {address}", ignore=_GONE):
            await self._ask(partial(self._iproute.addr, "del", **request))

    async def routes(self) -> tuple[Route, ...]:
        names = await self._names()
        found = []
        for family in FAMILIES.values():
            for message in await self._ask(partial(self._iproute.get_routes, family=family)):
                route = route_of(message, names)
                if route is not None:
                    found.append(route)
        return tuple(found)

    async def add_route(self, route: Route) -> None:
        request = route_request(route, await self._index(route.interface))
        with _refusals(f"adding the {route}"):
            await self._ask(partial(self._iproute.route, "add", **request))

    async def remove_route(self, route: Route) -> None:
        request = route_request(route, await self._index(route.interface))
        with _refusals(f"removing the {route}", ignore=_GONE):
            await self._ask(partial(self._iproute.route, "del", **request))

    async def rules(self) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for version, family in FAMILIES.items():
            messages = await self._ask(partial(self._iproute.get_rules, family=family))
            # A rule without a table is a goto, blackhole, prohibit …
            found += [rule_of(message, version) for message in messages if message.get_attr("FRA_TABLE")]
        return tuple(sorted(found, key=lambda rule: (rule.version, rule.priority)))

    async def add_rule(self, rule: Rule) -> None:
        with _refusals(f"adding the {rule}"):
            await self._ask(partial(self._iproute.rule, "add", **rule_request(rule)))

    async def remove_rule(self, rule: Rule) -> None:
        with _refusals(f"removing the {rule}", ignore=_GONE):
            await self._ask(partial(self._iproute.rule, "del", **rule_request(rule)))

    async def path_to(self, destination: IPAddress, fwmark: int = 0) -> Path | None:
        from pyroute2.netlink.exceptions import NetlinkError

        request: dict[str, Any] = {"dst": str(destination), "family": FAMILIES[destination.version]}
        if fwmark:
            request["mark"] = fwmark
        try:
            answers = await self._ask(partial(self._iproute.route, "get", **request))
        except NetlinkError as error:
            if error.code in _UNREACHABLE:
                return None
            raise OperationFailed(explain(error.code, f"asking for the way to {destination}")) from None
        links = {link.index: link for link in await self.links()}
        for answer in answers:
            link = links.get(answer.get_attr("RTA_OIF"))
            if link is not None:
                return Path(link.name, route_mtu(answer) or link.mtu)
        return None

    async def changes(self) -> AsyncIterator[None]:
        from warren.linux.pyroute import iproute_class

        async with iproute_class()() as listener:
            await listener.bind(groups=_RTMGRP)
            while True:
                async for _ in listener.get():  # ends with each batch of messages
                    yield

    async def _names(self) -> dict[int, str]:
        return {link.index: link.name for link in await self.links()}

    async def _index(self, interface: str) -> int:
        try:
            return socket.if_nametoindex(interface)
        except OSError:
            raise OperationFailed(f"there is no interface {interface}") from None


@contextmanager
def _refusals(what: str, ignore: frozenset[int] = frozenset()) -> Iterator[None]:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in ignore:
            raise OperationFailed(explain(error.code, what)) from None
