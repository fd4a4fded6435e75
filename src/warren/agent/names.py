"""The names of this node's networks, as programs ask for them: one resolver for all, and programs told to use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warren import log
from warren.errors import OperationFailed
from warren.l4.overlay import OverlaySockets
from warren.model.documents import NetworkSpec
from warren.model.netmap import Member
from warren.model.tunnel import IPAddress

if TYPE_CHECKING:
    from warren.dns.names import Zone
    from warren.dns.resolver import Resolver
    from warren.dns.split import SplitDns

CHECK_S: Final = 30.0
"""How often it is seen whether others have changed what the host asks."""

_log = log.get("dns")

Tools = Callable[[], Awaitable[tuple["Resolver", "SplitDns"]]]


class OwnNames:
    """The real :class:`warren.agent.world.Names`. dnspython is imported when the first network has names."""

    def __init__(self, make_tools: Tools) -> None:
        self._make_tools = make_tools
        self._one_at_a_time = asyncio.Lock()  # networks are tasks of their own, the node has one resolver
        self._resolver: Resolver | None = None
        self._split: SplitDns | None = None
        self._zones: dict[object, Zone] = {}
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._engaged: dict[str, tuple[IPAddress, tuple[str, ...]]] = {}

    @classmethod
    @asynccontextmanager
    async def of_host(cls, run: Path) -> AsyncIterator[OwnNames]:
        """Names for this host, for as long as the block runs; then it asks whom it asked before. ``run`` is the
        agent's directory.
        """
        from warren.dns.split import recover

        try:
            said = await recover(run=run)
            if said:
                _log.info("%s", said)
        except OperationFailed as error:
            _log.warning("%s", error)

        async def make() -> tuple[Resolver, SplitDns]:
            from warren.dns.resolver import Resolver
            from warren.dns.split import choose

            resolver = Resolver()
            return resolver, await choose(resolver.forward_to, run=run)

        async with cls(make).kept() as names:
            yield names

    @classmethod
    @asynccontextmanager
    async def of_nest(cls, sockets: OverlaySockets, file: Path) -> AsyncIterator[OwnNames]:
        """Names for programs in the nest that ``sockets`` are of; ``file`` is what those have as resolv.conf(5)."""

        async def make() -> tuple[Resolver, SplitDns]:
            from warren.dns.nest import NestDns
            from warren.dns.resolv_conf import ResolvConf
            from warren.dns.resolver import Resolver

            def is_own(address: IPAddress) -> bool:
                return address.is_loopback or address in resolver.addresses

            resolver = Resolver(own=is_own, open_socket=sockets.open)
            return resolver, NestDns(resolver.forward_to, file, ResolvConf())

        async with cls(make).kept() as names:
            yield names

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[OwnNames]:
        """Look after it for as long as the block runs."""
        checker = asyncio.create_task(self._check(), name="check of DNS")
        try:
            yield self
        finally:
            checker.cancel()
            await asyncio.gather(checker, return_exceptions=True)
            await self._close()

    async def serve(
        self, interface: str, addresses: Sequence[IPAddress], spec: NetworkSpec, members: Sequence[Member]
    ) -> None:
        """See :class:`warren.agent.world.Names`."""
        from warren.dns.names import records

        async with self._one_at_a_time:
            resolver, split = await self._tools()
            zone = records(spec, members)
            self._zones[interface], self._addresses[interface] = zone, tuple(addresses)
            resolver.serve(self._zones)
            await resolver.listen(self._all_addresses())
            wanted = (addresses[0], zone.domains)
            if self._engaged.get(interface) != wanted:
                await split.engage(interface, *wanted)
                self._engaged[interface] = wanted

    async def stop(self, interface: str) -> None:
        """See :class:`warren.agent.world.Names`."""
        async with self._one_at_a_time:
            if self._resolver is None or self._split is None or interface not in self._zones:
                return
            del self._zones[interface], self._addresses[interface]
            self._engaged.pop(interface, None)
            try:
                await self._split.disengage(interface)
            finally:
                self._resolver.serve(self._zones)
                await self._resolver.listen(self._all_addresses())

    def _all_addresses(self) -> set[IPAddress]:
        return {address for addresses in self._addresses.values() for address in addresses}

    async def _tools(self) -> tuple[Resolver, SplitDns]:
        if self._resolver is None or self._split is None:
            self._resolver, self._split = await self._make_tools()
            _log.info("names are asked for through %s", self._split.description)
        return self._resolver, self._split

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            async with self._one_at_a_time:
                if self._split is not None and self._engaged:
                    try:
                        await self._split.check()
                    except OperationFailed as error:
                        _log.warning("%s", error)

    async def _close(self) -> None:
        if self._split is not None:
            with contextlib.suppress(OperationFailed):  # told when it was tried; the next start tries again
                await self._split.restore()
        if self._resolver is not None:
            await self._resolver.close()
