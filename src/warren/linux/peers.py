"""Who is at the other end of a Unix socket, as the kernel noted when they connected or began to listen (unix(7))."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("3i")


class Peer(NamedTuple):
    """Seen from another user namespace, an id that has no name there is the kernel's overflow id, 65534."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """Raises OSError for a socket that has no other end."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)


def is_trusted(connection: socket.socket) -> bool:
    """Whether it is a process of this user or of root. Not for use inside a user namespace, where root looks like
    anyone.
    """
    return peer_of(connection).uid in (os.geteuid(), 0)
