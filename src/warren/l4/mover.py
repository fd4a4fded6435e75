"""Moves the bytes of one direction of a stream.

Much at once goes through a pipe and never leaves the kernel (splice(2)); what fits a small buffer is received and sent,
which takes fewer system calls. Nothing is read from one side before the other has taken what was read before: what a
slow reader does not take stays with the sender, as it would without us. A direction has a pipe only while bytes are in
it.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from warren.l4.pipes import Pipe, Pipes
from warren.l4.stream import Direction

TURN_BYTES: Final = 1 << 18
"""That one call moves, about: then others have their turn."""
CHUNK_BYTES: Final = 1 << 18
"""Asked of one splice; a pipe seldom takes as much."""
COPIED_BYTES: Final = 1 << 14
"""What comes in pieces smaller than that is copied, else spliced."""
_SPLICE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Mover:
    """One for all streams; it has the pipes."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self._scratch = memoryview(bytearray(COPIED_BYTES))
        self._now = 0.0

    def move(self, direction: Direction, now: float) -> bool:
        """Move some bytes of it at the time ``now``; returns whether there may be more to move now.

        Raises OSError when the stream is broken. Once :attr:`Direction.over` is set, its end has been passed on.
        """
        self._now = now
        left = TURN_BYTES
        while direction.writable:
            if direction.unsent is not None:
                if not self._send(direction):
                    return False
            elif direction.pipe is not None:
                if not self._empty_pipe(direction, direction.pipe):
                    return False
            elif direction.eof:
                _pass_end_on(direction)
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


def _pass_end_on(direction: Direction) -> None:
    """Of the second direction this is left to close(2)."""
    direction.over = True
    stream = direction.stream
    if not (stream.inward.over and stream.outward.over):
        direction.target.shutdown(socket.SHUT_WR)
