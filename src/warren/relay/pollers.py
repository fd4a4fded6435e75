"""The two sets of file descriptors that a relay waits for: all of them, and those of which none carries data."""

from __future__ import annotations

import select
from collections.abc import Callable


class Pollers:
    """``all`` is polled, or ``slow`` alone while data has to wait. Data sockets and streams are registered with
    ``all`` by whoever opens them.
    """

    def __init__(self) -> None:
        self.all = select.epoll()
        self.slow = select.epoll()
        self.watched: dict[int, Callable[[], None]] = {}

    def add(self, fd: int) -> None:
        """To both."""
        self.all.register(fd, select.EPOLLIN)
        self.slow.register(fd, select.EPOLLIN)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` when ``fd`` can be read."""
        self.watched[fd] = ready
        self.add(fd)

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]
        self.all.unregister(fd)
        self.slow.unregister(fd)

    def close(self) -> None:
        self.all.close()
        self.slow.close()
