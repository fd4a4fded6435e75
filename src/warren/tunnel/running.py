"""One tunnel as a whole: its data plane, its peers' endpoints and its part of the host's configuration, made to
agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warren import log
from warren.errors import Unreachable
from warren.files import write_atomically
from warren.model.tunnel import PeerChange, TunnelChange
from warren.tunnel import preflight
from warren.tunnel.config import TunnelConfig
from warren.tunnel.desired import DefaultRoute
from warren.tunnel.journal import Journal
from warren.tunnel.lookups import Lookups
from warren.tunnel.network import Network
from warren.tunnel.render import render
from warren.tunnel.sync import difference
from warren.tunnel.world import DataPlane, World

_log = log.get("tunnel")


@dataclass(frozen=True, slots=True)
class Settings:
    """A config and what was decided where it leaves things open."""

    config: TunnelConfig
    mtu: int
    """Bytes."""
    default_route: DefaultRoute | None

    @property
    def mark(self) -> int:
        """The mark of encrypted packets; 0: none."""
        return self.default_route.mark if self.default_route is not None else self.config.fwmark or 0


class RunningTunnel:
    """``wake`` is called when something happened that :meth:`tend` or :attr:`ended` tells of.

    Errors: OperationFailed when the host or the data plane refused, Unreachable when the data plane does not answer;
    the tunnel stays usable, and what was made is in the journal.
    """

    def __init__(self, interface: str, config: TunnelConfig, world: World, journal: Journal, wake: Callable[[], None]):
        self.interface = interface
        self.settings = Settings(config, config.mtu or 0, None)
        """Those in force."""
        self.journal = journal
        self.network = Network(interface, world.doors, journal)
        self.lookups = Lookups(world.resolve, world.clock, wake)
        self._world = world
        self._wake = wake
        self._engine: DataPlane | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self.ended = False
        """The data plane has died, and nobody has given another."""

    @property
    def data_plane(self) -> DataPlane:
        """Raises Unreachable when there is none."""
        if self._engine is None:
            raise Unreachable(f"the data plane of {self.interface} does not run")
        return self._engine

    def use(self, engine: DataPlane) -> None:
        """Take ``engine`` as the data plane from now on; it ends with :meth:`close_engine` only."""
        self._engine = engine
        self.ended = False
        watcher = asyncio.create_task(self._watch(engine))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, engine: DataPlane) -> None:
        await engine.wait_closed()
        if engine is self._engine:
            self.ended = True
            self._wake()

    async def check(self, config: TunnelConfig) -> None:
        """Raises OperationFailed when the host cannot do what ``config`` wants; nothing is touched."""
        preflight.check_config(config, self._world.doors)
        await preflight.check_addresses(config, self.interface, self._world.doors)

    async def decide(self, config: TunnelConfig, mtu: int) -> Settings:
        """Choose what ``config`` leaves open. ``mtu`` is what the interface has; 0: derive it."""
        default_route = await self.network.choose_default_route(config)
        settings = Settings(config, config.mtu or mtu, default_route)
        if not settings.mtu:
            derived = await self.network.derive_mtu(self.lookups.destinations(), settings.mark)
            settings = Settings(config, derived, default_route)
        return settings

    async def settle(self, settings: Settings) -> int:
        """Make data plane and host agree with ``settings``; returns the number of differences there were."""
        status = await self.data_plane.status()
        endpoints = self.lookups.take_endpoints()
        change = difference(settings.config, status, settings.mark, endpoints)
        if change is not None:
            await self.data_plane.configure(change)
        count = await self.network.bring(settings.config, settings.mtu, settings.default_route)
        self.settings = settings
        return count + (0 if change is None else max(1, len(change.peers)))

    async def tend(self) -> None:
        """See whether the peers answer, do the lookups that are due, and set the addresses they gave."""
        if self.lookups.due_to_observe():
            self.lookups.observe((await self.data_plane.status()).peers, self._world.wall_clock_ns())
        self.lookups.start()
        endpoints = self.lookups.take_endpoints()
        if endpoints:
            peers = tuple(PeerChange(key, update_only=True, endpoint=address) for key, address in endpoints.items())
            await self.data_plane.configure(TunnelChange(peers=peers))
        for key, address in endpoints.items():
            _log.info("peer %s: trying %s", key.short, address)

    async def save(self, path: Path) -> None:
        """Write the tunnel as it is to a config file."""
        status = await self.data_plane.status()
        addresses = await self.network.addresses()
        mtu = await self.network.mtu() or self.settings.mtu
        text = render(self.settings.config, status, addresses, mtu, self.lookups.is_ours)
        write_atomically(path, text.encode())
        _log.info("%s written", path)

    async def remove(self) -> list[str]:
        """Remove everything; returns what failed, one sentence each."""
        failures = await self.network.clear()
        await self.close_engine()
        if not failures:
            self.journal.remove()
        return failures

    async def close_engine(self) -> None:
        """End the data plane, and with it the interface."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    async def let_go(self) -> None:
        """Stop looking after it; the data plane goes on if it was not closed."""
        await self.lookups.close()
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
