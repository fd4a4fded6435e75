"""Reads trains from sockets, and hands each to the carrier, or what is no data to the TURN server."""

from __future__ import annotations

from warren.linux.udp import TRAIN_DATAGRAMS_MAX
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_values import UDP, Client, SocketAddress
from warren.relay.carrier import Carrier
from warren.relay.data_sockets import DataSocket
from warren.relay.fairness import DATAGRAM_COST_BYTES
from warren.relay.udp_door import UdpDoor

READS_PER_VISIT = 64
"""At most, of one socket: small datagrams cost time, not bytes."""
GATHERED_BYTES = 49_152
"""Single datagrams are gathered up to here: what one call can send, with room for another."""
TRAINS_PER_PORT_VISIT = 64
NOTHING_BYTES = 8  # a datagram without data, or ChannelData of one, would vanish at the end of a train
_BUFFER_BYTES = 1 << 17  # what is gathered, and the largest train there is behind it


class Mover:
    """One buffer, reused for everything that arrives by UDP."""

    def __init__(self, server: TurnServer, carrier: Carrier, door: UdpDoor) -> None:
        self._server = server
        self._carrier = carrier
        self._door = door
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def serve(self, one: DataSocket, limit: int, now: float) -> int:
        """Move what one socket holds, some ``limit`` bytes of it; returns what it cost.

        A datagram that comes alone is moved at once. In a burst, single datagrams of one size from one place are
        gathered: one call sends them all.
        """
        sock, buffer, view = one.socket, self._buffer, self._view
        receive, move = sock.receive_into, self._move
        gathers = one.bursts
        held = stride = ecn = cost = reads = 0
        source: SocketAddress = ()
        while reads < READS_PER_VISIT:
            arrived = receive(view[held:] if held else view)
            if arrived is None:
                break
            reads += 1
            length, its_stride, its_source, _, its_ecn = arrived
            cost += length + DATAGRAM_COST_BYTES * (length // its_stride if its_stride else 1)
            fits = its_stride == stride or NOTHING_BYTES < length == its_stride < stride
            if held and fits and its_source == source and its_ecn == ecn:
                held += length
            else:
                if held:
                    move(one, source, held, stride, ecn, now)
                    buffer[:length] = buffer[held : held + length]
                held, stride, source, ecn = length, its_stride, its_source, its_ecn
            if not gathers or held >= GATHERED_BYTES or held % (stride or 1) or held >= TRAIN_DATAGRAMS_MAX * stride:
                move(one, source, held, stride, ecn, now)
                held = 0
                gathers = True
            if cost >= limit or sock.fileno() < 0:
                break
        if held:
            move(one, source, held, stride, ecn, now)
        one.bursts = reads > 1
        return cost

    def _move(self, one: DataSocket, source: SocketAddress, length: int, stride: int, ecn: int, now: float) -> None:
        """Pass on a train that lies in the buffer."""
        allocation = one.allocation
        if one.family:
            relayed = allocation.relayed.get(one.family)
            if relayed is not None:
                self._carrier.from_peer(relayed, source, self._view[:length], stride, ecn, now)
        elif source == allocation.client.remote:
            self._carrier.from_client(allocation, self._buffer, length, stride, ecn, now)
        else:
            client = Client(UDP, source, allocation.client.local, allocation.client.listener)
            self._from_port(client, length, stride, ecn, now)

    def serve_port(self, number: int, now: float) -> None:
        """Requests of clients that have no socket of their own yet, and data of those that got none."""
        receive, view = self._door.ports[number].receive_into, self._view
        for _ in range(TRAINS_PER_PORT_VISIT):
            arrived = receive(view)
            if arrived is None:
                break
            length, stride, source, local, ecn = arrived
            self._from_port(Client(UDP, source, local, number), length, stride, ecn, now)

    def _from_port(self, client: Client, length: int, stride: int, ecn: int, now: float) -> None:
        allocation = self._server.allocations.get(client)
        if allocation is not None:
            self._carrier.from_client(allocation, self._buffer, length, stride, ecn, now)
            return
        view, discovery = self._view, self._door.discovery
        for at in range(0, length, stride or 1):
            if self._buffer[at] < 0x40:  # ChannelData of nobody, and anything else, is not worth a look
                message = bytes(view[at : min(at + stride, length)])
                if discovery is None or not discovery.answer(message, client, self._door.ports, now):
                    self._server.receive(message, client, now)
