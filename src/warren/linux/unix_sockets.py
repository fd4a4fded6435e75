"""Unix sockets by which processes of one user speak to each other."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(path: Path, backlog: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A non-blocking listener at ``path``, mode 0600 from the first moment. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what bind makes has the mode of the socket
        listener.bind(os.fspath(path))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def answers(path: Path) -> bool:
    """Whether some process listens on the stream socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
        return True
