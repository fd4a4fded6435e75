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


class Hub:
    """The sessions of the nodes that were let in, one per node and network. Single owner: the event loop."""

    def __init__(self, service: Service, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._networks: dict[bytes, dict[bytes, NodeSession]] = {}

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
            for session in self.sessions(wake.network):
                session.wake(wake.revision)
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
