"""Who the clients of Caddy are: it sees this process on loopback, and asks (:mod:`warren.l4.peer_lookup`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Final

from warren.l4.config import Entry, Way
from warren.l4.kinds import Carried, Incoming, Refused, Tools
from warren.l4.limits import source_of
from warren.l4.shares import Group, groups_of
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

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
_CADDYS: Final = "127.0.0.1"


class _Peer:
    """A connection to Caddy."""

    __slots__ = ("address", "carried", "group", "websocket")

    def __init__(self, address: IPAddress) -> None:
        self.address = address
        self.group: Group = next(reversed(groups_of(address)), (0, 0))
        """The widest that may be one customer of a provider."""
        self.carried: Carried | None = None
        self.websocket = False


class PeerTable:
    """The clients of the connections from here to Caddy that are open now."""

    def __init__(self) -> None:
        self._peers: dict[tuple[int, int], _Peer] = {}
        self._of_source: Counter[tuple[int, int]] = Counter()
        self._of_server: Counter[int] = Counter()
        self._websockets: dict[int, Counter[Group]] = {}
        """By server, of whom; who has none is not in here."""
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
            self._count_websocket(peer, server, websocket=websocket)
            if peer.carried is not None:
                peer.carried.idle_s = WEBSOCKET_IDLE_S if websocket else REQUEST_IDLE_S
        return peer.address

    def websockets(self, server: int) -> int:
        """How many clients have connections to that port of Caddy's that became WebSockets; whoever has many, even by
        all addresses of an IPv6 /48, is one.
        """
        return len(self._websockets.get(server, ()))

    def _count_websocket(self, peer: _Peer, server: int, *, websocket: bool) -> None:
        peer.websocket = websocket
        of_server = self._websockets.setdefault(server, Counter())
        of_server[peer.group] += 1 if websocket else -1
        if not of_server[peer.group]:
            del of_server[peer.group]
        if not of_server:
            del self._websockets[server]

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
            self._count_websocket(peer, server, websocket=False)
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
