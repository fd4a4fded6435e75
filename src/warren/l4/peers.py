"""Who the clients of Caddy are: it sees this process on loopback, and asks here (see :mod:`warren.ingress.config`).

A question is a request of HTTP/1.1 on a Unix socket:

=========================================== ==========================================================================
``/ADDRESS/PORT/SERVER``                    of Caddy: the address and port that it sees at the other end of a
                                            connection, and the port of its own that it came to. The answer is the
                                            client's address in a header of status 200, or 403 for a connection that
                                            is none of ours: another program of this host went to Caddy's port.
``/ADDRESS/PORT/SERVER/websocket``          the same for a request that wants a WebSocket
``/websockets/SERVER``                      of who keeps Caddy: how many connections to that port became WebSockets
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
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from warren.errors import MalformedPacket, OperationFailed
from warren.l4.config import Entry, Way
from warren.l4.kinds import Carried, Incoming, Refused, Tools
from warren.l4.limits import source_of
from warren.linux.peers import is_trusted
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

CLIENT_HEADER: Final = "X-Warren-Client"
LAST_HEADER: Final = "X-Warren-Last"
"""Beside the client's address: this request shall be the last of its connection."""
COUNT_HEADER: Final = "X-Warren-Count"
REQUEST_IDLE_S: Final = 330.0
"""A connection on which nothing moves for so long, in neither direction, is ended: Caddy itself ends one without a
request after a minute, and gives a site five minutes to answer. What is left is a body that does not come, an answer
that nobody reads, or one that is silent in its middle.
"""
WEBSOCKET_IDLE_S: Final = 3600.0
"""The same of a WebSocket, whose ends may have nothing to say; most of them ping each other twice a minute."""
PEERS_MAX: Final = 65_536
"""Connections to Caddy at the same time; a loopback address has no more ports."""
PEERS_OF_ONE_SOURCE: Final = 512
"""Of one IPv4 address or IPv6 /64: many browsers behind one NAT have fewer, and one client cannot have them all."""
HEAD_BYTES_MAX: Final = 65_536
"""Of a question: Caddy leaves out nearly all that its client sent, of which it took 36 KB at most."""
ASKING_MAX: Final = 512
"""Connections that ask; a Caddy opens up to 64, twice while it changes its configuration, and there may be several."""

_QUESTION: Final = re.compile(rb"GET /127\.0\.0\.1/([0-9]{1,5})/([0-9]{1,5})(/websocket)? HTTP/1\.1")
_KEEPERS: Final = re.compile(rb"GET /(websockets|leave)/([0-9]{1,5}) HTTP/1\.1")
_BODY: Final = re.compile(rb"\r\n(content-length|transfer-encoding|expect)[ \t]*:", re.IGNORECASE)
_CADDYS: Final = "127.0.0.1"


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


class _Peer:
    """A connection to Caddy."""

    __slots__ = ("address", "carried", "websocket")

    def __init__(self, address: IPAddress) -> None:
        self.address = address
        self.carried: Carried | None = None
        self.websocket = False


class PeerTable:
    """The clients of the connections from here to Caddy that are open now."""

    def __init__(self) -> None:
        self._peers: dict[tuple[int, int], _Peer] = {}
        self._of_source: Counter[tuple[int, int]] = Counter()
        self._of_server: Counter[int] = Counter()
        self._websockets: Counter[int] = Counter()
        self._left: set[int] = set()
        """Of servers that have connections, those whose time is over."""

    def __len__(self) -> int:
        return len(self._peers)

    def remember(self, port: int, server: int, client: TransportAddress | None) -> Forget:
        """The connection from our ``port`` to Caddy's port ``server`` is for ``client`` (None: a program of this host),
        until what is returned is called. Raises Refused (``streams``).
        """
        address = IPv4Address(_CADDYS) if client is None else unmapped(client.ip)
        source = source_of(address)
        count = self._of_source[source]
        if count >= PEERS_OF_ONE_SOURCE:
            raise Refused("streams", f"{address} has {count} connections to web sites here: more are not taken")
        if len(self._peers) >= PEERS_MAX:
            raise Refused("streams", f"there are {PEERS_MAX} connections to web sites here: more are not taken")
        self._of_source[source] += 1
        self._of_server[server] += 1
        peer = self._peers[port, server] = _Peer(address)
        return Forget(self, peer, port, server, source)

    def client(self, port: int, server: int) -> IPAddress | None:
        """Who is behind the connection that Caddy's port ``server`` has from our ``port``."""
        peer = self._peers.get((port, server))
        return None if peer is None else peer.address

    def asked(self, port: int, server: int, *, websocket: bool) -> IPAddress | None:
        """The same, and note whether the connection becomes a WebSocket: it is taken for one until its next request,
        since whether the site agrees is not seen here.
        """
        peer = self._peers.get((port, server))
        if peer is None:
            return None
        if peer.websocket != websocket:
            peer.websocket = websocket
            self._websockets[server] += 1 if websocket else -1
            if peer.carried is not None:
                peer.carried.idle_s = WEBSOCKET_IDLE_S if websocket else REQUEST_IDLE_S
        return peer.address

    def websockets(self, server: int) -> int:
        """How many connections to that port of Caddy's became WebSockets, and are open."""
        return self._websockets[server]

    def leave(self, server: int) -> None:
        """Connections to that port shall end with their next request; new ones do not come there."""
        if self._of_server[server]:
            self._left.add(server)

    def is_left(self, server: int) -> bool:
        return server in self._left

    def forget(self, peer: _Peer, port: int, server: int, source: tuple[int, int]) -> None:
        if self._peers.get((port, server)) is peer:
            del self._peers[port, server]
        _less(self._of_source, source)
        _less(self._of_server, server)
        if peer.websocket:
            _less(self._websockets, server)
        if server not in self._of_server:
            self._left.discard(server)


def _less(counts: Counter[Any], key: object) -> None:
    """One less; what is none is not kept."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class Forget:
    """A connection is over when this is called. A second call does nothing: by then the ports may be another one's."""

    __slots__ = ("_peer", "_what")

    def __init__(self, table: PeerTable, peer: _Peer, port: int, server: int, source: tuple[int, int]) -> None:
        self._peer = peer
        self._what: tuple[PeerTable, int, int, tuple[int, int]] | None = (table, port, server, source)

    def __call__(self) -> None:
        if self._what is not None:
            table, port, server, source = self._what
            self._what = None
            table.forget(self._peer, port, server, source)

    def carried(self, stream: Carried | None) -> None:
        """By this its time without traffic can be changed, until it is over."""
        self._peer.carried = stream


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

    forget.carried(tools.carry(incoming.sock, sock, idle_s=REQUEST_IDLE_S, head=head, ended=over))


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
