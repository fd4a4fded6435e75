"""Who the clients of Caddy are. It is told by the name of the socket that each stream comes to it from: this process
binds one to ``ADDRESS/NONCE`` in the abstract namespace (unix(7)), and connects it to a Unix socket of Caddy's that
nobody else can reach. So Caddy has to ask nobody for a client's address, and nobody else can name one.

Caddy tells which of them become WebSockets, by their nonce (:mod:`warren.l4.peer_lookup`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final

from warren.errors import OperationFailed
from warren.l4.candidates import explained
from warren.l4.config import Backend, Entry, Way
from warren.l4.kinds import Carried, Incoming, Refused, Tools
from warren.l4.limits import source_of
from warren.l4.overlay import HostSockets
from warren.l4.shares import Group, groups_of
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress

REQUEST_IDLE_S: Final = 330.0
"""A connection on which nothing moves for so long, in neither direction, is ended: Caddy itself ends one without a
request after a minute, and gives a site five minutes to answer. What is left is a body that does not come, an answer
that nobody reads, or one that is silent in its middle.
"""
WEBSOCKET_IDLE_S: Final = 3600.0
"""The same of a WebSocket, whose ends may have nothing to say; most of them ping each other twice a minute."""
PEERS_MAX: Final = 65_536
"""Connections to Caddy at the same time: two descriptors each, of this process as of Caddy's."""
PEERS_OF_ONE_SOURCE: Final = 512
"""Of one IPv4 address or IPv6 /64: many browsers behind one NAT have fewer, and one client cannot have them all."""
QUEUE_FULL_S: Final = 0.05
"""How long until a Caddy that has a full queue is tried again: nothing says when it is not."""
_NONCE_BYTES: Final = 8
_THIS_HOST: Final = "127.0.0.1"
_HOST: Final = HostSockets()


class _Peer:
    """A connection to Caddy."""

    __slots__ = ("carried", "group", "server", "source", "websocket")

    def __init__(self, address: IPAddress, server: int) -> None:
        self.server = server
        self.source = source_of(address)
        self.group = _customer(address)
        self.carried: Carried | None = None
        self.websocket = False


class PeerTable:
    """The clients of the connections from here to Caddy that are open now."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        """By nonce."""
        self._of_source: Counter[tuple[int, int]] = Counter()
        self._websockets: dict[int, Counter[Group]] = {}
        """By server, of whom; who has none is not in here."""

    def __len__(self) -> int:
        return len(self._peers)

    def remember(self, nonce: str, server: int, address: IPAddress) -> Remembered:
        """The connection of that nonce, to the Caddy with the port ``server``, is for the client with ``address``,
        until what is returned is called. Raises Refused (``streams``).
        """
        source = source_of(address)
        count = self._of_source[source]
        if count >= PEERS_OF_ONE_SOURCE:
            raise Refused("streams", f"{address} has {count} connections to web sites here: more are not taken")
        if len(self._peers) >= PEERS_MAX:
            raise Refused("streams", f"there are {PEERS_MAX} connections to web sites here: more are not taken")
        self._of_source[source] += 1
        peer = self._peers[nonce] = _Peer(address, server)
        return Remembered(self, nonce, peer)

    def became_websocket(self, nonce: str) -> bool:
        """The connection is a WebSocket from now on: its client wished it, and the site has agreed. False: there is no
        such connection (any more).
        """
        peer = self._peers.get(nonce)
        if peer is None:
            return False
        if not peer.websocket:
            peer.websocket = True
            self._websockets.setdefault(peer.server, Counter())[peer.group] += 1
            if peer.carried is not None:
                peer.carried.idle_s = WEBSOCKET_IDLE_S
        return True

    def websockets(self, server: int) -> int:
        """How many clients have WebSockets at the Caddy with that port; whoever has many, even by all addresses of an
        IPv4 /24 or an IPv6 /48, is one.
        """
        return len(self._websockets.get(server, ()))

    def forget(self, nonce: str) -> None:
        peer = self._peers.pop(nonce)
        _less(self._of_source, peer.source)
        if peer.websocket:
            of_server = self._websockets[peer.server]
            _less(of_server, peer.group)
            if not of_server:
                del self._websockets[peer.server]


def _customer(address: IPAddress) -> Group:
    """The widest that may be one customer of a provider. Of IPv4 that is the smallest network that is routed by itself,
    so whoever has many addresses mostly has them in a few of those.
    """
    if address.version == 4:
        return (24, int(address) >> 8)
    return next(reversed(groups_of(address)), (0, 0))


def _less(counts: Counter[Any], key: object) -> None:
    """One less; what is none is not kept."""
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


class Remembered:
    """A connection, which is over when this is called; a second call does nothing."""

    __slots__ = ("_nonce", "_peer", "_table")

    def __init__(self, table: PeerTable, nonce: str, peer: _Peer) -> None:
        self._table: PeerTable | None = table
        self._nonce = nonce
        self._peer = peer

    def __call__(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.forget(self._nonce)

    def carried(self, stream: Carried | None) -> None:
        """By this its time without traffic can be changed, until it is over."""
        self._peer.carried = stream


TABLE: Final = PeerTable()
"""Of this process."""


async def handle_ended(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """Kind ``ended``: the stream goes to Caddy at the entry's backend, which learns who it is."""
    await hand_to_caddy(incoming, entry.way, tools)


async def hand_to_caddy(
    incoming: Incoming, way: Way, tools: Tools, *, head: bytes = b"", ended: Callable[[], None] | None = None
) -> None:
    """``head`` has been read from the stream already; ``ended`` is called when the stream is over. Raises Refused, and
    ``ended`` is then the caller's to call.
    """
    if way.refusal:
        raise Refused(way.refused_as, way.refusal)
    if not way.backends:
        raise Refused("no-backend", "Caddy does not run")
    address = IPv4Address(_THIS_HOST) if incoming.client is None else unmapped(incoming.client.ip)
    nonce = secrets.token_hex(_NONCE_BYTES)
    remembered = TABLE.remember(nonce, way.backends[0].port, address)
    try:
        sock = await _connected(way.backends[0], f"\0{address}/{nonce}", way.connect_timeout_s)
    except BaseException:
        remembered()
        raise

    def over() -> None:
        remembered()
        if ended is not None:
            ended()

    remembered.carried(tools.carry(incoming.sock, sock, idle_s=REQUEST_IDLE_S, head=head, ended=over))


async def _connected(caddy: Backend, name: str, timeout_s: float) -> socket.socket:
    """A socket of that name, connected to Caddy's. Raises Refused."""
    sock: socket.socket | None = None
    try:
        sock = _HOST.make(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(name)
        number = sock.connect_ex(caddy.path)
        if number == errno.EAGAIN:
            async with asyncio.timeout(timeout_s):
                while number == errno.EAGAIN:
                    await asyncio.sleep(QUEUE_FULL_S)
                    number = sock.connect_ex(caddy.path)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError | OperationFailed) and (failure := explained(error, caddy, timeout_s)):
            raise Refused(*failure) from None
        raise
    return sock
