"""The stream process of a run directory, kept as long as it has something to do; it is started again when it ends,
and when it does not answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from warren import log
from warren.agent.streams.doors import Doors, Process
from warren.errors import WarrenError
from warren.l4.config import Config, Status
from warren.l4.kinds import Judge

AGAIN_S: Final = 1.0
"""Between two processes of which the first ended by itself."""
LOOK_S: Final = 20.0
"""Between looks whether it answers at all."""
HUNG_LOOKS: Final = 2
"""Each in vain takes half a minute more. One may be unlucky: an answer waits for a large configuration."""
SOCKET: Final = "streams.sock"

_log = log.get("streams")


class ProcessKeeper:
    """Single owner. ``wake`` is called when there is something to be looked at."""

    def __init__(
        self,
        run: Path,
        nest: Path | None,
        doors: Doors,
        resolver: Callable[[str], Sequence[str]],
        judge: Judge,
        wake: Callable[[], None],
    ) -> None:
        self.status = Status()
        """As it was last told."""
        self._run = run
        self._nest = nest
        self._doors = doors
        self._resolver = resolver
        self._judge = judge
        self._wake = wake
        self._process: Process | None = None
        self._configured: Config | None = None
        self._stale = False
        self._watching: list[asyncio.Task[None]] = []

    @property
    def holds(self) -> bool:
        """A process is held."""
        return self._process is not None

    @property
    def survives(self) -> bool:
        """There may be one of an agent before this one."""
        return self._process is None and (self._run / SOCKET).exists()

    def ask(self) -> None:
        """Have :meth:`reach` ask how it is."""
        self._stale = True

    async def reach(self, config: Config) -> None:
        """Have it do that; without entries none runs. Raises OperationFailed, Unreachable."""
        if not config.entries:
            if self.holds or self.survives:
                await self.end()
            return
        process = self._process or await self._open()
        if config != self._configured:
            self._configured = None
            self.status = await process.configure(config)
            self._configured = config
        elif self._stale:
            self.status = await process.status()
        self._stale = False

    async def end(self) -> None:
        """End it with its streams, also one that an agent before has left."""
        process = self._process
        await self.let_go()
        if process is None and not self.survives:
            return
        self.status = Status()
        await (process or await self._doors.open_process(self._run, self._nest)).close()

    async def let_go(self) -> None:
        """Look after it no more; it goes on."""
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self._process, self._configured = None, None

    async def _open(self) -> Process:
        process = await self._doors.open_process(self._run, self._nest)
        process.resolver = self._resolver
        process.judge = self._judge
        self._process, self._configured = process, None
        self._watching = [
            asyncio.create_task(self._see_end(process), name="the stream process's end"),
            asyncio.create_task(self._see_changes(process), name="news of the stream process"),
            asyncio.create_task(self._see_hang(process), name="whether the stream process answers"),
        ]
        return process

    async def _see_end(self, process: Process) -> None:
        await process.wait_closed()
        _log.warning("the stream process has ended, and its streams with it; another is started")
        await asyncio.sleep(AGAIN_S)
        if self._process is process:
            for other in self._watching[1:]:
                other.cancel()
            self._process, self._configured, self._watching = None, None, []
            self._wake()

    async def _see_changes(self, process: Process) -> None:
        while True:
            await process.changed.wait()
            process.changed.clear()
            self._stale = True
            self._wake()

    async def _see_hang(self, process: Process) -> None:
        """One that hangs takes no stream and moves none: it is ended, and so followed by another."""
        in_vain = 0
        while in_vain < HUNG_LOOKS:
            await asyncio.sleep(LOOK_S)
            try:
                await process.status()
            except WarrenError:
                in_vain += 1
            else:
                in_vain = 0
        _log.warning("the stream process does not answer: it is ended, and its streams with it")
        await process.close()
