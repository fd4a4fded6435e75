"""The gateway's Caddy: kept running with the sites there are, watched, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from warren import log
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.ingress.config import configuration, ports_in
from warren.ingress.log_lines import Certificates, Line, LogFile
from warren.ingress.process import CaddyProcess
from warren.ingress.sites import Ports, Settings, Site
from warren.ingress.stored import AUTHORITIES, take_away_damaged

__all__ = ["Caddy", "Ports", "Settings", "Site"]

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
STEADY_S: Final = 60.0
"""One that has run for so long is started again at once when it ends."""
PORTS_TRIED: Final = 3

_log = log.get("caddy")


class Caddy:
    """Ends TLS and speaks HTTP for sites. :meth:`let_go` (or killing the process that has the object) leaves Caddy
    running: the next one finds it, and its connections go on.

    ``changed`` is set when :meth:`problems` or :attr:`ports` may be others than before.
    """

    def __init__(self, settings: Settings, peer_lookup: Path) -> None:
        self._settings = settings
        self._peer_lookup = peer_lookup
        self._sites: tuple[Site, ...] = ()
        self._process: CaddyProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._certificates = Certificates()
        self._log = LogFile(settings.log, self._hear)
        self._log_is_open = False
        self._down = ""
        self._removed: list[str] = []
        self._closed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.ports: Ports | None = None
        self.changed = asyncio.Event()

    async def ready(self) -> Ports:
        """Where sites will be: Caddy runs and listens there when this returns. It asks for certificates as soon as it
        has sites to keep, and the authority then comes by the front doors, which have to lead here by then.

        Raises as :meth:`keep` does.
        """
        async with self._one_at_a_time:
            if self._process is None:
                await self._begin()
            if self.ports is None:
                await self._serve(())
            if self.ports is None:
                raise Unreachable("Caddy has just ended; it is started again")
            return self.ports

    async def keep(self, sites: Sequence[Site]) -> Ports | None:
        """Serve these sites and no others from now on; where is returned, and stays while there are any.

        Without sites nothing runs, and None is returned. Raises OperationFailed when Caddy is not installed or does not
        take the configuration: what was in force before stays so, at :attr:`ports`. Raises Unreachable when it ended or
        hung meanwhile: another is started for these sites, and ``changed`` is set then.
        """
        wanted = tuple(sites)
        async with self._one_at_a_time:
            if not wanted:
                await self._end()
                return None
            if wanted != self._sites or self._process is None:
                await self._serve(wanted)
            self._sites = wanted
            self._certificates.keep_only(frozenset(domain for site in wanted for domain in site.domains))
            return self.ports

    def problems(self) -> Mapping[str, str]:
        """By connector, a sentence: that Caddy has ended, or why there is no certificate (both are tried again)."""
        found: dict[str, str] = {}
        for site in self._sites:
            trouble = self._down or self._certificates.trouble(site.domains)
            if trouble:
                found[site.connector] = trouble
        return found

    @property
    def pid(self) -> int | None:
        """Of Caddy; None while none runs."""
        return None if self._process is None else self._process.pid

    async def wait_closed(self) -> None:
        """Return after :meth:`close` or :meth:`let_go`; a Caddy that ends by itself is started again."""
        await self._closed.wait()

    async def close(self) -> None:
        """End Caddy, and with it all connections to sites."""
        async with self._one_at_a_time:
            await self._end()
        self._closed.set()

    async def let_go(self) -> None:
        """Look after it no more: Caddy and its connections go on, and the next object finds it."""
        async with self._one_at_a_time:
            await self._look_away()
            self._process = None
        self._closed.set()

    # Under the lock

    async def _serve(self, sites: tuple[Site, ...]) -> None:
        if self._process is None:
            await self._begin()
        try:
            await self._load(sites)
        except OperationFailed:
            if not self._sites:  # nothing half-configured stays behind
                await self._end()
            raise
        except Unreachable:  # it has just ended, or hangs: another is started, for what is wanted now
            self._sites = sites
            if self._process is not None:
                await self._process.close()
            raise
        self._down = ""

    async def _begin(self) -> None:
        self._make_directories()
        if not self._log_is_open:
            self._log.open()
            self._log_is_open = True
        try:
            process = await CaddyProcess.attach(self._settings)
            self.ports = ports_in(await process.config() or {})
        except Unreachable:
            self._look_through(self._settings.storage)
            process = await CaddyProcess.start(self._settings)
        self._process = process
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _load(self, sites: tuple[Site, ...]) -> None:
        process = self._process
        if process is None:
            raise Unreachable("Caddy has just ended; it is started again")
        for left in reversed(range(PORTS_TRIED)):
            ports = self.ports or _free_ports()
            try:
                await process.load(configuration(sites, self._settings, ports, self._peer_lookup))
            except OperationFailed as error:
                if not left:
                    raise
                if "address already in use" in str(error):
                    self.ports = None
                elif not self._look_through(self._settings.storage / AUTHORITIES):
                    raise
            else:
                self.ports = ports
                return

    async def _end(self) -> None:
        await self._stop_watching()
        if self._process is None:
            with contextlib.suppress(Unreachable):
                self._process = await CaddyProcess.attach(self._settings)
        if self._process is not None:
            await self._process.close()
            self._process = None
        await self._look_away()
        self.ports = None
        self._sites = ()
        self._down = ""

    async def _look_away(self) -> None:
        await self._stop_watching()
        if self._log_is_open:
            await self._log.close()
            self._log_is_open = False

    async def _stop_watching(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _make_directories(self) -> None:
        for directory in (self._settings.sockets, self._settings.storage):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
            except OSError as error:
                raise OperationFailed(f"{directory} cannot be made: {error.strerror}") from None

    def _look_through(self, directory: Path) -> bool:
        """Whether anything that Caddy had stored there had to be taken away."""
        removed = take_away_damaged(directory)
        if removed and removed != self._removed:  # while the disk is full, it is so each time
            _log.warning(
                "what Caddy had stored was cut off, on a full disk perhaps; it makes it again: %s", ", ".join(removed)
            )
        self._removed = removed or self._removed
        return bool(removed)

    # Watching

    async def _watch(self) -> None:
        """Start it again whenever it ends, with the sites that it had."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            process = self._process
            if process is not None:
                began = loop.time()
                await process.wait_closed()
                failures = 0 if loop.time() - began >= STEADY_S else failures
                async with self._one_at_a_time:
                    if self._process is process:
                        self._process = None
            wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)] if failures else 0.0
            failures += 1
            if process is not None:
                self._tell("Caddy has ended; it is started again")
            await asyncio.sleep(wait_s)
            async with self._one_at_a_time:
                if self._process is None:
                    await self._revive()

    async def _revive(self) -> None:
        try:
            await self._begin()
            await self._load(self._sites)
        except WarrenError as error:
            if self._process is not None:
                await self._process.close()
                self._process = None
            self._tell(str(error))
        else:
            self._down = ""
            self.changed.set()
            _log.info("Caddy runs again")

    def _tell(self, trouble: str) -> None:
        _log.warning("%s", trouble)
        self._down = trouble
        self.changed.set()

    def _hear(self, line: Line) -> None:
        if self._certificates.take(line):
            self.changed.set()


def _free_ports() -> Ports:
    """Two ports of loopback that nobody listens on now."""
    with socket.socket() as http, socket.socket() as https:
        for one in (http, https):
            one.bind(("127.0.0.1", 0))
        return Ports(http.getsockname()[1], https.getsockname()[1])
