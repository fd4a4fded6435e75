"""Relaying for other members: where this node is public, its operator wants it, and the NetworkSpec lets it.

The relay is a process of its own, which knows the members by their keys; who is a member no longer loses it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from warren import log
from warren.agent.config import OwnRelay
from warren.agent.network.apply import Ledger
from warren.errors import OperationFailed
from warren.model.documents import RelayOffer
from warren.relay.config import RelayConfig
from warren.relay.serve import Ready

RETRY_S: Final = 30.0
_TASK: Final = "relay"

_log = log.get("agent")


class Process(Protocol):
    """A relay (:class:`warren.relay.process.RelayProcess`)."""

    async def start(self) -> Ready: ...

    async def set_users(self, users: Mapping[str, str]) -> None: ...

    async def wait_closed(self) -> int: ...

    async def stop(self) -> None: ...


class Relaying:
    """Single owner. ``wake`` makes the network's next turn come soon; ``clock`` never goes back."""

    def __init__(
        self,
        network: str,
        state: Path,
        make: Callable[[RelayConfig], Process],
        ledger: Ledger,
        wake: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.offer: RelayOffer | None = None
        """What others may be told; None: this node does not relay now."""
        self._network = network
        self._state = state
        self._make = make
        self._ledger = ledger
        self._wake = wake
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._wanted: tuple[OwnRelay, int] | None = None
        self._users: Mapping[str, str] = {}
        self._users_changed = asyncio.Event()
        self._retry_at = 0.0

    async def keep(self, wanted: OwnRelay | None, port: int, users: Mapping[str, str]) -> None:
        """Relay as ``wanted`` for ``users`` (names and passwords); None: do not. ``port``: the tunnel's."""
        facts = None if wanted is None else (wanted, port)
        if facts != self._wanted:
            await self.close()
            self._wanted, self._retry_at = facts, 0.0
        if users != self._users:
            self._users = dict(users)
            self._users_changed.set()
        if facts is None:
            self._ledger.forget(_TASK)
        elif self._task is None and self._clock() >= self._retry_at:
            self._task = asyncio.create_task(self._run(*facts), name=f"relay of {self._network}")
            self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        task, self._task = self._task, None
        self.offer = None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, wanted: OwnRelay, port: int) -> None:
        config = RelayConfig(
            udp_port=wanted.udp_port,
            tls_port=wanted.tls_port,
            users=dict(self._users),
            own_ports=(port,),
            state=self._state,
        )
        process = self._make(config)
        try:
            ready = await process.start()
            self.offer = RelayOffer(
                udp_port=ready.udp_port, tls_port=ready.tls_port, certificate_sha256=ready.certificate_sha256
            )
            self._ledger.done(_TASK)
            self._wake()
            ended = asyncio.ensure_future(process.wait_closed())
            try:
                while not ended.done():
                    changed = asyncio.ensure_future(self._users_changed.wait())
                    await asyncio.wait({ended, changed}, return_when=asyncio.FIRST_COMPLETED)
                    changed.cancel()
                    self._users_changed.clear()
                    if not ended.done():
                        await process.set_users(self._users)
            finally:
                ended.cancel()
            raise OperationFailed("the relay has ended; the log says more")
        except OperationFailed as error:
            self._ledger.failed(_TASK, error)
        finally:
            with contextlib.suppress(OperationFailed):
                await process.stop()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task is not self._task:
            return
        self._task, self.offer = None, None
        self._retry_at = self._clock() + RETRY_S
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: this is a bug in Warren (%s: %s)", self._network, type(error).__name__, error)
        self._wake()
