"""The UAPI socket of one interface: where ``wg`` and the controller speak to the data plane."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from collections.abc import Callable
from pathlib import Path

from warren.engine.userspace.places import socket_path
from warren.errors import OperationFailed
from warren.linux import unix_sockets
from warren.linux.peers import is_trusted
from warren.proto.uapi import REQUEST_BYTES_MAX

_CONNECTIONS_MAX = 32  # wg, a controller and a few monitors; only the owner can connect at all
_READ_BYTES = 1 << 16

_log = logging.getLogger("warren.engine.uapi")

Answerer = Callable[[bytes], bytes]
"""Takes a request without its closing empty line, returns the whole answer."""


class UapiServer:
    """Accepts and answers requests inside somebody else's ``epoll`` loop.

    A connection may send several requests one after another. One that sends more than :data:`REQUEST_BYTES_MAX`
    without an end is closed. Only the owner of the socket (mode 0600 in a 0700 directory) and root can connect.
    """

    def __init__(self, interface: str, poller: select.epoll, answer: Answerer, directory: Path | None = None) -> None:
        """Raises OperationFailed when another data plane serves this interface or the directory cannot be made."""
        self.path = socket_path(interface, directory)
        self._poller = poller
        self._answer = answer
        self._connections: dict[int, _Connection] = {}
        try:
            self._listener = _listen(self.path)
        except OSError as error:
            raise OperationFailed(
                f"{self.path} cannot be made: {error.strerror}; run as the owner of its directory"
            ) from error
        poller.register(self._listener.fileno(), select.EPOLLIN)

    def owns(self, fd: int) -> bool:
        return fd in self._connections or fd == self._listener.fileno()

    def handle(self, fd: int, mask: int) -> None:
        """Serve one ``epoll`` event of a file descriptor that :meth:`owns` claims."""
        if fd == self._listener.fileno():
            self._accept()
            return
        connection = self._connections[fd]
        try:
            if mask & select.EPOLLIN:
                alive = connection.read(self._answer)
            else:
                alive = not mask & (select.EPOLLHUP | select.EPOLLERR)
            connection.write()
        except OSError:
            alive = False
        if not alive and not connection.unsent:
            self._forget(connection)
        else:
            wanted = select.EPOLLOUT if connection.unsent else select.EPOLLIN
            self._poller.modify(fd, wanted)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                _log.warning("a control connection was not accepted: %s", error.strerror)
            return
        if len(self._connections) >= _CONNECTIONS_MAX or not is_trusted(sock):
            sock.close()
            return
        sock.setblocking(False)
        self._connections[sock.fileno()] = _Connection(sock)
        self._poller.register(sock.fileno(), select.EPOLLIN)

    def _forget(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        self._poller.unregister(connection.sock.fileno())
        connection.sock.close()

    def close(self) -> None:
        """Close everything and remove the socket file."""
        for connection in list(self._connections.values()):
            with contextlib.suppress(OSError):
                connection.write()
            self._forget(connection)
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


class _Connection:
    __slots__ = ("received", "sock", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.unsent = bytearray()

    def read(self, answer: Answerer) -> bool:
        """Take what has arrived and answer what is complete; False when the other side has closed or sent too much."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        self.received += data
        while (end := self.received.find(b"\n\n")) >= 0:
            request = bytes(self.received[:end])
            del self.received[: end + 2]
            self.unsent += answer(request)
        return bool(data) and len(self.received) <= REQUEST_BYTES_MAX

    def write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        if unix_sockets.answers(path):
            raise OperationFailed(
                f"{path} is served already: another process runs interface {path.stem}; stop it first"
            )
        path.unlink()
    return unix_sockets.listen(path, _CONNECTIONS_MAX)
