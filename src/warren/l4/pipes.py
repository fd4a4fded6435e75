"""Pipes for splice(2), lent out one after another: making one takes longer than most moves through it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final, NamedTuple

PIPE_BYTES: Final = 1 << 18
"""64 slots: what splice(2) takes out of a socket in one call is a slot for each fragment, so with packets of 1,400
bytes some 90 KB. An ordinary user has 64 MiB of them before pipes become small (pipe(7)).
"""
KEPT_MAX: Final = 64
"""Empty ones, for the next: as many as are filled at once when nobody is slow."""
OUT_MAX: Final = 4096
"""Lent out at the same time, to streams whose reader is slow; beyond that bytes are copied."""


class Pipe(NamedTuple):
    read_fd: int
    write_fd: int


class Pipes:
    """``size`` in bytes of each, as far as the kernel allows it."""

    def __init__(self, size: int = PIPE_BYTES, out_max: int = OUT_MAX) -> None:
        self._size = size
        self._out_max = out_max
        self._kept: list[Pipe] = []
        self._out = 0

    def take(self) -> Pipe | None:
        """An empty one; None when there is none to be had."""
        if self._kept:
            self._out += 1
            return self._kept.pop()
        if self._out >= self._out_max:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:  # no descriptors left
            return None
        with contextlib.suppress(OSError):  # this user has many already: it stays smaller
            fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, self._size)
        self._out += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """``pipe`` is empty."""
        self._out -= 1
        if len(self._kept) < KEPT_MAX:
            self._kept.append(pipe)
        else:
            _close(pipe)

    def drop(self, pipe: Pipe) -> None:
        """``pipe`` may have bytes in it."""
        self._out -= 1
        _close(pipe)

    def close(self) -> None:
        while self._kept:
            _close(self._kept.pop())


def _close(pipe: Pipe) -> None:
    os.close(pipe.read_fd)
    os.close(pipe.write_fd)
