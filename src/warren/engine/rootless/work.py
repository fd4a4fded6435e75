"""What the helper does for a request, with the real doors, in the network namespace it lives in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, NamedTuple

from warren.engine.rootless import messages
from warren.engine.rootless.blocking import Descriptors, close_all
from warren.engine.rootless.messages import (
    SOCKETS_MAX,
    Request,
    address_untrusted,
    prefixes_untrusted,
    route_untrusted,
)
from warren.errors import MalformedPacket, OperationFailed
from warren.linux.netlink import Netlink, open_netlink
from warren.linux.nft import LibNft, Nft
from warren.linux.sysctl import ProcSysctls, Sysctls
from warren.linux.tcp_sockets import END_MAX, connections_now, end_now, pack_sockets, sockets_untrusted
from warren.linux.tun import Tun
from warren.model.tunnel import IPNetwork

_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET})
_SYSCTLS: Final = "net/"


class Done(NamedTuple):
    """The value of an answer, and descriptors that go with it and are then closed."""

    value: Any = None
    descriptors: Descriptors = []  # noqa: RUF012 - never changed


class Work:
    """Carries out requests. Doors are opened when they are first needed: rtnetlink's takes 0.3 s to import.

    Errors: OperationFailed with the reason; MalformedPacket for a request that makes no sense.
    """

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._netlink: Netlink | None = None
        self._nft: Nft | None = None
        self._sysctls: Sysctls = ProcSysctls()

    async def do(self, request: Request) -> Done:
        match request:
            case messages.OpenSockets():
                return Done(None, _sockets(request))
            case messages.MakeTun(name):
                return _tun(name)
            case messages.Namespaces():
                return Done(None, _namespaces())
            case messages.RunNft(document):
                return Done(self.nft.run(document))
            case messages.NftTables():
                return Done(sorted(tuple(table) for table in self.nft.tables()))
            case messages.GetSysctl(name):
                return Done(self._sysctls.get(_checked(name)))
            case messages.SetSysctl(name, value):
                self._sysctls.set(_checked(name), value)
                return Done()
            case messages.Connections(prefixes):
                return Done(await asyncio.to_thread(_connections, prefixes_untrusted(prefixes)))
            case messages.EndConnections(sockets):
                return Done(await asyncio.to_thread(_end, sockets))
            case _:
                return Done(await self._ask_netlink(request))

    async def changes(self) -> AsyncIterator[None]:
        netlink = await self._door()
        async for _ in netlink.changes():
            yield

    async def close(self) -> None:
        await self._stack.aclose()

    @property
    def nft(self) -> Nft:
        if self._nft is None:
            self._nft = LibNft()
        return self._nft

    async def _door(self) -> Netlink:
        if self._netlink is None:
            self._netlink = await self._stack.enter_async_context(open_netlink())
        return self._netlink

    async def _ask_netlink(self, request: Request) -> Any:
        netlink = await self._door()
        match request:
            case messages.Links():
                return await netlink.links()
            case messages.SetLink(interface, up, mtu, gso_max_segs):
                await netlink.set_link(interface, up=up, mtu=mtu, gso_max_segs=gso_max_segs)
            case messages.RemoveLink(interface):
                await netlink.remove_link(interface)
            case messages.Addresses():
                return [messages.pack_address(address) for address in await netlink.addresses()]
            case messages.AddAddress(address):
                await netlink.add_address(address_untrusted(address))
            case messages.RemoveAddress(address):
                await netlink.remove_address(address_untrusted(address))
            case messages.Routes():
                return [messages.pack_route(route) for route in await netlink.routes()]
            case messages.AddRoute(route):
                await netlink.add_route(route_untrusted(route))
            case messages.RemoveRoute(route):
                await netlink.remove_route(route_untrusted(route))
            case messages.Rules():
                return await netlink.rules()
            case messages.AddRule(rule):
                await netlink.add_rule(rule)
            case messages.RemoveRule(rule):
                await netlink.remove_rule(rule)
            case messages.PathTo(destination, fwmark):
                return await netlink.path_to(ip_address(destination), fwmark)
        return None


def _sockets(request: messages.OpenSockets) -> Descriptors:
    if request.family not in _FAMILIES or not 1 <= request.count <= SOCKETS_MAX:
        raise MalformedPacket("no such sockets are made here")
    kind = request.kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made: Descriptors = []
    try:
        for _ in range(request.count):
            made.append(socket.socket(request.family, kind, request.protocol).detach())
    except (OSError, OverflowError) as error:
        if not made:
            raise OperationFailed(f"no socket: {_strerror(error)}") from None
    return made


def _connections(prefixes: Sequence[IPNetwork]) -> bytes:
    return pack_sockets(connections_now(prefixes))


def _end(sockets: bytes) -> int | None:
    found = sockets_untrusted(sockets)
    if len(found) > END_MAX:
        raise MalformedPacket(f"more than {END_MAX} connections are not ended at once")
    return end_now(found)


def _tun(name: str) -> Done:
    tun = Tun.create(name)
    return Done(tun.udp_offload, [tun.fd])


def _namespaces() -> Descriptors:
    made: Descriptors = []
    try:
        for kind in ("user", "net"):
            made.append(os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        close_all(made)
        raise OperationFailed(f"the namespaces cannot be opened: {error.strerror}") from None
    return made


def _checked(name: str) -> str:
    if not name.startswith(_SYSCTLS) or ".." in Path(name).parts or "\0" in name:
        raise MalformedPacket("only settings of the network are at hand here")
    return name


def _strerror(error: Exception) -> str:
    return error.strerror or "it is refused" if isinstance(error, OSError) else os.strerror(errno.EINVAL)
