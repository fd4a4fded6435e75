"""One allocation at one relay, over one transport."""

from __future__ import annotations

from collections.abc import Callable

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.paths.values import Base
from warren.proto.turn.client import TurnClient
from warren.reach.relay_values import RelayPlace, Transport

MakeClient = Callable[[TransportAddress, RelayPlace, Transport, float], TurnClient]
"""From the server as the data plane sees it, the relay with its credentials, the transport, and now."""


class Leg:
    """``server``: where the data plane sends to, the relay itself or the near end of a bridge."""

    def __init__(self, place: RelayPlace, transport: Transport, server: TransportAddress, client: TurnClient) -> None:
        self.relay = place.name
        self.transport = transport
        self.server = server
        self.client = client
        self.base = Base(kind="relay", relay=label(place.name, transport))
        self.ready = False

    def take_transmits(self) -> list[ControlDatagram]:
        return [ControlDatagram(data, self.server, PLAIN) for data in self.client.take_transmits()]

    def way_to(self, peer: TransportAddress) -> Way | None:
        """How a packet for ``peer`` gets into the allocation; None: there is no channel (yet)."""
        channel = self.client.channel_of(peer)
        return None if channel is None else Way(channel=channel)


def label(relay: str, transport: Transport) -> str:
    """What a base at that relay is called."""
    return relay if transport == "udp" else f"{relay}/{transport}"
