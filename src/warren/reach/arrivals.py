"""What comes from the data plane, and who it is for: paths, relays, or what asks how this host looks from outside."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Final

from warren.model.datagrams import ControlDatagram, ControlEvent, PathWanted, PeerHeard
from warren.model.tunnel import TransportAddress, Way
from warren.paths.values import Base
from warren.reach.parts import Parts

_INBOX_MAX: Final = 4096
"""Control datagrams that wait while one is dealt with; the rest is lost, as on a network."""
_CHANNELS_SPARE: Final = 64
"""When there is room for so few more at a relay, channels that lead nowhere are given up."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """Where a data plane that was taken over sends to."""

    node: bytes
    endpoint: TransportAddress
    way: Way


class Arrivals:
    """Things are put in at any time, and dealt with by :meth:`take_all`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._inbox: deque[ControlEvent | Adopted] = deque(maxlen=_INBOX_MAX)

    def __len__(self) -> int:
        return len(self._inbox)

    def put(self, event: ControlEvent | Adopted) -> None:
        self._inbox.append(event)

    def take_all(self, now: float) -> None:
        while self._inbox:
            self._take(self._inbox.popleft(), now)

    def _take(self, event: ControlEvent | Adopted, now: float) -> None:
        peers = self._parts.peers
        match event:
            case ControlDatagram():
                self._take_datagram(event, now)
            case PeerHeard(key, remote, way):
                node = peers.holder(key)
                if node is not None:
                    self._hear(node, remote, way, now)
            case PathWanted(key):
                node = peers.holder(key)
                if node is not None:
                    self._parts.paths.want(node, now)
                else:
                    peers.wanted_early(key)
            case Adopted(node, remote, way):
                self._hear(node, remote, way, now)

    def _hear(self, node: bytes, remote: TransportAddress, way: Way, now: float) -> None:
        place = self._parts.drive.place(remote, way)
        if place is not None and node in self._parts.peers:
            self._parts.paths.heard(node, place[1], place[0], now)

    def _take_datagram(self, datagram: ControlDatagram, now: float) -> None:
        parts = self._parts
        data, remote, way = datagram.data, datagram.remote, datagram.way
        if not way.channel:
            asked = parts.outside.receive(data, remote, now) or parts.relays.receive(data, remote, now, way)
            if asked:
                parts.tell_due = True
                return
        place = parts.drive.place(remote, way)
        if place is not None:
            parts.paths.receive(data, place[1], place[0], now)

    def relayed(self, base: Base, peer: TransportAddress, data: bytes, now: float) -> None:
        """Something came through the allocation ``base`` without a channel: the next packets of that peer are to find
        one.
        """
        leg = self._parts.relays.leg(base)
        if leg is None or self._parts.outside.came(base, peer, data):
            return
        if self._parts.paths.receive(data, peer, base, now):  # whoever shares a peer's address could send anything else
            self.keep_channels(base)
            leg.client.bind(peer, now)

    def keep_channels(self, base: Base) -> None:
        """Peers come from ever new ports: channels to where no pair leads any more make room before there is none."""
        leg = self._parts.relays.leg(base)
        if leg is not None:
            remotes = cache(lambda: self._parts.paths.remotes(base))
            leg.client.keep_channels(_CHANNELS_SPARE, lambda peer: peer in remotes())
