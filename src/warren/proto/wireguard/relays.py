"""From whom ChannelData is taken: TURN servers on the way to a peer, and those the controller asked for a channel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from warren.proto.wireguard.addresses import SocketAddress, server_of

if TYPE_CHECKING:
    from warren.proto.wireguard.peer import Peer

REGISTERED_MAX = 64
"""Servers that the controller speaks to at once; the one it spoke to longest ago gives way."""


class Relays:
    """The TURN servers of one device. Finding those of the peers costs a look at each, once after each change."""

    __slots__ = ("_known", "_peers", "_registered", "_stale")

    def __init__(self, peers: dict[bytes, Peer]) -> None:
        self._peers = peers
        self._registered: dict[SocketAddress, None] = {}
        self._known: frozenset[SocketAddress] = frozenset()
        self._stale = False

    def knows(self, source: SocketAddress) -> bool:
        """Whether ChannelData from ``source``, an address without a channel, is to be unwrapped."""
        if self._stale:
            self._stale = False
            self._known = frozenset((*self._registered, *self._of_peers()))
        return source in self._known

    def _of_peers(self) -> Iterable[SocketAddress]:
        for peer in self._peers.values():
            if peer.endpoint is not None and (server := server_of(peer.endpoint.address)) is not None:
                yield server

    def changed(self) -> None:
        """The endpoint of a peer became one behind a relay, or ceased to be."""
        self._stale = True

    def register(self, server: SocketAddress) -> None:
        """The controller asked ``server`` for a channel."""
        known = server in self._registered
        self._registered.pop(server, None)
        self._registered[server] = None
        if len(self._registered) > REGISTERED_MAX:
            del self._registered[next(iter(self._registered))]
        self._stale = self._stale or not known

    def forget_registered(self) -> None:
        """The controller is gone."""
        self._registered.clear()
        self._stale = True
