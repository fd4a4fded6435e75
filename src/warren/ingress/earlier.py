"""Processes of Caddy that another one has followed: each goes on for the WebSockets that it has, and then ends."""

from __future__ import annotations

import asyncio
from operator import itemgetter
from typing import Final

from warren import log
from warren.ingress.generation import Generation
from warren.ingress.lookup import Lookup

EARLIER_MAX: Final = 3
"""Each takes some 40 MB. When there are more, the one is ended that has WebSockets of the fewest clients, and those end
with it; of equals the oldest. So whoever keeps one at each of them does not cut off all others.
"""
EARLIER_FOR_S: Final = 12 * 3600.0
"""After that it is ended whatever it still has: it goes by a configuration of then."""
FINISH_WITHIN_S: Final = 3600.0
"""For the requests that are under way when its last WebSocket is gone."""
LOOK_EVERY_S: Final = 10.0
"""Also how long there is for new connections to be led elsewhere."""

_log = log.get("caddy")


class _Leaving:
    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.enough = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Earlier:
    """Single owner."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._leaving: list[_Leaving] = []

    def __len__(self) -> int:
        return len(self._leaving)

    async def add(self, generation: Generation) -> None:
        """See it off. Call it for the one that was followed last after all others."""
        generation.leave()
        leaving = _Leaving(generation)
        self._leaving.append(leaving)
        leaving.task = asyncio.create_task(self._see_off(leaving), name=f"Caddy {generation.number}")
        kept = [one for one in self._leaving if not one.enough.is_set()]
        if len(kept) > EARLIER_MAX:
            clients = await asyncio.gather(*(self._clients(one.generation) for one in kept))
            still = [pair for pair in zip(clients, kept, strict=True) if pair[1] in self._leaving]
            if len(still) > EARLIER_MAX:
                min(still, key=itemgetter(0))[1].enough.set()

    async def close(self) -> None:
        """End all of them at once."""
        leaving = await self._look_away()
        await asyncio.gather(*(one.generation.close() for one in leaving))

    async def let_go(self) -> None:
        """They go on, and whoever comes next sees them off."""
        for one in await self._look_away():
            await one.generation.let_go()

    async def _clients(self, generation: Generation) -> int:
        """How many would be cut off, as far as is known."""
        if generation.ports is None or generation.finishes:
            return 0
        return await self._lookup.websockets(generation.ports) or 0

    async def _look_away(self) -> list[_Leaving]:
        leaving, self._leaving = self._leaving, []
        tasks = [one.task for one in leaving if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return leaving

    async def _see_off(self, leaving: _Leaving) -> None:
        generation = leaving.generation
        waiting = asyncio.create_task(self._wait(generation))
        enough = asyncio.create_task(leaving.enough.wait())
        try:
            await asyncio.wait({waiting, enough}, timeout=EARLIER_FOR_S, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                _log.warning(
                    "an earlier process of Caddy is ended with what it still has: there are too many, or too old"
                )
        finally:
            for task in (waiting, enough):
                task.cancel()
            await asyncio.gather(waiting, enough, return_exceptions=True)
        await generation.close()
        self._leaving = [one for one in self._leaving if one is not leaving]

    async def _wait(self, generation: Generation) -> None:
        """Until it has nothing left, or has ended, or hangs."""
        ports = generation.ports
        while not generation.finishes and ports is not None:
            if await generation.ended(LOOK_EVERY_S) or await generation.hangs():
                return
            if await self._lookup.websockets(ports) == 0:
                break
        await generation.finish(FINISH_WITHIN_S)
