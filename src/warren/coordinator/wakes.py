"""Who waits for news, and how they are woken: map changes, signals, and sessions that must end.

A wake says *that* something changed; what changed is asked for with ``Service.updates_since``, so a slow listener
misses nothing by hearing of two changes at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from warren.coordinator.problems import Problem
from warren.proto.control.messages import Signal

SIGNALS_MAX: Final = 4096
"""That wait for one listener; then the oldest is lost, as signals may be."""


@dataclass(frozen=True, slots=True)
class Wake:
    """One thing to do for the sessions of ``network``; only those of ``node`` when it is given."""

    network: bytes
    revision: int | None = None
    """The map has reached it: send ``updates_since`` to everybody who has less."""
    node: bytes | None = None
    signal: Signal | None = None
    """To be handed to ``node``; its own ``node`` is the sender."""
    ended: Problem | None = None
    """Sessions of ``node`` end with this."""
    session: str | None = None
    """Only the session with this id ends; None: all of ``node``."""


@dataclass(eq=False, slots=True)
class _Listener:
    ended: dict[tuple[bytes, bytes | None, str | None], Wake] = field(default_factory=dict)
    signals: deque[Wake] = field(default_factory=lambda: deque(maxlen=SIGNALS_MAX))
    revisions: dict[bytes, Wake] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, wake: Wake) -> None:
        if wake.ended is not None:
            self.ended[wake.network, wake.node, wake.session] = wake
        elif wake.signal is not None:
            self.signals.append(wake)
        else:
            self.revisions[wake.network] = wake
        self.news.set()

    def take(self) -> Wake | None:
        """Endings first: nothing more goes to a session that is over."""
        if self.ended:
            return self.ended.pop(next(iter(self.ended)))
        if self.signals:
            return self.signals.popleft()
        if self.revisions:
            return self.revisions.pop(next(iter(self.revisions)))
        return None


class Hub:
    """Hands each wake to all who watch. Single owner: one event loop."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()
        self._closed = False

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Wake]]:
        """All wakes from now on. The iteration ends when the hub is closed."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            yield self._wakes(listener)
        finally:
            self._listeners.discard(listener)

    def publish(self, wake: Wake) -> None:
        for listener in self._listeners:
            listener.hear(wake)

    def close(self) -> None:
        self._closed = True
        for listener in self._listeners:
            listener.news.set()

    async def _wakes(self, listener: _Listener) -> AsyncIterator[Wake]:
        while not self._closed:
            wake = listener.take()
            if wake is None:
                await listener.news.wait()
                listener.news.clear()
            else:
                yield wake
