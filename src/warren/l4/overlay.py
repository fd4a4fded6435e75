"""Where sockets of the overlay come from."""

from __future__ import annotations

import socket
from typing import Protocol

from warren.errors import OperationFailed


class OverlaySockets(Protocol):
    """Makes sockets of the network stack that the tunnels end in."""

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new one: non-blocking, close-on-exec, neither bound nor connected; the caller owns it.

        Raises OperationFailed when there is none to be had now; asking again later may help.
        """


class HostSockets:
    """For engines whose interface is in the host's own network namespace."""

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.make(family, kind, protocol)

    def make(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """:meth:`open` without waiting."""
        try:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        except OSError as error:
            raise OperationFailed(f"no socket: {error.strerror}") from None
