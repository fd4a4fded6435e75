"""Who of this process is connected, and what wakes them: one task listens to the service for all sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from warren import log
from warren.coordinator.web.metrics import Metrics
from warren.errors import WarrenError

if TYPE_CHECKING:
    from warren.coordinator.service import Service
    from warren.coordinator.wakes import Wake
    from warren.coordinator.web.node_session import NodeSession

_log = log.get("coordinator.nodes")
RETRY_S: Final = 1.0
WAKE_SPACING_S: Final = 2e-4
"""Per session: so long after all of a network were woken they are not woken again. To tell one of a change takes a
third of that; in a storm of changes the rest is for making them, and each session is told of many at once.
"""


class Hub:
    """The sessions of the nodes that were let in, one per node and network. Single owner: the event loop."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._networks: dict[bytes, dict[bytes, NodeSession]] = {}
        self._quiet: dict[bytes, asyncio.TimerHandle] = {}
        """Networks whose sessions were woken just now, and the end of that."""
        self._later: dict[bytes, int | None] = {}
        """The revision that they reached meanwhile."""

    def join(self, session: NodeSession) -> None:
        """``session`` is let in. An older one of the same node ends: it reconnected before we noticed."""
        sessions = self._networks.setdefault(session.network, {})
        older = sessions.get(session.node)
        sessions[session.node] = session
        if older is not None:
            older.replaced()
        else:
            self._metrics.node_sessions.inc()

    def leave(self, session: NodeSession) -> None:
        sessions = self._networks.get(session.network, {})
        if sessions.get(session.node) is session:
            del sessions[session.node]
            self._metrics.node_sessions.dec()
            if not sessions:
                del self._networks[session.network]

    def session(self, network: bytes, node: bytes) -> NodeSession | None:
        return self._networks.get(network, {}).get(node)

    def sessions(self, network: bytes | None = None) -> Iterator[NodeSession]:
        """Of one network, or all; a copy, since waking one may end another."""
        networks = self._networks.values() if network is None else [self._networks.get(network, {})]
        yield from [session for sessions in networks for session in sessions.values()]

    async def run(self) -> None:
        """Wake sessions until the service is closed. When the service fails, listen anew, and wake everybody:
        something may have been missed.
        """
        try:
            await self._listen()
        finally:
            for timer in self._quiet.values():
                timer.cancel()
            self._quiet.clear()
            self._later.clear()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._service.watch() as wakes:
                    for session in self.sessions():
                        session.wake(None)
                    async for wake in wakes:
                        self._heed(wake)
                return  # the service was closed
            except WarrenError as error:
                _log.warning("changes are not heard of for the moment: %s", error)
            await asyncio.sleep(RETRY_S)

    def _heed(self, wake: Wake) -> None:
        if wake.node is None:
            if wake.network in self._quiet:
                self._later[wake.network] = wake.revision
            else:
                self._wake_all(wake.network, wake.revision)
            return
        session_of_node = self.session(wake.network, wake.node)
        if session_of_node is None:
            return
        if wake.ended is not None:
            if wake.session is None or wake.session == session_of_node.id:
                session_of_node.refuse(wake.ended)
        elif wake.signal is not None:
            session_of_node.signal(wake.signal.node, wake.signal.data)
        else:
            session_of_node.wake(wake.revision)

    def _wake_all(self, network: bytes, revision: int | None) -> None:
        sessions = list(self.sessions(network))
        for session in sessions:
            session.wake(revision)
        if sessions:
            spacing_s = WAKE_SPACING_S * len(sessions)
            self._quiet[network] = asyncio.get_running_loop().call_later(spacing_s, self._quiet_ends, network)

    def _quiet_ends(self, network: bytes) -> None:
        del self._quiet[network]
        if network in self._later:
            self._wake_all(network, self._later.pop(network))
