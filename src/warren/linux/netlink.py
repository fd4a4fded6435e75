"""The door to rtnetlink(7): links, addresses, routes and policy rules of the network namespace it was opened in.

Only this file imports pyroute2 (when opened: the import takes 0.3 s). :class:`KernelNetlink` is the real door and
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
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Protocol

from warren.errors import OperationFailed
from warren.linux.netlink_values import TABLE_LOCAL, Address, Link, Path, Route, Rule, explain
from warren.model.tunnel import IPAddress

_IFF_UP = 1
_ARPHRD_ETHER = 1
_FIB_RULE_INVERT = 2
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_IFA_TEMPORARY = 0x01  # of IPv6; of IPv4 it says "secondary"
_IFA_PASSING = 0x08 | 0x20 | 0x40  # duplicate, deprecated, tentative
_IFA_F_NODAD = 0x02  # RFC 4862 §5.4: duplicate address detection
_NO_SUPPRESSION = 0xFFFFFFFF
_FOREVER = 0xFFFFFFFF
_FULL_MASK = 0xFFFFFFFF
_RTMGRP = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; IPv4 addresses and routes; IPv6 addresses and routes
_GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV})
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.EAFNOSUPPORT})
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_RULE_KEYS = frozenset(
    f"FRA_{key}" for key in ("TABLE", "PRIORITY", "FWMARK", "FWMASK", "SUPPRESS_PREFIXLEN", "PROTOCOL")
)


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
    from pyroute2 import AsyncIPRoute

    async with AsyncIPRoute() as iproute:
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
        return tuple(_link(message) for message in await self._ask(self._iproute.get_links))

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
        found = []
        for message in await self._ask(self._iproute.get_addr):
            local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            if message["index"] in names and local is not None:
                value = ip_interface((local, message["prefixlen"]))
                flags = message.get_attr("IFA_FLAGS") or message["flags"]
                passing = flags & (_IFA_PASSING | (_IFA_TEMPORARY if value.version == 6 else 0))
                found.append(Address(names[message["index"]], value, not passing))
        return tuple(found)

    async def add_address(self, address: Address) -> None:
        request = await self._address_request(address)
        if address.value.version == 6:
            # A tunnel has nobody to ask whether the address is taken, and until it has asked the kernel lets none bind.
            request["flags"] = _IFA_F_NODAD
            if not address.lasting:
                request |= {"preferred_lft": 0, "valid_lft": _FOREVER}  # deprecated: the kernel then prefers others
        with _refusals(f"adding the {address}"):
            await self._ask(partial(self._iproute.addr, "add", **request))

    async def remove_address(self, address: Address) -> None:
        with _refusals(f"removing the {address}", ignore=_GONE):
            await self._ask(partial(self._iproute.addr, "del", **await self._address_request(address)))

    async def _address_request(self, address: Address) -> dict[str, Any]:
        value = address.value
        index = await self._index(address.interface)
        return {"index": index, "address": str(value.ip), "prefixlen": value.network.prefixlen}

    async def routes(self) -> tuple[Route, ...]:
        names = await self._names()
        found = []
        for family in _FAMILIES.values():
            for message in await self._ask(partial(self._iproute.get_routes, family=family)):
                route = _route(message, names)
                if route is not None:
                    found.append(route)
        return tuple(found)

    async def add_route(self, route: Route) -> None:
        with _refusals(f"adding the {route}"):
            await self._ask(partial(self._iproute.route, "add", **await self._route_request(route)))

    async def remove_route(self, route: Route) -> None:
        with _refusals(f"removing the {route}", ignore=_GONE):
            await self._ask(partial(self._iproute.route, "del", **await self._route_request(route)))

    async def _route_request(self, route: Route) -> dict[str, Any]:
        request: dict[str, Any] = {
            "family": _FAMILIES[route.network.version],
            "dst": str(route.network),
            "oif": await self._index(route.interface),
            "table": route.table,
            "proto": route.protocol,
        }
        if route.mtu:
            request["metrics"] = {"mtu": route.mtu}
        if route.local:
            request["type"] = _RTN_LOCAL
        if route.gateway is not None:
            request["gateway"] = str(route.gateway)
        elif route.local:
            request["scope"] = _SCOPE_HOST
        elif route.network.version == 4:
            request["scope"] = _SCOPE_LINK  # as ip-route(8) does for a route without a gateway
        return request

    async def rules(self) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for version, family in _FAMILIES.items():
            messages = await self._ask(partial(self._iproute.get_rules, family=family))
            # A rule without a table is a goto, blackhole, prohibit …
            found += [_rule(message, version) for message in messages if message.get_attr("FRA_TABLE")]
        return tuple(sorted(found, key=lambda rule: (rule.version, rule.priority)))

    async def add_rule(self, rule: Rule) -> None:
        with _refusals(f"adding the {rule}"):
            await self._ask(partial(self._iproute.rule, "add", **_rule_request(rule)))

    async def remove_rule(self, rule: Rule) -> None:
        with _refusals(f"removing the {rule}", ignore=_GONE):
            await self._ask(partial(self._iproute.rule, "del", **_rule_request(rule)))

    async def path_to(self, destination: IPAddress, fwmark: int = 0) -> Path | None:
        from pyroute2.netlink.exceptions import NetlinkError

        request: dict[str, Any] = {"dst": str(destination), "family": _FAMILIES[destination.version]}
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
                return Path(link.name, _route_mtu(answer) or link.mtu)
        return None

    async def changes(self) -> AsyncIterator[None]:
        from pyroute2 import AsyncIPRoute

        async with AsyncIPRoute() as listener:
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


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return Link(
        message.get_attr("IFLA_IFNAME"),
        message["index"],
        bool(message["flags"] & _IFF_UP),
        message.get_attr("IFLA_MTU"),
        message.get_attr("IFLA_GSO_MAX_SEGS") or 0,
        kind or "",
        message.get_attr("IFLA_ADDRESS") or "" if message["ifi_type"] == _ARPHRD_ETHER else "",
    )


def _route(message: Any, names: dict[int, str]) -> Route | None:
    table = message.get_attr("RTA_TABLE") or message["table"]
    interface = names.get(message.get_attr("RTA_OIF"))
    version = {family: version for version, family in _FAMILIES.items()}.get(message["family"])
    local = message["type"] == _RTN_LOCAL
    if not (local or message["type"] == _RTN_UNICAST) or table == TABLE_LOCAL or interface is None or version is None:
        return None
    anywhere = "0.0.0.0" if version == 4 else "::"  # noqa: S104 - a route's destination
    gateway = message.get_attr("RTA_GATEWAY")
    return Route(
        ip_network((message.get_attr("RTA_DST") or anywhere, message["dst_len"])),
        interface,
        table,
        None if gateway is None else ip_address(gateway),
        _route_mtu(message),
        message["proto"],
        local,
    )


def _route_mtu(message: Any) -> int:
    metrics = message.get_attr("RTA_METRICS")
    return 0 if metrics is None else metrics.get_attr("RTAX_MTU") or 0


def _rule(message: Any, version: int) -> Rule:
    mark, mask = message.get_attr("FRA_FWMARK") or 0, message.get_attr("FRA_FWMASK")
    suppress = message.get_attr("FRA_SUPPRESS_PREFIXLEN")
    keys = {name for name, _ in message["attrs"]}
    selects = message["dst_len"] or message["src_len"] or message["tos"] or not keys <= _RULE_KEYS
    return Rule(
        version,
        message.get_attr("FRA_PRIORITY") or 0,
        message.get_attr("FRA_TABLE"),
        mark,
        bool(message["flags"] & _FIB_RULE_INVERT),
        None if suppress in (None, _NO_SUPPRESSION) else suppress,
        bool(selects or (mark and mask != _FULL_MASK)),
    )


def _rule_request(rule: Rule) -> dict[str, Any]:
    request: dict[str, Any] = {
        "family": _FAMILIES[rule.version],
        "priority": rule.priority,
        "table": rule.table,
        "flags": _FIB_RULE_INVERT if rule.inverted else 0,
    }
    if rule.fwmark:
        request["fwmark"] = rule.fwmark
    if rule.suppress_prefixlength is not None:
        request["FRA_SUPPRESS_PREFIXLEN"] = rule.suppress_prefixlength
    return request
