"""The controller's end of the control port of a userspace data plane, in an asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Self

from warren.engine.base import SOCKETS_MAX, why_not_handed_over
from warren.errors import MalformedPacket, OperationFailed, Unreachable
from warren.model.datagrams import ControlDatagram, ControlEvent, PathWanted, PeerHeard
from warren.proto.control_port import MESSAGE_BYTES_MAX, HandOver, Hello, TakeBack, pack, unpack_untrusted

EVENTS_PER_TURN = 64
"""After so many events other tasks get their turn."""
_HELLO_TIMEOUT_S = 10.0
_BUFFER_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32


class ControlSocket:
    """A :class:`~warren.engine.base.ControlPort` over a connection to the data plane."""

    def __init__(
        self, connection: socket.socket, sockets: tuple[int, ...], heard: Callable[[ControlEvent], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._connection = connection
        self._numbers = set(sockets)
        self._heard = heard
        self._loop.add_reader(connection, self._read)

    @classmethod
    async def open(cls, path: Path, heard: Callable[[ControlEvent], None]) -> Self:
        """Take the place of whoever listened before. Raises Unreachable when no data plane answers."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            connection.connect(str(path))
            connection.setblocking(False)
            with contextlib.suppress(PermissionError):
                connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
            async with asyncio.timeout(_HELLO_TIMEOUT_S):
                hello = unpack_untrusted(await asyncio.get_running_loop().sock_recv(connection, MESSAGE_BYTES_MAX + 1))
            if not isinstance(hello, Hello):
                raise MalformedPacket("a data plane begins with Hello")
        except (OSError, TimeoutError, MalformedPacket) as error:
            connection.close()
            raise Unreachable(f"no data plane answers at {path}: it may have just ended") from error
        except asyncio.CancelledError:
            connection.close()
            raise
        return cls(connection, hello.sockets, heard)

    def send(self, datagram: ControlDatagram) -> None:
        with contextlib.suppress(ValueError):  # too long
            self._say(pack(datagram))

    def hand_over(self, sock: socket.socket) -> int:
        why = why_not_handed_over(sock)
        number = next((n for n in range(1, SOCKETS_MAX + 1) if n not in self._numbers), 0)
        if why or not number:
            raise OperationFailed(why or f"a data plane takes over {SOCKETS_MAX} sockets at most: take one back first")
        if not self._say(pack(HandOver(number)), sock):
            raise OperationFailed("the data plane is too busy to take over a socket: try again")
        self._numbers.add(number)
        return number

    def take_back(self, number: int) -> None:
        if number in self._numbers and self._say(pack(TakeBack(number))):
            self._numbers.remove(number)

    def close(self) -> None:
        if not self.closed.done():
            self._loop.remove_reader(self._connection)
            self._connection.close()
            self.closed.set_result(None)

    def _say(self, message: bytes, sock: socket.socket | None = None) -> bool:
        """False when the data plane is too busy for it now; what goes to one that is gone counts as said."""
        if self.closed.done():
            return True
        try:
            if sock is None:
                self._connection.send(message)
            else:
                socket.send_fds(self._connection, [message], [sock.fileno()])
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _read(self) -> None:
        for _ in range(EVENTS_PER_TURN):
            if self.closed.done():
                return
            try:
                data = self._connection.recv(MESSAGE_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        try:
            event = unpack_untrusted(data)
        except MalformedPacket:  # of another version of Warren
            return
        if isinstance(event, ControlDatagram | PeerHeard | PathWanted):
            self._heard(event)
