"""Whether the one backend of an entry can be connected to: asked every so often, and at once when a stream failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from warren.l4.kinds import Refused

RETRY_FIRST_S: Final = 1.0
"""After a failure; then twice as long each time, up to the interval of the entry."""


class Health:
    """``check`` raises Refused when there is no connection; ``changed`` is called whenever :attr:`healthy` changes,
    which it is in the beginning if ``trusted``.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        every_s: float,
        changed: Callable[[], Awaitable[None]],
        *,
        trusted: bool = False,
    ) -> None:
        self.healthy = trusted
        self.reason = "its target is being connected to for the first time"
        self.checked = asyncio.Event()
        """Set when the first check has ended."""
        self._check = check
        self._every_s = every_s
        self._changed = changed
        self._wait_s = 0.0
        self._failed = asyncio.Event()
        self._task = asyncio.create_task(self._watch(), name="health")

    def failed(self, reason: str) -> None:
        """A stream could not be opened."""
        if self.healthy:
            self.healthy = False
            self.reason = reason
            self._failed.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await self._once()
            self.checked.set()
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._failed.wait()
            except TimeoutError:
                continue
            self._failed.clear()
            await self._changed()
            self._wait_s = min(RETRY_FIRST_S, self._every_s)
            await asyncio.sleep(self._wait_s)

    async def _once(self) -> None:
        before = self.healthy
        try:
            await self._check()
        except Refused as refused:
            self.healthy = False
            self.reason = str(refused)
            self._wait_s = min(max(self._wait_s * 2, RETRY_FIRST_S), self._every_s) if not before else RETRY_FIRST_S
        else:
            self.healthy = True
            self.reason = ""
            self._wait_s = self._every_s
        self._failed.clear()
        if self.healthy != before:
            await self._changed()
