"""Whose turn it is among all streams of the process, and how each of them ends.

All sockets are in one edge-triggered epoll, which the event loop watches as a single descriptor, or waits with in the
first place (:mod:`~warren.l4.selector`): nothing is registered anew while a stream lives. Each turn a direction moves a
bounded number of bytes (:mod:`~warren.l4.mover`) and then stands in line again, and after :data:`SLICE_S` the loop does
other things first: a fast stream does not make others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from warren.l4.counters import Counts
from warren.l4.mover import Mover
from warren.l4.pipes import Pipes
from warren.l4.selector import EVENTS_MAX, Events, StreamSelector
from warren.l4.stream import Direction, Stream

SLICE_S: Final = 0.005
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close(2) sends a reset
_WATCHED: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_ERROR: Final = select.EPOLLERR
_READ: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_ENDING: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


def reset(sock: socket.socket) -> None:
    """Close it so that the other end sees a reset; unsent bytes are lost. Harmless when it is closed already."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


class Pump:
    """All streams of a process. Use from its event loop alone. ``selector`` is that loop's, if it is of this kind."""

    def __init__(self, pipes: Pipes | None = None, selector: StreamSelector | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._selector = selector
        self._epoll = select.epoll() if selector is None else selector.epoll
        self._pipes = Pipes() if pipes is None else pipes
        self._by_fd: dict[int, tuple[Direction, Direction]] = {}
        self._line: deque[Direction] = deque()
        self._mover = Mover(self._pipes)
        self._now = monotonic()  # as of the loop
        self._called = self._told = False
        if selector is None:
            self._loop.add_reader(self._epoll.fileno(), self._wake)
        else:
            selector.attend = self._attend

    def __len__(self) -> int:
        return len(self._by_fd) // 2

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        counters: Counts,
        *,
        idle_s: float | None = None,
        head: bytes = b"",
        answer: bytes = b"",
        ended: Callable[[], None] | None = None,
        opened: Callable[[int | None], bool] | None = None,
    ) -> Stream:
        """See :meth:`warren.l4.kinds.Tools.carry`.

        With ``opened``, ``outgoing`` is still being connected, and nothing moves until it is: then ``opened`` is called
        with the error of connect(2), or 0, and says whether the stream goes on; if not, both sides are reset. It is
        called once, with None when the stream has ended before.
        """
        stream = Stream(incoming, outgoing, counters, idle_s, ended, opened)
        inward, outward = stream.inward, stream.outward
        if head:
            inward.unsent = memoryview(head)
        if answer:
            outward.unsent = memoryview(answer)
        self._by_fd[incoming.fileno()] = (inward, outward)
        self._by_fd[outgoing.fileno()] = (outward, inward)
        try:
            self._epoll.register(incoming.fileno(), _WATCHED)
            self._epoll.register(outgoing.fileno(), _WATCHED)
        except OSError:  # no memory for it
            self.end(stream, aborted=True)
            return stream
        if idle_s is not None and opened is None:
            self._watch_idle(stream, idle_s)
        return stream

    def end(self, stream: Stream, *, aborted: bool) -> None:
        """Close both sockets, with resets if ``aborted``; harmless when it has ended."""
        if stream.closed:
            return
        stream.closed = True
        self._told = True
        if stream.timer is not None:
            stream.timer.cancel()
            stream.timer = None
        for direction in (stream.inward, stream.outward):
            direction.over = True
            direction.unsent = None
            if direction.pipe is not None:
                self._pipes.drop(direction.pipe)
                direction.pipe = None
            source = direction.source
            self._by_fd.pop(source.fileno(), None)
            if aborted:
                reset(source)
            else:
                source.close()
        del stream.inward, stream.outward  # no cycle is left for the garbage collector
        opened, stream.opened = stream.opened, None
        if opened is not None:
            opened(None)
        ended, stream.ended = stream.ended, None
        if ended is not None:
            ended()

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        """Call ``readable`` whenever ``sock``, which is no stream's, can be read, until :meth:`unwatch`."""
        if self._selector is None:
            self._loop.add_reader(sock.fileno(), readable)
        else:
            self._selector.watch(sock.fileno(), readable)

    def unwatch(self, sock: socket.socket) -> None:
        """Before it is closed."""
        if self._selector is None:
            self._loop.remove_reader(sock.fileno())
        else:
            self._selector.unwatch(sock.fileno())

    def close(self) -> None:
        """Reset all streams."""
        for stream in {direction.stream for direction, _ in self._by_fd.values()}:
            self.end(stream, aborted=True)
        if self._selector is None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
        self._pipes.close()

    def _wake(self) -> None:
        self._attend(self._epoll.poll(0, EVENTS_MAX))

    def _attend(self, all_events: Events) -> bool:
        """Returns whether others may have something to do now: a stream came about or ended, or its bytes wait."""
        self._told = False
        broken: list[Direction] = []
        by_fd, line = self._by_fd, self._line
        for fd, events in all_events:
            pair = by_fd.get(fd)
            if pair is None:
                continue
            outof, into = pair
            if outof.stream.opened is not None and not outof.inbound and not self._opened(outof, events):
                continue
            if events & _ERROR:
                broken.append(outof)
            if events & _READ:
                outof.readable = True
                if events & _ENDING:
                    outof.ending = True
                if not outof.queued and not outof.over:
                    outof.queued = True
                    line.append(outof)
            if events & _WRITE:
                into.writable = True
                if not into.queued and not into.over:
                    into.queued = True
                    line.append(into)
        for direction in broken:
            # What came before a reset is passed on first, but nobody waits until a slow reader takes it.
            if not direction.stream.closed and (direction.over or not direction.writable):
                self.end(direction.stream, aborted=True)
        if line and not self._called:
            self._work()
        return self._told or self._called

    def _opened(self, outof: Direction, events: int) -> bool:
        """The outgoing socket is connected, or never will be; returns whether the stream goes on."""
        self._told = True
        stream = outof.stream
        opened, stream.opened = stream.opened, None
        failed = events & (select.EPOLLERR | select.EPOLLHUP)
        number = outof.source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if failed else 0
        if opened is not None and not opened(number):
            self.end(stream, aborted=True)
            return False
        if stream.idle_s is not None:
            self._watch_idle(stream, stream.idle_s)
        return True

    def _work_on(self) -> None:
        self._called = False
        self._work()

    def _work(self) -> None:
        """Turns, until nobody wants one or the time is over."""
        line = self._line
        self._now = now = monotonic()
        end = now + SLICE_S
        while line:
            direction = line.popleft()
            direction.queued = False
            if direction.over:
                continue
            if self._turn(direction):
                direction.queued = True
                line.append(direction)
            if line and monotonic() > end:
                self._called = True
                self._loop.call_soon(self._work_on)
                return

    def _turn(self, direction: Direction) -> bool:
        """Move some bytes; returns whether there may be more to move now."""
        stream = direction.stream
        try:
            more = self._mover.move(direction, self._now)
        except OSError:  # reset by either side, or gone
            self.end(stream, aborted=True)
            return False
        if direction.over and stream.inward.over and stream.outward.over:
            self.end(stream, aborted=False)
        return more

    def _watch_idle(self, stream: Stream, idle_s: float) -> None:
        stream.moved_at = self._loop.time()
        stream.timer = self._loop.call_at(stream.moved_at + idle_s, self._look_whether_idle, stream)

    def _look_whether_idle(self, stream: Stream) -> None:
        if stream.closed or stream.idle_s is None:
            return
        due = stream.moved_at + stream.idle_s
        if due <= self._loop.time():
            stream.timer = None
            self.end(stream, aborted=True)
        else:
            stream.timer = self._loop.call_at(due, self._look_whether_idle, stream)
