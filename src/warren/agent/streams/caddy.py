"""Caddy of a gateway, kept while there are web sites; without any, nothing of it is left in the run directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from warren.agent.streams.doors import Doors, Web
from warren.errors import WarrenError
from warren.ingress.sites import Ports, Settings, Site


class WebKeeper:
    """Single owner. ``wake`` is called when there is something to be looked at."""

    def __init__(self, lookup: Path, doors: Doors, wake: Callable[[], None]) -> None:
        self.ports: Ports | None = None
        """Where Caddy listens; None: it does not run."""
        self.problem = ""
        """Why it does not, though there are sites."""
        self._lookup = lookup
        self._doors = doors
        self._wake = wake
        self._web: Web | None = None
        self._settings: Settings | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def problems(self) -> Mapping[str, str]:
        """By site, what Caddy says is wrong."""
        return {} if self._web is None else dict(self._web.problems())

    async def find(self, settings: Settings) -> None:
        """Know where one is that an agent before has left, if there is one: streams to it shall not end."""
        if self._web is None and settings.generations.exists():
            self.ports = await self._use(settings).find()

    async def keep(self, settings: Settings, sites: Sequence[Site]) -> None:
        """Have it serve these; without sites none runs, nor one that an agent before has left.

        The first time it only says where it is (:attr:`ports`): call again when the front doors lead there.
        """
        if not sites and self._web is None and not settings.generations.exists():
            self._clear()
            return
        if settings != self._settings:
            await self.close()
            self._use(settings)
        web = self._web
        if web is None:
            return
        try:
            self.ports, self.problem = await (web.ready() if sites and self.ports is None else web.keep(sites)), ""
        except WarrenError as error:  # what was in force before still is, if there was anything
            self.ports, self.problem = web.ports, str(error)
        if not sites:
            await self.close()
            self._clear()

    async def close(self) -> None:
        """End it."""
        if (web := await self._forget()) is not None:
            await web.close()

    async def let_go(self) -> None:
        """Look after it no more; it goes on."""
        if (web := await self._forget()) is not None:
            await web.let_go()

    def _clear(self) -> None:
        """Remove the directory of the sites' sockets: those of a stream process that was killed are still there."""
        directory = self._lookup.parent
        with contextlib.suppress(OSError):
            for path in directory.glob("*.sock"):
                path.unlink(missing_ok=True)
            directory.rmdir()

    async def _forget(self) -> Web | None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        web, self._web = self._web, None
        self._settings, self.ports, self.problem = None, None, ""
        return web

    def _use(self, settings: Settings) -> Web:
        self._settings = settings
        self._web = web = self._doors.make_web(settings, self._lookup)
        self._watching = asyncio.create_task(self._see(web), name="news of Caddy")
        return web

    async def _see(self, web: Web) -> None:
        while True:
            await web.changed.wait()
            web.changed.clear()
            self._wake()
