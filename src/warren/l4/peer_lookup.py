"""Where Caddy asks who its clients are, of :mod:`warren.l4.peers`.

A question is a request of HTTP/1.1 on a Unix socket:

=========================================== ==========================================================================
``/ADDRESS/PORT/SERVER``                    of Caddy: the address and port that it sees at the other end of a
                                            connection, and the port of its own that it came to. The answer is the
                                            client's address in a header of status 200, or 403 for a connection that
                                            is none of ours: another program of this host went to Caddy's port.
``/ADDRESS/PORT/SERVER/websocket``          the same for a request that wants a WebSocket
``/websockets/SERVER``                      of who keeps Caddy: how many clients have WebSockets there
``/leave/SERVER``                           of the same: whoever asks there from now on shall come again, by another
                                            connection, since another Caddy serves now (:data:`LAST_HEADER`)
=========================================== ==========================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple, cast

from warren.errors import MalformedPacket, OperationFailed
from warren.l4.peers import TABLE, PeerTable
from warren.linux.peers import is_trusted

CLIENT_HEADER: Final = "X-Warren-Client"
LAST_HEADER: Final = "X-Warren-Last"
"""Beside the client's address: this request shall be the last of its connection."""
COUNT_HEADER: Final = "X-Warren-Count"
HEAD_BYTES_MAX: Final = 65_536
"""Of a question: Caddy leaves out nearly all that its client sent, of which it took 36 KB at most."""
ASKING_MAX: Final = 512
"""Connections that ask; a Caddy opens up to 64, twice while it changes its configuration, and there may be several."""

_QUESTION: Final = re.compile(rb"GET /127\.0\.0\.1/([0-9]{1,5})/([0-9]{1,5})(/websocket)? HTTP/1\.1")
_KEEPERS: Final = re.compile(rb"GET /(websockets|leave)/([0-9]{1,5}) HTTP/1\.1")
_BODY: Final = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:", re.IGNORECASE)


class Ask(IntEnum):
    """What a question is about."""

    CLIENT = 0
    CLIENT_OF_WEBSOCKET = 1
    WEBSOCKETS = 2
    LEAVE = 3


class Question(NamedTuple):
    """``port`` is 0 where none is asked about."""

    port: int
    server: int
    ask: Ask = Ask.CLIENT


def question_untrusted(head: bytes) -> Question:
    """What the head of a question asks, without the empty line at its end. Raises MalformedPacket."""
    line, _, _ = head.partition(b"\r\n")
    if not _BODY.search(head):
        if match := _QUESTION.fullmatch(line):
            ask = Ask.CLIENT if match[3] is None else Ask.CLIENT_OF_WEBSOCKET
            return Question(int(match[1]), int(match[2]), ask)
        if match := _KEEPERS.fullmatch(line):
            return Question(0, int(match[2]), Ask.LEAVE if match[1] == b"leave" else Ask.WEBSOCKETS)
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

    def _answer(self, question: Question) -> bytes:
        _, server, ask = question
        if ask is Ask.LEAVE:
            self._table.leave(server)
            return _ok()
        if ask is Ask.WEBSOCKETS:
            return _ok(f"{COUNT_HEADER}: {self._table.websockets(server)}")
        websocket = ask is Ask.CLIENT_OF_WEBSOCKET
        client = self._table.asked(question.port, server, websocket=websocket)
        if client is None:
            return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        last = (f"{LAST_HEADER}: 1",) if self._table.is_left(server) and not websocket else ()
        return _ok(f"{CLIENT_HEADER}: {client}", *last)


def _ok(*headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", *headers, "Content-Length: 0", "", "")).encode()
