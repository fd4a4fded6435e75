"""One allocation at one relay, over one transport."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.paths.values import Base
from warren.proto.turn.client import TurnClient
from warren.reach.relay_values import RelayPlace, Transport

MakeClient = Callable[[TransportAddress, RelayPlace, Transport, float], TurnClient]
"""From the server as the data plane sees it, the relay with its credentials, the transport, and now."""


class Leg:
    """``server``: where the data plane sends to, the relay itself or the near end of a bridge. ``way``: how that gets
    there; the plain one follows the routes, another keeps to an uplink.
    """

    def __init__(
        self, place: RelayPlace, transport: Transport, server: TransportAddress, client: TurnClient, way: Way = PLAIN
    ) -> None:
        self.relay = place.name
        self.transport = transport
        self.server = server
        self.client = client
        self.way = way
        self.base = Base(kind="relay", relay=label(place.name, transport, way))
        self.interface = way.interface
        """The index of the interface by which this host gets there; 0: it is not known."""
        self.ready = False

    def take_transmits(self) -> list[ControlDatagram]:
        return [ControlDatagram(data, self.server, self.way) for data in self.client.take_transmits()]

    def way_to(self, peer: TransportAddress) -> Way | None:
        """How a packet for ``peer`` gets into the allocation; None: there is no channel (yet)."""
        channel = self.client.channel_of(peer)
        return None if channel is None else replace(self.way, channel=channel)


def label(relay: str, transport: Transport, way: Way = PLAIN) -> str:
    """What a base at that relay is called: the relay, and what is special about the way there."""
    name = relay if transport == "udp" else f"{relay}/{transport}"
    return name if way.source is None else f"{name}/from {way.source}"
