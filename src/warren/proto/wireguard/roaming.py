"""Where peers are: an endpoint follows what is heard of its peer (WireGuard §2.1), or the word of a controller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.events import EndpointWanted, Event, HeardElsewhere, PeerRoamed
from warren.proto.wireguard.peer import Endpoint, Peer
from warren.proto.wireguard.relays import Relays

_ROAMING_TOLD_EVERY_S: Final = 1.0  # two hosts with one key would otherwise make an event per packet
_HEARD_TOLD_EVERY_S: Final = 1.0
_WANTED_TOLD_EVERY_S: Final = 1.0


class Roaming:
    """Of the peers of one device. ``listening`` is True while a controller moves the endpoints of pinned peers."""

    __slots__ = ("_counters", "_relays", "_tell", "listening")

    def __init__(self, relays: Relays, counters: dict[str, int], tell: Callable[[Event], None]) -> None:
        self.listening = False
        self._relays = relays
        self._counters = counters
        self._tell = tell

    def heard_from(self, peer: Peer, source: SocketAddress, local: bytes, now: float) -> None:
        """An authenticated message of ``peer`` came from ``source`` to our address ``local``: answer from there to
        there, unless that is the controller's to decide.
        """
        before = peer.endpoint
        if before is not None and before.address == source:
            if not before.fixed:
                peer.endpoint = Endpoint(source, local)
            return
        if peer.pinned and self.listening:
            if now - peer.heard_elsewhere_at >= _HEARD_TOLD_EVERY_S:
                peer.heard_elsewhere_at = now
                self._tell(HeardElsewhere(peer.public_key, source, local))
            return
        peer.endpoint = Endpoint(source, local)
        self._relays.changed()
        self._counters["roamed"] += 1
        if now - peer.roaming_told_at >= _ROAMING_TOLD_EVERY_S:
            peer.roaming_told_at = now
            self._tell(PeerRoamed(peer.public_key, before.address if before is not None else None, source))

    def want_endpoint(self, peer: Peer, now: float) -> None:
        """Tell the controller that what is sent to ``peer`` does not get there."""
        if self.listening and now - peer.endpoint_wanted_at >= _WANTED_TOLD_EVERY_S:
            peer.endpoint_wanted_at = now
            self._tell(EndpointWanted(peer.public_key))
