"""The controller of one tunnel: brings it up or adopts it, keeps it, reloads it, takes it down.

The data plane is another process; this one may be killed at any moment and started again without a packet lost. All
work is done in one task, one thing after the other; signals, lookups and the end of the data plane only leave a note
and wake it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

from warren import log
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.tunnel import hooks, preflight
from warren.tunnel.config import TunnelConfig
from warren.tunnel.files import ConfigFile, load
from warren.tunnel.journal import Journal
from warren.tunnel.running import RunningTunnel
from warren.tunnel.world import DataPlane, World

RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 60.0
RETRY_S: Final = 2.0
"""Before the data plane is asked again after it did not answer, or refused."""
STEADY_S: Final = 60.0
"""A data plane that ran this long has not failed because of its start: the back-off begins anew."""

_log = log.get("tunnel")


class Stopped(Exception):
    """The user asked to stop before the tunnel was up; nothing of it is left."""


class Controller:
    """:meth:`run` it once; :meth:`stop` and :meth:`reload` may be called at any time, e.g. by a signal handler."""

    def __init__(self, file: ConfigFile, config: TunnelConfig, world: World, journal: Journal) -> None:
        self._file = file
        self._interface = file.interface
        self._world = world
        self._wake = asyncio.Event()
        self._tunnel = RunningTunnel(file.interface, config, world, journal, self._wake.set)
        self._started_at = 0.0
        self._restart_s = RESTART_FIRST_S
        self._stopping = asyncio.Event()
        self._reload_asked = False
        self._network_changed = False

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def reload(self) -> None:
        self._reload_asked = True
        self._wake.set()

    async def run(self) -> None:
        """Run the tunnel until :meth:`stop`.

        Raises WarrenError when it cannot come up, or when stopping left something. What was made for a tunnel that does
        not come up is removed; a tunnel that ran before stays as it is when it cannot be adopted.
        """
        watcher = asyncio.create_task(self._watch_network())
        try:
            if not await self._adopt():
                await self._bring_up()
            await self._serve()
            await self._take_down()
        except Stopped:
            _log.info("%s: stopped before it was up", self._interface)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            await self._tunnel.let_go()

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
        tunnel, config = self._tunnel, self._tunnel.settings.config
        await tunnel.check(config)
        self._use(engine)
        tunnel.lookups.want(config)
        tunnel.lookups.adopt((await engine.status()).peers)
        count = await tunnel.settle(await tunnel.decide(config, await tunnel.network.mtu() or 0))
        what = f"{_count(count, 'difference')} to the config settled" if count else "nothing had to be changed"
        _log.info("%s runs already: took over its data plane, %s", self._interface, what)
        if not tunnel.journal.ready:
            await self._make_or_remove(self._finish_start())
        return True

    async def _bring_up(self) -> None:
        """Raises WarrenError or Stopped; nothing that was made is then left."""
        config = self._tunnel.settings.config
        await self._forget_earlier()
        preflight.check_tun()
        await preflight.check_interface(self._interface, self._world.doors)
        await self._tunnel.check(config)
        preflight.check_port(config.listen_port)
        await self._make_or_remove(self._make(config))

    async def _forget_earlier(self) -> None:
        """Remove what a controller and a data plane that both died have left in the host."""
        if self._tunnel.journal.made:
            _log.warning("%s: an earlier run ended without cleaning up; doing that now", self._interface)
            for failure in await self._tunnel.network.clear():
                _log.warning("%s", failure)
        self._tunnel.journal.remove()

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
            for failure in await self._tunnel.remove():
                _log.error("%s", failure)
            raise
        finally:
            stopping.cancel()

    async def _make(self, config: TunnelConfig) -> None:
        tunnel = self._tunnel
        tunnel.journal.write()
        await hooks.run("PreUp", config.pre_up, self._interface)
        tunnel.lookups.want(config)
        await tunnel.lookups.first()
        settings = await tunnel.decide(config, 0)
        self._use(await self._world.engines.start(self._interface, settings.mtu))
        await tunnel.settle(settings)
        await self._finish_start()

    async def _finish_start(self) -> None:
        tunnel = self._tunnel
        await hooks.run("PostUp", tunnel.settings.config.post_up, self._interface)
        tunnel.journal.ready = True
        tunnel.journal.write()
        status = await tunnel.data_plane.status()
        peers = _count(len(status.peers), "peer")
        port, mtu = status.listen_port, tunnel.settings.mtu
        _log.info("%s is up: UDP port %d, %s, MTU %d", self._interface, port, peers, mtu)

    def _use(self, engine: DataPlane) -> None:
        self._started_at = self._world.clock()
        self._tunnel.use(engine)

    # Staying up

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._tend()
                pause = self._tunnel.lookups.seconds_left()
            except WarrenError as error:
                if not self._tunnel.ended:
                    _log.warning("%s", error)
                pause = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _tend(self) -> None:
        if self._tunnel.ended:
            await self._restart()
        if self._stopping.is_set():
            return
        if self._reload_asked:
            self._reload_asked = False
            await self._reload()
        if self._network_changed:
            self._network_changed = False
            self._tunnel.lookups.hurry()
        await self._tunnel.tend()

    async def _watch_network(self) -> None:
        try:
            async for _ in self._world.doors.netlink.changes():
                self._network_changed = True
                self._wake.set()
        except (OSError, WarrenError) as error:
            _log.warning("changes of the network cannot be watched (%s); names are retried at their own pace", error)

    async def _reload(self) -> None:
        """Do what the file now says; when it cannot be done, say why and go on with what was."""
        tunnel, before = self._tunnel, self._tunnel.settings
        try:
            loaded = load(self._file.path)
            await tunnel.check(loaded.config)
            for warning in loaded.warnings:
                _log.warning("%s", warning)
            tunnel.lookups.want(loaded.config)
            count = await tunnel.settle(await tunnel.decide(loaded.config, before.mtu))
        except (OperationFailed, Unreachable) as error:
            _log.error("%s; going on with the config as it was", error)
            tunnel.lookups.want(before.config)
            await tunnel.settle(before)
        except WarrenError as error:
            _log.error("%s; going on with the config as it was", error)
        else:
            what = f"{_count(count, 'difference')} settled" if count else "nothing has changed"
            _log.info("%s read again: %s", self._file.path, what)

    async def _restart(self) -> None:
        """The data plane has died: start another and tell it everything, until that works or we are to stop."""
        if self._world.clock() - self._started_at >= STEADY_S:
            self._restart_s = RESTART_FIRST_S
        while self._tunnel.ended and not self._stopping.is_set():
            delay, self._restart_s = self._restart_s, min(2 * self._restart_s, RESTART_MAX_S)
            _log.error("the data plane of %s has ended; starting another in %.0f s", self._interface, delay)
            try:
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            except TimeoutError:
                await self._start_again()

    async def _start_again(self) -> None:
        tunnel = self._tunnel
        try:
            self._use(await self._world.engines.start(self._interface, tunnel.settings.mtu))
            tunnel.lookups.reset()
            await tunnel.settle(tunnel.settings)
        except WarrenError as error:
            _log.error("%s", error)
            await tunnel.close_engine()
            tunnel.ended = True
        else:
            _log.info("%s is up again", self._interface)

    # Going down

    async def _take_down(self) -> None:
        tunnel, config = self._tunnel, self._tunnel.settings.config
        _log.info("%s: stopping", self._interface)
        failures = await _failures(hooks.run("PreDown", config.pre_down, self._interface))
        if config.save_config:
            failures += await _failures(tunnel.save(self._file.path))
        failures += await tunnel.remove()
        failures += await _failures(hooks.run("PostDown", config.post_down, self._interface))
        for failure in failures[:-1]:
            _log.error("%s", failure)
        if failures:
            raise OperationFailed(failures[-1])
        _log.info("%s is down", self._interface)


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
