"""Where Caddy tells which of its clients of :mod:`warren.l4.peers` have WebSockets, and its keeper asks how many.

A question is a request of HTTP/1.1 on a Unix socket:

======================= ==============================================================================================
``/websocket/NONCE``    of Caddy: the site has agreed to the WebSocket that the client of this connection wished for.
                        The answer is 200, or 404 where there is no such connection.
``/websockets/SERVER``  of who keeps Caddy: how many clients have WebSockets at the Caddy with that port
======================= ==============================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, cast

from warren.errors import MalformedPacket, OperationFailed
from warren.l4.peers import TABLE, PeerTable
from warren.linux.peers import is_trusted

COUNT_HEADER: Final = "X-Warren-Count"
HEAD_BYTES_MAX: Final = 65_536
"""Of a question: Caddy leaves out nearly all that its client sent, of which it took 36 KB at most."""
ASKING_MAX: Final = 512
"""Connections that ask; a Caddy opens up to 64, twice while it changes its configuration, and there may be several."""

_BECAME: Final = re.compile(rb"GET /websocket/([0-9a-f]{16}) HTTP/1\.1")
_HOW_MANY: Final = re.compile(rb"GET /websockets/([0-9]{1,5}) HTTP/1\.1")
_BODY: Final = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:", re.IGNORECASE)


class Became(NamedTuple):
    """The connection of that nonce is a WebSocket."""

    nonce: str


class HowMany(NamedTuple):
    """Clients with WebSockets are there?"""

    server: int


def question_untrusted(head: bytes) -> Became | HowMany:
    """What the head of a question asks, without the empty line at its end. Raises MalformedPacket."""
    line, _, _ = head.partition(b"\r\n")
    if not _BODY.search(head):
        if match := _BECAME.fullmatch(line):
            return Became(match[1].decode())
        if match := _HOW_MANY.fullmatch(line):
            return HowMany(int(match[1]))
    raise MalformedPacket("no question of Caddy's")


class PeerLookup:
    """Answers Caddy's questions on a Unix socket at ``path`` (mode 0600, in place of a dead one)."""

    def __init__(self, path: Path, table: PeerTable = TABLE) -> None:
        self._path = path
        self._table = table
        self._server: asyncio.Server | None = None
        self._asking: set[_Asking] = set()

    async def start(self) -> None:
        """Raises OperationFailed."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            sock.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.get_running_loop().create_unix_server(self._accept, sock=sock)
        except OSError as error:
            sock.close()
            raise OperationFailed(f"{self._path} cannot be listened on: {error.strerror or error}") from None

    def _accept(self) -> _Asking:
        return _Asking(self._table, self._asking, self._has_room)

    def _has_room(self) -> bool:
        return self._server is not None and len(self._asking) < ASKING_MAX

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        for sock in server.sockets:
            asyncio.get_running_loop().remove_reader(sock.fileno())
        await asyncio.sleep(0)  # asyncio loses a connection that it has just accepted when its server closes now
        server.close()
        for asking in list(self._asking):
            asking.close()
        await server.wait_closed()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class _Asking(asyncio.Protocol):
    """One connection of Caddy's, kept for many questions."""

    def __init__(self, table: PeerTable, all_of_them: set[_Asking], has_room: Callable[[], bool]) -> None:
        self._table = table
        self._all = all_of_them
        self._has_room = has_room
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        if not self._has_room() or not is_trusted(transport.get_extra_info("socket")):
            transport.abort()
            return
        self._all.add(self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            try:
                answer = self._answer(question_untrusted(head))
            except MalformedPacket:
                transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                transport.close()
                return
            transport.write(answer)
        if len(self._buffer) > HEAD_BYTES_MAX:
            transport.abort()

    def pause_writing(self) -> None:
        """Somebody asks and does not read: not Caddy."""
        self.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._all.discard(self)
        self._transport = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, question: Became | HowMany) -> bytes:
        if isinstance(question, HowMany):
            return _ok(f"{COUNT_HEADER}: {self._table.websockets(question.server)}")
        if self._table.became_websocket(question.nonce):
            return _ok()
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def _ok(*headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *headers, "Content-Length: 0", "", "")).encode()
