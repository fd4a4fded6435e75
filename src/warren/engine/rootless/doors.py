"""The doors of ``linux/`` for the network of a nest: each request is carried out by its helper, with the real door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path as FilePath
from typing import Any, Final

from warren.engine.rootless import messages
from warren.engine.rootless.blocking import BlockingLine
from warren.engine.rootless.calls import Line
from warren.errors import MalformedPacket, OperationFailed, Unreachable
from warren.linux.netlink_values import Address, Link, Path, Route, Rule
from warren.linux.nft import Command, Table
from warren.linux.tcp_sockets import TcpSocket, pack_sockets, sockets_untrusted
from warren.model.tunnel import IPAddress, IPNetwork

CONNECTIONS_PATIENCE_S: Final = 60.0
"""A hundred thousand are listed in two seconds, and the helper does other things meanwhile."""


class NestNetlink:
    """A :class:`~warren.linux.netlink.Netlink`. A helper that does not answer is an OperationFailed too."""

    def __init__(self, path: FilePath) -> None:
        self._path = path
        self._line = Line(path)

    async def _ask(self, request: messages.Request, kind: Any = None) -> Any:
        try:
            return await self._line.ask(request, kind)
        except Unreachable as error:
            raise OperationFailed(str(error)) from error

    async def links(self) -> tuple[Link, ...]:
        found: tuple[Link, ...] = await self._ask(messages.Links(), tuple[Link, ...])
        return found

    async def set_link(
        self, interface: str, *, up: bool | None = None, mtu: int | None = None, gso_max_segs: int | None = None
    ) -> None:
        await self._ask(messages.SetLink(interface, up, mtu, gso_max_segs))

    async def remove_link(self, interface: str) -> None:
        await self._ask(messages.RemoveLink(interface))

    async def addresses(self) -> tuple[Address, ...]:
        found = await self._ask(messages.Addresses(), tuple[messages.WireAddress, ...])
        return tuple(_understood(messages.address_untrusted, wire) for wire in found)

    async def add_address(self, address: Address) -> None:
        await self._ask(messages.AddAddress(messages.pack_address(address)))

    async def remove_address(self, address: Address) -> None:
        await self._ask(messages.RemoveAddress(messages.pack_address(address)))

    async def routes(self) -> tuple[Route, ...]:
        found = await self._ask(messages.Routes(), tuple[messages.WireRoute, ...])
        return tuple(_understood(messages.route_untrusted, wire) for wire in found)

    async def add_route(self, route: Route) -> None:
        await self._ask(messages.AddRoute(messages.pack_route(route)))

    async def remove_route(self, route: Route) -> None:
        await self._ask(messages.RemoveRoute(messages.pack_route(route)))

    async def rules(self) -> tuple[Rule, ...]:
        found: tuple[Rule, ...] = await self._ask(messages.Rules(), tuple[Rule, ...])
        return found

    async def add_rule(self, rule: Rule) -> None:
        await self._ask(messages.AddRule(rule))

    async def remove_rule(self, rule: Rule) -> None:
        await self._ask(messages.RemoveRule(rule))

    async def path_to(self, destination: IPAddress, fwmark: int = 0) -> Path | None:
        found: Path | None = await self._ask(messages.PathTo(str(destination), fwmark), Path | None)
        return found

    async def changes(self) -> AsyncIterator[None]:
        """Raises OperationFailed when the helper ends; whoever watches then reads afresh and begins again."""
        line = Line(self._path)
        try:
            await line.ask(messages.Watch())
            while True:
                await line.next_answer()
                yield
        except Unreachable as error:
            raise OperationFailed(str(error)) from error
        finally:
            line.close()

    def close(self) -> None:
        self._line.close()


class NestNft:
    """An :class:`~warren.linux.nft.Nft`. It blocks, as the real one does."""

    def __init__(self, line: BlockingLine) -> None:
        self._line = line

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        request = messages.RunNft([dict(command) for command in document])
        listed: list[dict[str, Any]] = _now(self._line, request, list[dict[str, Any]])
        return listed

    def tables(self) -> frozenset[Table]:
        return frozenset(Table(*pair) for pair in _now(self._line, messages.NftTables(), list[tuple[str, str]]))


class NestTcp:
    """A :class:`~warren.linux.tcp_sockets.TcpSockets`. Its connection to the helper is its own: among very many
    sockets an answer takes seconds.
    """

    def __init__(self, path: FilePath) -> None:
        self._line = Line(path, CONNECTIONS_PATIENCE_S)

    async def connections(self, local: Sequence[IPNetwork]) -> Sequence[TcpSocket]:
        rows: bytes = await self._ask(messages.Connections(tuple(map(str, local))), bytes)
        return await asyncio.to_thread(_understood, sockets_untrusted, rows)

    async def end(self, sockets: Sequence[TcpSocket]) -> int | None:
        count: int | None = await self._ask(messages.EndConnections(pack_sockets(sockets)), int | None)
        return count

    async def _ask(self, request: messages.Request, kind: Any) -> Any:
        try:
            return await self._line.ask(request, kind)
        except Unreachable as error:
            raise OperationFailed(str(error)) from error

    def close(self) -> None:
        self._line.close()


class NestSysctls:
    """A :class:`~warren.linux.sysctl.Sysctls` of what is below ``net``."""

    def __init__(self, line: BlockingLine) -> None:
        self._line = line

    def get(self, name: str) -> str | None:
        value: str | None = _now(self._line, messages.GetSysctl(name), str | None)
        return value

    def set(self, name: str, value: str) -> None:
        _now(self._line, messages.SetSysctl(name, value))


def _now(line: BlockingLine, request: messages.Request, kind: Any = None) -> Any:
    try:
        return line.ask(request, kind)
    except Unreachable as error:
        raise OperationFailed(str(error)) from error


def _understood(decode: Any, wire: Any) -> Any:
    try:
        return decode(wire)
    except MalformedPacket as error:
        raise OperationFailed(
            f"the rootless engine is of another version of Warren ({error}); start it again"
        ) from None
