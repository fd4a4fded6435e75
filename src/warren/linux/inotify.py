"""Noticing that a file was removed (inotify(7)), for a socket whose removal means "stop"."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_IN_DELETE, _IN_MOVED_FROM, _IN_DELETE_SELF = 0x200, 0x40, 0x400
_libc = ctypes.CDLL(None, use_errno=True)


class RemovalWatch:
    """Becomes readable when something is removed from the directory of ``path``; :meth:`removed` then says whether
    it was ``path``.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError when the kernel refuses (too many watches) or the directory does not exist."""
        self._path = path
        self._inode = path.stat().st_ino
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_DELETE | _IN_MOVED_FROM | _IN_DELETE_SELF
        if self._fd < 0 or _libc.inotify_add_watch(self._fd, os.fsencode(path.parent), mask) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")

    def fileno(self) -> int:
        return int(self._fd)

    def removed(self) -> bool:
        """Take the pending notices; whether ``path`` is no longer the file it was."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                pass
        try:
            return self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        os.close(self._fd)
