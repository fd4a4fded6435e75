"""One moment at which something is to be done: how machines of the sans-IO floors are woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Alarm(Protocol):
    """Calls back once at the moment it was set to last."""

    def set(self, at: float | None) -> None:
        """``at`` in seconds of the owner's clock; one in the past rings as soon as possible. None: never."""


MakeAlarm = Callable[[Callable[[], None]], Alarm]
"""Makes an alarm that calls the given function."""


class LoopAlarm:
    """An alarm of the running event loop. ``clock`` never goes back."""

    def __init__(self, clock: Callable[[], float], ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at: float | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        if at == self._at and self._handle is not None:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = at
        if at is not None:
            pause = max(0.0, at - self._clock())
            self._handle = asyncio.get_running_loop().call_later(pause, self._rang)

    def _rang(self) -> None:
        self._handle = None
        self._ring()
