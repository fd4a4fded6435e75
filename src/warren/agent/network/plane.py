"""The data plane of one network: found, started, and started again when it dies.

It is a process of its own that outlives the agent. One that runs already is taken over when it is ours: it speaks our
extension of the UAPI, and has a key that this node had. Whatever else has the interface's name is left alone, and
another name is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final

from warren import log
from warren.agent.world import DataPlane, World
from warren.errors import OperationFailed, Unreachable
from warren.identity.keys import PublicKey

RESTART_FIRST_S: Final = 1.0
RESTART_MAX_S: Final = 60.0
STEADY_S: Final = 60.0
"""A data plane that ran this long has not failed because of its start: the back-off begins anew."""
DOUBTS_MAX: Final = 3
"""So often in a row it may fail to answer within its ten seconds; a starved machine answers late, but it does."""

_log = log.get("agent")


class Plane:
    """At most one data plane. ``wake`` is called when it has ended."""

    def __init__(self, network: str, world: World, wake: Callable[[], None]) -> None:
        self.interface = ""
        """Empty until there was one."""
        self.engine: DataPlane | None = None
        self._network = network
        self._world = world
        self._wake = wake
        self._watcher: asyncio.Task[None] | None = None
        self._began = 0.0
        self._wait_s = RESTART_FIRST_S
        self._doubts = 0
        self.retry_at: float | None = None
        """When a start is tried again; None: now."""

    @property
    def runs(self) -> bool:
        return self.engine is not None

    async def find(self, names: Iterable[str], taken: Collection[str], keys: Collection[PublicKey]) -> bool:
        """Settle on an interface, and take over the data plane that runs there, if one does: returns whether.

        ``names``: the interface of the last time first. ``taken``: those of this agent's other networks. ``keys``:
        what this node's public key is, was or will be. Raises OperationFailed when no name is left.
        """
        links = {link.name for link in await self._world.inside.links()}
        for name in dict.fromkeys(names):
            if not name or name in taken:
                continue
            try:
                engine = await self._world.engines.attach(name)
            except Unreachable:
                if name not in links:
                    self.interface = name
                    return False
                _log.warning("%s: interface %s exists already and is not ours: taking another", self._network, name)
                continue
            if await is_ours(engine, keys):
                self.interface = name
                self._use(engine)
                return True
            _log.warning("%s: interface %s is run by another program: taking another", self._network, name)
        raise OperationFailed(
            f"every interface name for {self._network} is taken; remove those that are not needed (`ip link`)"
        )

    async def start(self, mtu: int) -> None:
        """Start one on the interface. Raises OperationFailed; ``retry_at`` then says when to try again."""
        now = self._world.clock()
        self.retry_at = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, RESTART_MAX_S)
        self._use(await self._world.engines.start(self.interface, mtu))

    def due(self) -> bool:
        """Whether one is to be started now."""
        return self.engine is None and (self.retry_at is None or self._world.clock() >= self.retry_at)

    def _use(self, engine: DataPlane) -> None:
        self.engine = engine
        self.retry_at = None
        self._began = self._world.clock()
        self._watcher = asyncio.create_task(self._watch(engine), name=f"watch of {self.interface}")

    async def _watch(self, engine: DataPlane) -> None:
        await engine.wait_closed()
        if engine is self.engine:
            self.engine = None
            now = self._world.clock()
            if now - self._began >= STEADY_S:
                self._wait_s = RESTART_FIRST_S
            self.retry_at = now + self._wait_s
            _log.error(
                "%s: the data plane of %s has ended; starting another in %.0f s",
                self._network,
                self.interface,
                self._wait_s,
            )
            self._wake()

    async def doubt(self) -> None:
        """It did not answer. One that never does is ended, so that another takes its place."""
        self._doubts += 1
        if self._doubts >= DOUBTS_MAX and self.engine is not None:
            _log.error("%s: the data plane of %s runs but does not answer; ending it", self._network, self.interface)
            self._doubts = 0
            await self.engine.close()

    def trust(self) -> None:
        """It answers."""
        self._doubts = 0

    async def close(self) -> None:
        """End it, and with it the interface."""
        engine, self.engine = self.engine, None
        await self.let_go()
        if engine is not None:
            await engine.close()

    async def let_go(self) -> None:
        """Stop looking after it; it goes on if it was not closed."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


async def is_ours(engine: DataPlane, keys: Collection[PublicKey]) -> bool:
    """Whether it is one of Warren's that runs, and has one of ``keys`` or none yet."""
    try:
        if not await engine.statistics():  # another WireGuard program hangs up on that question
            return False
        private = (await engine.status()).private_key
    except Unreachable:
        return False
    return private is None or private.is_zero or private.public_key() in keys
