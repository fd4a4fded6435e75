"""A stream that is carried: two sockets, and what is on its way in each direction."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from warren.l4.counters import Counts
from warren.l4.pipes import Pipe


class Direction:
    """From one socket to the other."""

    __slots__ = (
        "bulk",
        "ending",
        "eof",
        "inbound",
        "over",
        "pipe",
        "piped",
        "queued",
        "readable",
        "source",
        "stream",
        "target",
        "unsent",
        "writable",
    )

    def __init__(self, stream: Stream, source: socket.socket, target: socket.socket, *, inbound: bool) -> None:
        self.stream = stream
        self.source = source
        self.target = target
        self.inbound = inbound
        self.readable = self.writable = False
        self.ending = False
        """The source has sent its end, or a reset, which is behind the last bytes."""
        self.bulk = False
        self.queued = False
        self.pipe: Pipe | None = None
        self.piped = 0
        """Bytes in the pipe."""
        self.unsent: memoryview | None = None
        """Bytes outside of a pipe that go first."""
        self.eof = False
        self.over = False
        """The end has been passed on."""


class Stream:
    """Two sockets and what moves between them. ``incoming`` is the client's side."""

    __slots__ = ("closed", "counters", "ended", "idle_s", "inward", "moved_at", "opened", "outward", "timer")

    def __init__(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        counters: Counts,
        idle_s: float | None,
        ended: Callable[[], None] | None,
        opened: Callable[[int | None], bool] | None = None,
    ) -> None:
        self.counters = counters
        self.idle_s = idle_s
        self.ended = ended
        self.opened = opened
        """Until the outgoing socket is connected."""
        self.closed = False
        self.moved_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.inward = Direction(self, incoming, outgoing, inbound=True)
        self.outward = Direction(self, outgoing, incoming, inbound=False)
