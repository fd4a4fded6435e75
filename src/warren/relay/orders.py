"""Carries out what the TURN server orders: sockets and shares for new allocations, their end, messages to be sent."""

from __future__ import annotations

from collections.abc import Callable

from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_values import UDP, Allocation, Client, Closed, Opened, ToClient
from warren.relay.carrier import Carrier, StreamEnd, UdpEnd
from warren.relay.data_sockets import DataSockets
from warren.relay.fairness import Share
from warren.relay.stream_door import StreamDoor
from warren.relay.udp_door import UdpDoor


class Orders:
    """``shares`` are of users that have allocations, by identity; each may move ``user_rate`` bytes a second."""

    def __init__(
        self,
        server: TurnServer,
        carrier: Carrier,
        sockets: DataSockets,
        udp: UdpDoor,
        streams: StreamDoor,
        user_rate: float,
        clock: Callable[[], float],
    ) -> None:
        self.shares: dict[str, Share] = {}
        self._server = server
        self._carrier = carrier
        self._sockets = sockets
        self._udp = udp
        self._streams = streams
        self._user_rate = user_rate
        self._clock = clock

    def carry_out(self, now: float) -> None:
        """All there are. Sockets are opened and closed before anybody is told of it: what a client sends next then goes
        to the right one.
        """
        server, carrier = self._server, self._carrier
        while server.has_output:  # what goes to another client may become an indication
            for event in server.take_events():
                if isinstance(event, Opened):
                    self._opened(event.allocation, now)
                else:
                    self._closed(event)
            for transmit in server.take_transmits():
                if isinstance(transmit, ToClient):
                    self._send_to_client(transmit.client, transmit.data)
                else:
                    relayed, peer, data, whole = transmit
                    carrier.to_peer(relayed, peer, data, now, whole=whole)

    def _send_to_client(self, client: Client, data: bytes) -> None:
        allocation = self._server.allocations.get(client)
        end = allocation.handle if allocation is not None else None
        if isinstance(end, UdpEnd | StreamEnd):
            end.send_message(data)
        elif client.transport == UDP:
            local = client.local if isinstance(client.local, bytes) else b""
            self._udp.ports[client.listener].send(data, len(data), client.remote, local)
        else:
            stream = self._streams.by_client.get(client)
            if stream is not None:
                StreamEnd(stream, self._streams.follow).send_message(data)

    def _opened(self, allocation: Allocation, now: float) -> None:
        share = self.shares.get(allocation.identity)
        if share is None:
            share = self.shares[allocation.identity] = Share(allocation.identity, self._user_rate, now)
        share.holders += 1
        for relayed in allocation.relayed.values():
            self._sockets.add_relayed(relayed, share)
        client = allocation.client
        if client.transport == UDP:
            end = self._sockets.open_client(allocation, self._udp.ports[client.listener], share)
            if end.remote is not None:
                self._carrier.counters["clients_without_socket"] += 1
            allocation.handle = end
        else:
            stream = self._streams.by_client[client]
            stream.share = share
            self._streams.proved(stream)
            allocation.handle = StreamEnd(stream, self._streams.follow)

    def _closed(self, event: Closed) -> None:
        allocation = event.allocation
        end, allocation.handle = allocation.handle, None
        if isinstance(end, UdpEnd) and end.remote is None:
            self._sockets.forget(end.socket)
        elif isinstance(end, StreamEnd):
            end.stream.share = None
            self._streams.unproved(end.stream, self._clock())
        share = self.shares.get(allocation.identity)
        if share is not None:
            share.holders -= 1
            if share.holders == 0:
                del self.shares[allocation.identity]
