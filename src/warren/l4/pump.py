"""Moves the bytes of all streams from one socket to the other.

Much at once goes through a pipe and never leaves the kernel (splice(2)); what fits a small buffer is received and sent,
which takes fewer system calls. All sockets are in one edge-triggered epoll of the pump's own, which the event loop
watches as a single descriptor: a stream costs the loop nothing, and nothing is registered anew while it lives. A
direction has a pipe only while bytes are in it. Each turn a direction moves :data:`TURN_BYTES` at most and then stands
in line again, and after :data:`SLICE_S` the loop does other things first: a fast stream does not make others wait.

Nothing is read from one side before the other has taken what was read before: what a slow reader does not take stays
with the sender, as it would without us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from warren.l4.counters import Counters
from warren.l4.pipes import Pipe, Pipes

TURN_BYTES: Final = 1 << 18
CHUNK_BYTES: Final = 1 << 18
"""Asked of one splice; a pipe seldom takes as much."""
SLICE_S: Final = 0.005
_EVENTS_MAX: Final = 512
COPIED_BYTES: Final = 1 << 14
"""What comes in pieces smaller than that is copied, else spliced."""
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close(2) sends a reset
_SPLICE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_WATCHED: Final = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READ: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_ENDING: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR


def reset(sock: socket.socket) -> None:
    """Close it so that the other end sees a reset; unsent bytes are lost. Harmless when it is closed already."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


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

    __slots__ = ("_pump", "closed", "counters", "ended", "idle_s", "inward", "moved_at", "outward", "timer")

    def __init__(
        self,
        pump: Pump,
        incoming: socket.socket,
        outgoing: socket.socket,
        counters: Counters,
        idle_s: float | None,
        ended: Callable[[], None] | None,
    ) -> None:
        self._pump = pump
        self.counters = counters
        self.idle_s = idle_s
        self.ended = ended
        self.closed = False
        self.moved_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.inward = Direction(self, incoming, outgoing, inbound=True)
        self.outward = Direction(self, outgoing, incoming, inbound=False)

    def abort(self) -> None:
        """Reset both sides."""
        self._pump.end(self, aborted=True)


class Pump:
    """All streams of a process. Use from its event loop alone."""

    def __init__(self, pipes: Pipes | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._pipes = Pipes() if pipes is None else pipes
        self._by_fd: dict[int, tuple[Direction, Direction]] = {}
        self._line: deque[Direction] = deque()
        self._scratch = memoryview(bytearray(COPIED_BYTES))
        self._now = self._loop.time()
        self._called = False
        self._loop.add_reader(self._epoll.fileno(), self._wake)

    def __len__(self) -> int:
        return len(self._by_fd) // 2

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        counters: Counters,
        *,
        idle_s: float | None = None,
        head: bytes = b"",
        answer: bytes = b"",
        ended: Callable[[], None] | None = None,
    ) -> Stream:
        """See :meth:`warren.l4.kinds.Tools.carry`."""
        stream = Stream(self, incoming, outgoing, counters, idle_s, ended)
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
        if idle_s is not None:
            stream.moved_at = self._loop.time()
            stream.timer = self._loop.call_at(stream.moved_at + idle_s, self._look_whether_idle, stream)
        return stream

    def end(self, stream: Stream, *, aborted: bool) -> None:
        """Close both sockets, with resets if ``aborted``; harmless when it has ended."""
        if stream.closed:
            return
        stream.closed = True
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
        ended, stream.ended = stream.ended, None
        if ended is not None:
            ended()

    def close(self) -> None:
        """Reset all streams."""
        for stream in {direction.stream for direction, _ in self._by_fd.values()}:
            self.end(stream, aborted=True)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._pipes.close()

    def _wake(self) -> None:
        broken = []
        for fd, events in self._epoll.poll(0, _EVENTS_MAX):
            pair = self._by_fd.get(fd)
            if pair is None:
                continue
            outof, into = pair
            if events & select.EPOLLERR:
                broken.append(outof)
            if events & _READ:
                outof.readable = True
                if events & _ENDING:
                    outof.ending = True
                if not outof.queued and not outof.over:
                    outof.queued = True
                    self._line.append(outof)
            if events & _WRITE:
                into.writable = True
                if not into.queued and not into.over:
                    into.queued = True
                    self._line.append(into)
        for direction in broken:
            # What came before a reset is passed on first, but nobody waits until a slow reader takes it.
            if not direction.stream.closed and (direction.over or not direction.writable):
                self.end(direction.stream, aborted=True)
        if not self._called:
            self._work()

    def _work_on(self) -> None:
        self._called = False
        self._work()

    def _work(self) -> None:
        """Turns, until nobody wants one or the time is over."""
        line = self._line
        clock = self._loop.time
        self._now = clock()
        end = self._now + SLICE_S
        while line:
            direction = line.popleft()
            direction.queued = False
            if direction.over:
                continue
            if self._turn(direction):
                direction.queued = True
                line.append(direction)
            if clock() > end:
                break
        if line:
            self._called = True
            self._loop.call_soon(self._work_on)

    def _turn(self, direction: Direction) -> bool:
        """Move some bytes; returns whether there may be more to move now."""
        stream = direction.stream
        try:
            return self._move(direction)
        except OSError:  # reset by either side, or gone
            self.end(stream, aborted=True)
            return False

    def _move(self, direction: Direction) -> bool:
        left = TURN_BYTES
        while direction.writable:
            if direction.unsent is not None:
                if not self._send(direction):
                    return False
            elif direction.pipe is not None:
                if not self._empty_pipe(direction, direction.pipe):
                    return False
            elif direction.eof:
                self._pass_end_on(direction)
                return False
            elif left <= 0:
                return True
            elif not direction.readable:
                return False
            elif direction.bulk:
                left -= self._splice(direction)
            else:
                left -= self._copy(direction)
        return False

    def _copy(self, direction: Direction) -> int:
        """Take a few bytes out of the source, and put them into the target; returns how many were taken."""
        scratch = self._scratch
        try:
            count = direction.source.recv_into(scratch)
        except BlockingIOError:
            direction.readable = False
            return 0
        if not count:
            direction.eof = True
            return 0
        if count == COPIED_BYTES:
            direction.bulk = True
        elif not direction.ending:
            direction.readable = False  # there was no more: what comes now is told anew (epoll(7), question 9)
        try:
            sent = direction.target.send(scratch[:count])
        except BlockingIOError:
            direction.writable = False
            sent = 0
        if sent < count:
            direction.unsent = memoryview(bytes(scratch[sent:count]))
        self._count(direction, sent)
        return count

    def _splice(self, direction: Direction) -> int:
        """Take bytes out of the source into a pipe; returns how many."""
        pipe = self._pipes.take()
        if pipe is None:
            return self._copy(direction)
        try:
            count = os.splice(direction.source.fileno(), pipe.write_fd, CHUNK_BYTES, flags=_SPLICE)
        except BlockingIOError:
            count = 0
            direction.readable = False
        except BaseException:
            self._pipes.give_back(pipe)
            raise
        else:
            direction.eof = not count
        if not count:
            self._pipes.give_back(pipe)
            return 0
        direction.pipe = pipe
        direction.piped = count
        direction.bulk = count >= COPIED_BYTES
        direction.stream.moved_at = self._now
        return count

    def _empty_pipe(self, direction: Direction, pipe: Pipe) -> bool:
        """Put what is in the pipe into the target; returns whether all of it went."""
        while direction.piped:
            try:
                count = os.splice(pipe.read_fd, direction.target.fileno(), direction.piped, flags=_SPLICE)
            except BlockingIOError:
                direction.writable = False
                return False
            direction.piped -= count
            self._count(direction, count)
        direction.pipe = None
        self._pipes.give_back(pipe)
        return True

    def _send(self, direction: Direction) -> bool:
        """Send what is not in a pipe; returns whether all of it went."""
        rest = direction.unsent
        while rest:
            try:
                count = direction.target.send(rest)
            except BlockingIOError:
                direction.writable = False
                direction.unsent = rest
                return False
            rest = rest[count:]
            self._count(direction, count)
        direction.unsent = None
        return True

    def _count(self, direction: Direction, count: int) -> None:
        stream = direction.stream
        stream.moved_at = self._now
        if direction.inbound:
            stream.counters.bytes_in += count
        else:
            stream.counters.bytes_out += count

    def _pass_end_on(self, direction: Direction) -> None:
        direction.over = True
        stream = direction.stream
        if stream.inward.over and stream.outward.over:
            self.end(stream, aborted=False)
            return
        direction.target.shutdown(socket.SHUT_WR)

    def _look_whether_idle(self, stream: Stream) -> None:
        if stream.closed or stream.idle_s is None:
            return
        due = stream.moved_at + stream.idle_s
        if due <= self._loop.time():
            stream.timer = None
            self.end(stream, aborted=True)
        else:
            stream.timer = self._loop.call_at(due, self._look_whether_idle, stream)
