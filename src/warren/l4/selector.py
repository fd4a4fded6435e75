"""What the event loop of the stream process waits with: streams come first, and at the cost of one system call.

In any other loop the streams' epoll is one descriptor among the others, and each piece of a stream goes through two
waits and the loop's own bookkeeping: a fifth of the time that it takes.
"""

from __future__ import annotations

import math
import select
import selectors
from collections.abc import Callable
from typing import Final

from warren import log

Events = list[tuple[int, int]]
"""Descriptors and what epoll says of them."""

EVENTS_MAX: Final = 512
"""Of streams, at once; then the others have their turn."""
_log = log.get("streams")


class StreamSelector(selectors.EpollSelector):
    """For one loop, which owns it. ``epoll`` takes the descriptors of streams; :attr:`attend` is called with their
    events, in the loop, and may do all that a callback of the loop may.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoll = select.epoll()
        self._others = self.fileno()
        self.epoll.register(self._others, select.EPOLLIN)
        self.attend: Callable[[Events], None] = _nobody
        self._watched: dict[int, Callable[[], None]] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # As in selectors.EpollSelector: never 0 for what is more, or the loop would spin.
        wait = -1 if timeout is None else 0 if timeout <= 0 else math.ceil(timeout * 1e3) * 1e-3
        events = self.epoll.poll(wait, EVENTS_MAX)
        try:
            self.attend(events)
        except Exception:  # noqa: BLE001 - as of any callback of the loop
            _log.exception("something went wrong with streams")
        others = False
        for fd, _ in events:
            readable = self._watched.get(fd)
            if readable is not None:
                try:
                    readable()
                except Exception:  # noqa: BLE001 - the same
                    _log.exception("something went wrong with datagrams")
            elif fd == self._others:
                others = True
        # Only now: what was attended to may have closed some of them.
        return super().select(0) if others else []

    def watch(self, fd: int, readable: Callable[[], None]) -> None:
        """Call it, in the loop, whenever there is something to be read, until :meth:`unwatch`: as a reader of the loop,
        in less time. Raises OSError.
        """
        self.epoll.register(fd, select.EPOLLIN)
        self._watched[fd] = readable

    def unwatch(self, fd: int) -> None:
        """Before it is closed. Harmless when it is not watched."""
        if self._watched.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def close(self) -> None:
        self.epoll.close()
        super().close()


def _nobody(events: Events) -> None:
    """There are no streams yet."""
