"""The names of this node's networks, as the host asks for them: one resolver for all, and the host told to use it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warren import log
from warren.errors import OperationFailed
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


class HostNames:
    """The real :class:`warren.agent.world.Names`. dnspython is imported when the first network has names."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._one_at_a_time = asyncio.Lock()  # networks are tasks of their own, the host has one resolver
        self._resolver: Resolver | None = None
        self._split: SplitDns | None = None
        self._zones: dict[object, Zone] = {}
        self._addresses: dict[str, tuple[IPAddress, ...]] = {}
        self._engaged: dict[str, tuple[IPAddress, tuple[str, ...]]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, run: Path) -> AsyncIterator[HostNames]:
        """For as long as the block runs; then the host asks whom it asked before. ``run`` is the agent's directory."""
        from warren.dns.split import recover

        try:
            said = await recover(run=run)
            if said:
                _log.info("%s", said)
        except OperationFailed as error:
            _log.warning("%s", error)
        names = cls(run)
        checker = asyncio.create_task(names._check(), name="check of DNS")
        try:
            yield names
        finally:
            checker.cancel()
            await asyncio.gather(checker, return_exceptions=True)
            await names._close()

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
            from warren.dns.resolver import Resolver
            from warren.dns.split import choose

            self._resolver = Resolver()
            self._split = await choose(self._resolver.forward_to, run=self._run)
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
