"""Who the clients of Caddy are: it sees this process on loopback, and asks here (see :mod:`warren.ingress.config`).

A question is a request of HTTP/1.1 on a Unix socket, for ``/ADDRESS/PORT/SERVER``: the address and port that Caddy sees
at the other end of a connection, and the port of its own that it came to. The answer is the client's address in a
header of status 200, or 403 for a connection that is none of ours: another program of this host went to Caddy's port.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, cast

from warren.errors import MalformedPacket, OperationFailed
from warren.l4.config import Entry, Way
from warren.l4.kinds import Incoming, Refused, Tools
from warren.l4.limits import source_of
from warren.linux.peers import is_trusted
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

CLIENT_HEADER: Final = "X-Warren-Client"
PEERS_MAX: Final = 65_536
"""Connections to Caddy at the same time; a loopback address has no more ports."""
PEERS_OF_ONE_SOURCE: Final = 512
"""Of one IPv4 address or IPv6 /64: many browsers behind one NAT have fewer, and one client cannot have them all."""
HEAD_BYTES_MAX: Final = 65_536
"""Of a question: Caddy leaves out nearly all that its client sent, of which it took 36 KB at most."""
ASKING_MAX: Final = 128
"""Connections that ask; Caddy opens up to 64, twice while it changes its configuration."""

_QUESTION: Final = re.compile(rb"GET /127\.0\.0\.1/([0-9]{1,5})/([0-9]{1,5}) HTTP/1\.1")
_BODY: Final = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:", re.IGNORECASE)
_CADDYS: Final = "127.0.0.1"


class PeerTable:
    """The clients of the connections from here to Caddy that are open now."""

    def __init__(self) -> None:
        self._clients: dict[tuple[int, int], IPAddress] = {}
        self._of_source: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def remember(self, port: int, server: int, client: TransportAddress | None) -> Callable[[], None]:
        """The connection from our ``port`` to Caddy's port ``server`` is for ``client`` (None: a program of this host),
        until what is returned is called. Raises Refused (``streams``).
        """
        address = IPv4Address(_CADDYS) if client is None else unmapped(client.ip)
        source = source_of(address)
        count = self._of_source.get(source, 0)
        if count >= PEERS_OF_ONE_SOURCE:
            raise Refused("streams", f"{address} has {count} connections to web sites here: more are not taken")
        if len(self._clients) >= PEERS_MAX:
            raise Refused("streams", f"there are {PEERS_MAX} connections to web sites here: more are not taken")
        self._of_source[source] = count + 1
        self._clients[port, server] = address
        return _Once(self, port, server, source)

    def client(self, port: int, server: int) -> IPAddress | None:
        """Who is behind the connection that Caddy's port ``server`` has from our ``port``."""
        return self._clients.get((port, server))

    def forget(self, port: int, server: int, source: tuple[int, int]) -> None:
        self._clients.pop((port, server), None)
        left = self._of_source[source] - 1
        if left:
            self._of_source[source] = left
        else:
            del self._of_source[source]


class _Once:
    """A second call does nothing: by then the ports may be another connection's."""

    __slots__ = ("_what",)

    def __init__(self, table: PeerTable, port: int, server: int, source: tuple[int, int]) -> None:
        self._what: tuple[PeerTable, int, int, tuple[int, int]] | None = (table, port, server, source)

    def __call__(self) -> None:
        if self._what is not None:
            table, port, server, source = self._what
            self._what = None
            table.forget(port, server, source)


TABLE: Final = PeerTable()
"""Of this process."""


async def handle_ended(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """Kind ``ended``: the stream goes to Caddy at the entry's backend, which may then ask who it is."""
    await hand_to_caddy(incoming, entry.way, tools)


async def hand_to_caddy(
    incoming: Incoming, way: Way, tools: Tools, *, head: bytes = b"", ended: Callable[[], None] | None = None
) -> None:
    """``head`` has been read from the stream already; ``ended`` is called when the stream is over. Raises Refused, and
    ``ended`` is then the caller's to call.
    """
    sock, _ = await tools.connect(way, incoming.client)
    try:
        forget = TABLE.remember(sock.getsockname()[1], sock.getpeername()[1], incoming.client)
    except Refused:
        sock.close()
        raise
    except OSError as error:  # Caddy has closed it already
        sock.close()
        raise Refused("connect", f"Caddy has closed the connection: {error.strerror}") from None

    def over() -> None:
        forget()
        if ended is not None:
            ended()

    tools.carry(incoming.sock, sock, idle_s=way.idle_s, head=head, ended=over)


def question_untrusted(head: bytes) -> tuple[int, int]:
    """The two ports in the head of a question, without the empty line at its end. Raises MalformedPacket."""
    line, _, _ = head.partition(b"\r\n")
    match = _QUESTION.fullmatch(line)
    if match is None or _BODY.search(head):
        raise MalformedPacket("no question of Caddy's")
    return int(match[1]), int(match[2])


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
        return _Asking(self._table, self._asking)

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for asking in list(self._asking):
            asking.close()
        await self._server.wait_closed()
        self._server = None
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class _Asking(asyncio.Protocol):
    """One connection of Caddy's, kept for many questions."""

    def __init__(self, table: PeerTable, all_of_them: set[_Asking]) -> None:
        self._table = table
        self._all = all_of_them
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        if len(self._all) >= ASKING_MAX or not is_trusted(transport.get_extra_info("socket")):
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
                found = self._table.client(*question_untrusted(head))
            except MalformedPacket:
                transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                transport.close()
                return
            transport.write(_answer(found))
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


def _answer(client: IPAddress | None) -> bytes:
    if client is None:
        return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    return f"HTTP/1.1 200 OK\r\n{CLIENT_HEADER}: {client}\r\nContent-Length: 0\r\n\r\n".encode()
