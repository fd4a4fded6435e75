"""The controller of one tunnel: brings it up or adopts it, keeps it, reloads it, takes it down.

The data plane is another process; this one may be killed at any moment and started again without a packet lost. All
work is done in one task, one thing after the other; signals, lookups and the end of the data plane only leave a note
and wake it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from warren import log
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.model.tunnel import PeerChange, TunnelChange, TunnelStatus
from warren.tunnel import hooks, preflight
from warren.tunnel.config import TunnelConfig
from warren.tunnel.desired import DefaultRoute
from warren.tunnel.files import ConfigFile, load, write_atomically
from warren.tunnel.journal import Journal
from warren.tunnel.lookups import Lookups
from warren.tunnel.network import Network
from warren.tunnel.render import render
from warren.tunnel.sync import difference
from warren.tunnel.world import DataPlane, World

RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 60.0
RETRY_S: Final = 2.0
"""Before the data plane is asked again after it did not answer, or refused."""
STEADY_S: Final = 60.0
"""A data plane that ran this long has not failed because of its start: the back-off begins anew."""

_NOTHING = TunnelStatus(None, 0, 0)
_log = log.get("tunnel")


class Stopped(Exception):
    """The user asked to stop before the tunnel was up; nothing of it is left."""


@dataclass(frozen=True, slots=True)
class _Settings:
    """A config and what was decided where it leaves things open."""

    config: TunnelConfig
    mtu: int
    default_route: DefaultRoute | None

    @property
    def mark(self) -> int:
        return self.default_route.mark if self.default_route is not None else self.config.fwmark or 0


class Controller:
    """:meth:`run` it once; :meth:`stop` and :meth:`reload` may be called at any time, e.g. by a signal handler."""

    def __init__(self, file: ConfigFile, config: TunnelConfig, world: World, journal: Journal) -> None:
        self._file = file
        self._interface = file.interface
        self._world = world
        self._journal = journal
        self._network = Network(file.interface, world.doors, journal)
        self._settings = _Settings(config, config.mtu or 0, None)
        self._wake = asyncio.Event()
        self._lookups = Lookups(world.resolve, world.clock, self._wake.set)
        self._engine: DataPlane | None = None
        self._engine_ended = asyncio.Event()
        self._started_at = 0.0
        self._restart_s = RESTART_FIRST_S
        self._stopping = asyncio.Event()
        self._reload_asked = False
        self._network_changed = False
        self._watchers: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def reload(self) -> None:
        self._reload_asked = True
        self._wake.set()

    async def run(self) -> None:
        """Run the tunnel until :meth:`stop`. Raises WarrenError when it cannot come up, or when stopping left
        something.

        What was made for a tunnel that does not come up is removed; a tunnel that ran before stays as it is when it
        cannot be adopted.
        """
        try:
            if not await self._adopt():
                await self._bring_up()
            await self._serve()
            await self._take_down()
        except Stopped:
            _log.info("%s: stopped before it was up", self._interface)
        finally:
            await self._lookups.close()
            for watcher in self._watchers:
                watcher.cancel()
            await asyncio.gather(*self._watchers, return_exceptions=True)

    # Coming up

    async def _adopt(self) -> bool:
        """Take over a data plane that an earlier controller left running; False when there is none."""
        try:
            engine = await self._world.engines.attach(self._interface)
        except Unreachable:
            return False
        if not await _is_ours(engine):
            remedy = "stop it, or choose another --name"
            raise OperationFailed(f"interface {self._interface} is run by another WireGuard program; {remedy}")
        config = self._settings.config
        await self._check(config)
        self._use(engine)
        self._lookups.want(config)
        self._lookups.adopt((await engine.status()).peers)
        count = await self._settle(await self._decide(config, await self._network.mtu() or 0))
        what = f"{_count(count, 'difference')} to the config settled" if count else "nothing had to be changed"
        _log.info("%s runs already: took over its data plane, %s", self._interface, what)
        if not self._journal.ready:
            await self._make_or_remove(self._finish_start())
        return True

    async def _bring_up(self) -> None:
        """Raises WarrenError or Stopped; nothing that was made is then left."""
        config = self._settings.config
        await self._forget_earlier()
        preflight.check_tun()
        await preflight.check_interface(self._interface, self._world.doors)
        await self._check(config)
        preflight.check_port(config.listen_port)
        await self._make_or_remove(self._make(config))

    async def _check(self, config: TunnelConfig) -> None:
        preflight.check_config(config, self._world.doors)
        await preflight.check_addresses(config, self._interface, self._world.doors)

    async def _forget_earlier(self) -> None:
        """Remove what a controller and a data plane that both died have left in the host."""
        if self._journal.made:
            _log.warning("%s: an earlier run ended without cleaning up; doing that now", self._interface)
            for failure in await self._network.clear():
                _log.warning("%s", failure)
        self._journal.remove()

    async def _make_or_remove(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``; when it fails, or the user asks to stop meanwhile, remove everything."""
        task = asyncio.create_task(work)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            task.result()
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for failure in await self._remove():
                _log.error("%s", failure)
            raise
        finally:
            stopping.cancel()

    async def _make(self, config: TunnelConfig) -> None:
        self._journal.write()
        await hooks.run("PreUp", config.pre_up, self._interface)
        self._lookups.want(config)
        await self._lookups.first()
        settings = await self._decide(config, 0)
        self._use(await self._world.engines.start(self._interface, settings.mtu))
        await self._settle(settings)
        await self._finish_start()

    async def _finish_start(self) -> None:
        await hooks.run("PostUp", self._settings.config.post_up, self._interface)
        self._journal.ready = True
        self._journal.write()
        status = await self._data_plane.status()
        peers = _count(len(status.peers), "peer")
        port, mtu = status.listen_port, self._settings.mtu
        _log.info("%s is up: UDP port %d, %s, MTU %d", self._interface, port, peers, mtu)

    async def _decide(self, config: TunnelConfig, mtu: int) -> _Settings:
        """``mtu`` is what the interface has; 0: derive it."""
        default_route = await self._network.choose_default_route(config)
        settings = _Settings(config, config.mtu or mtu, default_route)
        if not settings.mtu:
            derived = await self._network.derive_mtu(self._lookups.destinations(), settings.mark)
            settings = _Settings(config, derived, default_route)
        return settings

    async def _settle(self, settings: _Settings) -> int:
        """Make data plane and host agree with ``settings``; returns the number of differences there were."""
        status = await self._data_plane.status()
        endpoints = self._lookups.take_endpoints()
        change = difference(settings.config, status, settings.mark, endpoints)
        if change is not None:
            await self._data_plane.configure(change)
        count = await self._network.bring(settings.config, settings.mtu, settings.default_route)
        self._settings = settings
        return count + (0 if change is None else max(1, len(change.peers)))

    # Staying up

    async def _serve(self) -> None:
        self._watchers.append(asyncio.create_task(self._watch_network()))
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._tend()
                pause = self._lookups.seconds_left()
            except WarrenError as error:
                if not self._engine_ended.is_set():
                    _log.warning("%s", error)
                pause = RETRY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _tend(self) -> None:
        if self._engine_ended.is_set():
            await self._restart()
        if self._stopping.is_set():
            return
        if self._reload_asked:
            self._reload_asked = False
            await self._reload()
        if self._network_changed:
            self._network_changed = False
            self._lookups.hurry()
        if self._lookups.due_to_observe():
            self._lookups.observe((await self._data_plane.status()).peers, self._world.wall_clock_ns())
        self._lookups.start()
        endpoints = self._lookups.take_endpoints()
        if endpoints:
            peers = tuple(PeerChange(key, update_only=True, endpoint=address) for key, address in endpoints.items())
            await self._data_plane.configure(TunnelChange(peers=peers))
        for key, address in endpoints.items():
            _log.info("peer %s: trying %s", key.short, address)

    async def _reload(self) -> None:
        """Do what the file now says; when it cannot be done, say why and go on with what was."""
        before = self._settings
        try:
            loaded = load(self._file.path)
            await self._check(loaded.config)
            for warning in loaded.warnings:
                _log.warning("%s", warning)
            self._lookups.want(loaded.config)
            count = await self._settle(await self._decide(loaded.config, before.mtu))
        except (OperationFailed, Unreachable) as error:
            _log.error("%s; going on with the config as it was", error)
            self._lookups.want(before.config)
            await self._settle(before)
        except WarrenError as error:
            _log.error("%s; going on with the config as it was", error)
        else:
            what = f"{_count(count, 'difference')} settled" if count else "nothing has changed"
            _log.info("%s read again: %s", self._file.path, what)

    async def _restart(self) -> None:
        """The data plane has died: start another and tell it everything, until that works or we are to stop."""
        if self._world.clock() - self._started_at >= STEADY_S:
            self._restart_s = RESTART_FIRST_S
        while self._engine_ended.is_set() and not self._stopping.is_set():
            delay, self._restart_s = self._restart_s, min(2 * self._restart_s, RESTART_MAX_S)
            _log.error("the data plane of %s has ended; starting another in %.0f s", self._interface, delay)
            try:
                await asyncio.wait_for(self._stopping.wait(), delay)
            except TimeoutError:
                await self._start_again()

    async def _start_again(self) -> None:
        try:
            self._use(await self._world.engines.start(self._interface, self._settings.mtu))
            self._lookups.reset()
            await self._settle(self._settings)
        except WarrenError as error:
            _log.error("%s", error)
            await self._close_engine()
            self._engine_ended.set()
        else:
            _log.info("%s is up again", self._interface)

    @property
    def _data_plane(self) -> DataPlane:
        if self._engine is None:
            raise Unreachable(f"the data plane of {self._interface} does not run")
        return self._engine

    def _use(self, engine: DataPlane) -> None:
        self._engine = engine
        self._engine_ended.clear()
        self._started_at = self._world.clock()
        self._watchers = [watcher for watcher in self._watchers if not watcher.done()]
        self._watchers.append(asyncio.create_task(self._watch_engine(engine)))

    async def _watch_engine(self, engine: DataPlane) -> None:
        await engine.wait_closed()
        if engine is self._engine:
            self._engine_ended.set()
            self._wake.set()

    async def _watch_network(self) -> None:
        try:
            async for _ in self._world.doors.netlink.changes():
                self._network_changed = True
                self._wake.set()
        except (OSError, WarrenError) as error:
            _log.warning("changes of the network cannot be watched (%s); names are retried at their own pace", error)

    # Going down

    async def _take_down(self) -> None:
        config = self._settings.config
        _log.info("%s: stopping", self._interface)
        failures = await _failures(hooks.run("PreDown", config.pre_down, self._interface))
        if config.save_config:
            failures += await _failures(self._save())
        failures += await self._remove()
        failures += await _failures(hooks.run("PostDown", config.post_down, self._interface))
        for failure in failures[:-1]:
            _log.error("%s", failure)
        if failures:
            raise OperationFailed(failures[-1])
        _log.info("%s is down", self._interface)

    async def _save(self) -> None:
        """Write the tunnel as it is back to its config file. Raises WarrenError."""
        status = await self._data_plane.status()
        addresses = await self._network.addresses()
        mtu = await self._network.mtu() or self._settings.mtu
        text = render(self._settings.config, status, addresses, mtu, self._lookups.is_ours)
        write_atomically(self._file.path, text.encode())
        _log.info("%s written", self._file.path)

    async def _remove(self) -> list[str]:
        """Remove everything; returns what failed, one sentence each."""
        failures = await self._network.clear()
        await self._close_engine()
        if not failures:
            self._journal.remove()
        return failures

    async def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()


async def _is_ours(engine: DataPlane) -> bool:
    """Whether it knows our extension of the UAPI; another WireGuard program hangs up on it."""
    try:
        return bool(await engine.statistics())
    except Unreachable:
        return False


async def _failures(work: Coroutine[Any, Any, None]) -> list[str]:
    try:
        await work
    except WarrenError as error:
        return [str(error)]
    return []


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
