"""What other replicas tell of: changes they made, sessions that moved to them, signals for nodes that are here."""

from __future__ import annotations

import asyncio

from warren import log
from warren.coordinator.core import Core
from warren.coordinator.maps import Maps
from warren.coordinator.notices import RevisionReached, SessionEnded, SignalSent, read_notice
from warren.coordinator.problems import Problem
from warren.coordinator.sessions import Sessions

_log = log.get("coordinator")


class Following:
    """One event loop; :meth:`close` at the end."""

    def __init__(self, core: Core, sessions: Sessions, maps: Maps) -> None:
        self._core = core
        self._sessions = sessions
        self._maps = maps
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heard(self, notice: str | None) -> None:
        """``notice`` came, on this loop; None: some may have been missed."""
        self._core.metrics.notices += 1
        match None if notice is None else read_notice(notice):
            case SignalSent() as sent:
                self._sessions.hand_over(sent)
            case SessionEnded(network, node, session):
                self._sessions.end_older(network, node, session)
            case RevisionReached(network, revision):
                if revision > self._core.reached.get(network, 0):
                    self._begin({network: revision})
            case None if notice is None:
                self._begin(None)

    def _begin(self, touched: dict[bytes, int] | None) -> None:
        task = asyncio.create_task(self._follow(touched))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, touched: dict[bytes, int] | None) -> None:
        try:
            await (self._maps.catch_up() if touched is None else self._maps.changed(touched))
        except Problem as problem:
            _log.warning("a change made elsewhere is told later: %s", problem)
