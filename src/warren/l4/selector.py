"""What the event loop of the stream process waits with: streams come first, and at the cost of one system call.

In any other loop the streams' epoll is one descriptor among the others, and each piece of a stream goes through two
waits and the loop's own bookkeeping: a fifth of the time that it takes.
"""

from __future__ import annotations

import math
import select
import selectors
from collections.abc import Callable
from time import monotonic
from typing import Final

from warren import log

Events = list[tuple[int, int]]
"""Descriptors and what epoll says of them."""

EVENTS_MAX: Final = 512
"""Of streams, at once; then the others have their turn."""
_log = log.get("streams")


class StreamSelector(selectors.EpollSelector):
    """For one loop, which owns it. ``epoll`` takes the descriptors of streams; :attr:`attend` is called with their
    events, in the loop, and may do all that a callback of the loop may. It returns whether the loop shall look around:
    not if all it has done is to move bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoll = select.epoll()
        self._others = self.fileno()
        self.epoll.register(self._others, select.EPOLLIN)
        self.attend: Callable[[Events], bool] = _nobody
        self._look_around = True
        self._watched: dict[int, Callable[[], None]] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        end = None if timeout is None else monotonic() + timeout
        left = timeout
        while True:
            # As in selectors.EpollSelector: never 0 for what is more, or the loop would spin.
            wait = -1 if left is None else 0 if left <= 0 else math.ceil(left * 1e3) * 1e-3
            events = self.epoll.poll(wait, EVENTS_MAX)
            if self._attended(events):
                return super().select(0)  # only now: what was attended to may have closed some of them
            if self._look_around or not events:
                return []
            if end is not None:
                left = end - monotonic()
                if left <= 0:
                    return []

    def _attended(self, events: Events) -> bool:
        """Returns whether there is something for the loop itself."""
        try:
            self._look_around = self.attend(events)
        except Exception:  # noqa: BLE001 - as of any callback of the loop
            self._look_around = True
            _log.exception("something went wrong with streams")
        others = False
        for fd, _ in events:
            readable = self._watched.get(fd)
            if readable is not None:
                self._look_around = True
                try:
                    readable()
                except Exception:  # noqa: BLE001 - the same
                    _log.exception("something went wrong with datagrams")
            elif fd == self._others:
                others = True
        return others

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


def _nobody(_: Events) -> bool:
    """There are no streams yet."""
    return True
