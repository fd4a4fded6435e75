"""One process of the gateway's Caddy, of several that follow each other: its directory, its ports, its log."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from warren.errors import OperationFailed, Unreachable
from warren.ingress.config import configuration, doors_in, ports_in
from warren.ingress.log_lines import Line, LogFile
from warren.ingress.process import CaddyProcess
from warren.ingress.sites import Json, Ports, Settings, Site
from warren.ingress.stored import AUTHORITIES, Repairs

PORTS_TRIED: Final = 3
LOOK_EVERY_S: Final = 10.0


def numbers(settings: Settings) -> list[int]:
    """Of the generations that have a directory, the earliest first."""
    try:
        return sorted(int(path.name) for path in settings.generations.iterdir() if path.name.isdecimal())
    except OSError:
        return []


class Generation:
    """Made by :meth:`start` or :meth:`attach`. It ends by :meth:`close`; :meth:`let_go` leaves it running."""

    def __init__(
        self, settings: Settings, process: CaddyProcess, heard: Callable[[Line], None], repairs: Repairs
    ) -> None:
        self.ports: Ports | None = None
        """Where it listens, when it has been told what to serve."""
        self._settings = settings
        self._process = process
        self._repairs = repairs
        self._config: Json | None = None
        self._log = LogFile(settings.log, heard)

    @classmethod
    async def start(cls, settings: Settings, number: int, heard: Callable[[Line], None], repairs: Repairs) -> Self:
        """With nothing to serve yet. ``heard`` is called with each line of its log. Raises OperationFailed."""
        own = replace(settings, generation=number)
        for directory in (own.generations, own.sockets, own.storage):
            _make(directory)
        if numbers(settings) == [number]:  # no other writes there now
            repairs.look_through(own.storage)
        try:
            made = cls(own, await CaddyProcess.start(own), heard, repairs)
        except BaseException:
            _remove(own)
            raise
        made._log.open()
        return made

    @classmethod
    async def attach(cls, settings: Settings, number: int, heard: Callable[[Line], None], repairs: Repairs) -> Self:
        """One that runs already. Raises Unreachable when there is none (any more): one that hangs is ended."""
        own = replace(settings, generation=number)
        try:
            found = cls(own, CaddyProcess.attach(own), heard, repairs)
        except Unreachable:
            _remove(own)
            raise
        if not found.finishes:
            try:
                found._config = await found._process.config()
            except Unreachable:
                await found.close()
                raise
            found.ports = ports_in(found._config or {})
        found._log.open()
        return found

    @property
    def number(self) -> int:
        return self._settings.generation

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def finishes(self) -> bool:
        """:meth:`finish` was called, maybe by an agent before this one."""
        return self._mark.exists()

    def serves(self, sites: Sequence[Site], peer_lookup: Path) -> bool:
        """Whether it does these and no others already."""
        return self.ports is not None and self._config == configuration(sites, self._settings, self.ports, peer_lookup)

    async def serve(self, sites: Sequence[Site], peer_lookup: Path, at: Ports | None = None) -> None:
        """Serve these and no others from now on, ``at`` these ports if it has none yet and they are free. This ends
        its WebSockets. Raises OperationFailed when Caddy does not take that (it goes on as before), and Unreachable.
        """
        for left in reversed(range(PORTS_TRIED)):
            ports = self.ports or at or _free_ports()
            config = configuration(sites, self._settings, ports, peer_lookup)
            try:
                await self._process.load(config)
            except OperationFailed as error:
                if not left:
                    raise
                if "address already in use" in str(error):
                    self.ports = at = None
                elif not self._repairs.look_through(self._settings.storage / AUTHORITIES):
                    raise
            else:
                self.ports, self._config = ports, config
                return

    async def over(self) -> str:
        """Return when it has ended or was ended because it hangs; which of both."""
        while not await self.ended(LOOK_EVERY_S):
            if await self.hangs():
                await self._process.close()
                return "Caddy did not answer any more and was ended"
        return "Caddy has ended"

    async def ended(self, within_s: float) -> bool:
        """Wait so long for its end; whether it came."""
        return await self._process.ended(within_s)

    async def hangs(self) -> bool:
        """See :meth:`CaddyProcess.hangs <warren.ingress.process.CaddyProcess.hangs>`."""
        return await self._process.hangs()

    def leave(self) -> None:
        """New connections go elsewhere: those that are there end with their next request, WebSockets excepted."""
        with contextlib.suppress(OSError):
            self._settings.left.touch()

    async def finish(self, within_s: float) -> None:
        """Answer what is under way, for so long, and end."""
        with contextlib.suppress(OSError):
            self._mark.touch()
        await self._process.finish(within_s)

    async def end(self) -> None:
        """End the process alone; what is under way is cut off."""
        await self._process.close()

    async def close(self) -> None:
        """End it, if it has not ended, and remove what it leaves; what is under way is cut off."""
        await self._process.close()
        await self._log.close()
        for path in doors_in(self._config or {}):  # it removes them itself, unless it is killed
            path.unlink(missing_ok=True)
        _remove(self._settings)

    async def let_go(self) -> None:
        """It goes on."""
        await self._log.close()

    @property
    def _mark(self) -> Path:
        return self._settings.sockets / "finishes"


def _make(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise OperationFailed(
            f"{directory} cannot be made: {error.strerror}; let the agent's user write to {directory.parent}"
        ) from None


def _remove(settings: Settings) -> None:
    shutil.rmtree(settings.sockets, ignore_errors=True)
    with contextlib.suppress(OSError):  # others are there
        settings.generations.rmdir()


def _free_ports() -> Ports:
    """Two ports of loopback that nobody listens on now."""
    with socket.socket() as http, socket.socket() as https:
        for one in (http, https):
            one.bind(("127.0.0.1", 0))
        return Ports(http.getsockname()[1], https.getsockname()[1])
