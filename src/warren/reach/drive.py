"""Between the words of path selection (bases, relays, sockets) and the datagrams of a data plane's control port."""

from __future__ import annotations

from collections.abc import Callable

from warren.engine.base import ControlPort
from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import TransportAddress, Way
from warren.paths.events import Check
from warren.paths.values import Base
from warren.reach.courses import base_of, host_base, way_of
from warren.reach.mirrors import Throw
from warren.reach.sockets import PunchSockets
from warren.reach.uplinks import Uplinks


class Drive:
    """Single owner; never fails. Without a ``port`` what is sent is lost."""

    def __init__(self, relays: Uplinks, sockets: PunchSockets, clock: Callable[[], float]) -> None:
        self.port: ControlPort | None = None
        self.bases: tuple[Base, ...] = ()
        """Of this host."""
        self._relays = relays
        self._sockets = sockets
        self._clock = clock

    def place(self, remote: TransportAddress, way: Way) -> tuple[Base, TransportAddress] | None:
        """At which base something came, and from where; None: by a channel or socket that nobody knows."""
        if way.channel:
            leg = self._relays.leg_at(remote, way)
            peer = None if leg is None else leg.client.peer_of(way.channel)
            return None if leg is None or peer is None else (leg.base, peer)
        base = self._sockets.base_of(way.socket) if way.socket else base_of(way, self.bases)
        if base is None and not way.socket and way.source is not None:
            base = host_base(way.source, way.interface)
        return None if base is None else (base, remote)

    def send(self, datagram: ControlDatagram) -> None:
        if self.port is not None:
            self.port.send(datagram)

    def check(self, check: Check) -> None:
        """Send it from its base: a host's address, a socket of ours or the data plane's, a relay's allocation."""
        base, remote = check.base, check.remote
        if base.kind == "host":
            self.send(ControlDatagram(check.data, remote, way_of(base), check.dont_fragment))
        elif base.kind == "socket":
            way = self._sockets.way(base)
            if way is None:
                self._sockets.send(base, remote, check.data)
            else:
                self.send(ControlDatagram(check.data, remote, way, check.dont_fragment))
        elif (leg := self._relays.leg(base)) is not None:
            way = leg.way_to(remote)
            if way is None:
                leg.client.send(remote, check.data, self._clock())
            else:
                self.send(ControlDatagram(check.data, leg.server, way, check.dont_fragment))

    def throw(self, throw: Throw) -> None:
        """Send it from an allocation, without a channel."""
        leg = self._relays.leg(throw.relay)
        if leg is not None:
            leg.client.send(throw.peer, throw.data, self._clock())
