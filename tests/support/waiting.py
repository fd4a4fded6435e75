"""Waiting for what another process, thread or the kernel brings about, where nothing tells of it: it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

PATIENCE_S = 30.0
"""A machine that has much else to do is slow, and not wrong."""
_ASK_EVERY_S = 0.005

T = TypeVar("T")


async def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Returns as soon as ``condition`` holds. Raises TimeoutError."""
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(_ASK_EVERY_S)


async def first(ask: Callable[[], Awaitable[T]], patience_s: float = PATIENCE_S) -> T:
    """The first answer of ``ask`` that is one: not empty, and not None. Raises TimeoutError."""
    async with asyncio.timeout(patience_s):
        while not (answer := await ask()):
            await asyncio.sleep(_ASK_EVERY_S)
        return answer
