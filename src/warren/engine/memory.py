"""An engine without a kernel: the same WireGuard device over a network that is a dictionary. For tests and simulations.

Everything happens inside the call that causes it, on a clock that only moves when told to, so a test never waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable, Mapping

from warren.engine.base import SOCKETS_MAX, why_not_handed_over
from warren.engine.memory_network import MemoryNetwork, MemorySockets, Train
from warren.errors import OperationFailed, Unreachable
from warren.model.datagrams import ControlDatagram, ControlEvent
from warren.model.tunnel import TransportAddress, TunnelChange, TunnelStatus, Way
from warren.proto.datapath import split
from warren.proto.ip.virtio import VNET
from warren.proto.wireguard.addresses import (
    pack_local,
    socket_address,
    through_socket,
    transport_address,
    way_of,
)
from warren.proto.wireguard.constants import HEADER_BYTES, TAG_BYTES
from warren.proto.wireguard.control import routed
from warren.proto.wireguard.device import Device

__all__ = ["MemoryControlPort", "MemoryEngine", "MemoryNetwork"]

_SPLIT_ROOM = 1 << 18


class MemoryEngine:
    """An :class:`~warren.engine.base.Engine` at underlay address ``ip`` of ``network``, and at ``more`` addresses.
    ``delivered`` collects inner packets.
    """

    def __init__(self, network: MemoryNetwork, interface: str, ip: str, *more: str) -> None:
        self.ip = ip
        self.delivered: list[bytes] = []
        self._network = network
        self._interface = interface
        self._device = Device(random=network.random, wall_clock_ns=network.wall_clock_ns)
        self._sockets = MemorySockets(network, self, (ip, *more))
        self._sockets.open(0, 0)
        self._fwmark = 0
        self._listener: MemoryControlPort | None = None
        self._closed = False
        self._device.drain_by(self._deliver)
        self._device.up(network.now)

    @property
    def interface(self) -> str:
        return self._interface

    @property
    def address(self) -> TransportAddress:
        return TransportAddress(self._sockets.ips[0], self._sockets.ports[0])

    async def configure(self, change: TunnelChange) -> None:
        self._must_be_open()
        self._device.check(change)
        if change.listen_port is not None and change.listen_port != self._sockets.ports[0]:
            self._sockets.open(0, change.listen_port)
        if change.fwmark is not None:
            self._fwmark = change.fwmark
        self._device.configure(change, self._network.now)
        self._emit()
        self._network.settle()

    async def status(self) -> TunnelStatus:
        self._must_be_open()
        return dataclasses.replace(self._device.status(), listen_port=self._sockets.ports[0], fwmark=self._fwmark)

    async def statistics(self) -> Mapping[str, int]:
        self._must_be_open()
        return dict(self._device.counters)

    async def listen(self, heard: Callable[[ControlEvent], None]) -> MemoryControlPort:
        self._must_be_open()
        before, self._listener = self._listener, MemoryControlPort(self, heard)
        if before is not None:
            before.end()
        self._device.listen(True)
        return self._listener

    async def close(self) -> None:
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        self._network.release(self)

    def _must_be_open(self) -> None:
        if self._closed:
            raise Unreachable(f"the data plane of {self._interface} was closed")

    def inject(self, packet: bytes) -> None:
        """Send one IP packet from the host into the tunnel, and let everything it causes happen."""
        frame = bytes(VNET) + packet
        self._device.send(memoryview(bytearray(frame)), len(frame), self._network.now)
        self._device.flush(self._network.now)
        self._emit()
        self._network.settle()

    # What the network does.

    def receive(self, train: Train) -> None:
        """Take one train from the network."""
        now = self._network.now
        number = self._sockets.number_of(train.destination.port)
        source = socket_address(train.source)
        if number:
            source = through_socket(source, number)
        local = pack_local(Way(train.destination.ip), source[0])
        self._device.receive(bytearray(train.data), len(train.data), train.stride, source, local, train.ecn, now)
        self._deliver()
        self._device.handshake_work(now, self._device.pending_handshakes)
        self._emit()

    def _deliver(self) -> None:
        for frame in self._device.take_frames():
            self.delivered += _packets(frame)

    def next_deadline(self) -> float | None:
        deadline = self._device.next_deadline()
        return None if deadline is None else deadline.at

    def handle_timeout(self) -> None:
        self._device.handle_timeout(self._network.now)
        self._emit()

    def _emit(self) -> None:
        """Send what the device wants sent, then let the listener hear what there is."""
        for data, stride, endpoint, ecn, _ in self._device.take_transmits():
            address = endpoint.address
            way = way_of(address, endpoint.local)
            self._sockets.send(
                bytes(data), stride, transport_address(address),
                source=way.source, channel=way.channel, number=way.socket, ecn=ecn,
            )  # fmt: skip
        news: list[ControlEvent] = [event.news for event in self._device.take_events() if event.news is not None]
        news += [arrival.datagram(arrival.local) for arrival in self._device.control.take()]
        for event in news:
            if self._listener is not None:
                self._listener.heard(event)

    # What the listener does.

    def send_control(self, datagram: ControlDatagram) -> None:
        way = datagram.way
        try:
            address, _ = routed(datagram)
        except ValueError:
            return
        self._device.control.sent(datagram.data, address)
        self._sockets.send(
            datagram.data, max(1, len(datagram.data)), datagram.remote,
            source=way.source, channel=way.channel, number=way.socket, dont_fragment=datagram.dont_fragment,
        )  # fmt: skip
        self._network.settle()

    def take_socket(self, sock: socket.socket) -> int:
        """Raises OperationFailed when it cannot be handed over, there are enough already, or the port is taken."""
        if why := why_not_handed_over(sock):
            raise OperationFailed(why)
        number = next((n for n in range(1, SOCKETS_MAX + 1) if n not in self._sockets.ports), 0)
        if not number:
            raise OperationFailed(f"a data plane takes over {SOCKETS_MAX} sockets at most: take one back first")
        self._sockets.open(number, sock.getsockname()[1])
        return number

    def close_socket(self, number: int) -> None:
        if number:
            self._sockets.close(number)

    def unlisten(self, port: MemoryControlPort) -> None:
        """Forget ``port`` if it is the listener's, and the handed-over sockets by which no peer is reached."""
        if port is not self._listener:
            return
        self._listener = None
        self._device.listen(False)
        for number in set(self._sockets.ports) - self._device.sockets_in_use() - {0}:
            self._sockets.close(number)


class MemoryControlPort:
    """A :class:`~warren.engine.base.ControlPort`. Of a socket handed over only the number of its port counts: the
    engine has that port in the network of memory from then on.
    """

    def __init__(self, engine: MemoryEngine, heard: Callable[[ControlEvent], None]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard = heard
        self._engine = engine

    def send(self, datagram: ControlDatagram) -> None:
        if not self.closed.done():
            self._engine.send_control(datagram)

    def hand_over(self, sock: socket.socket) -> int:
        return self._engine.take_socket(sock)

    def take_back(self, number: int) -> None:
        if not self.closed.done():
            self._engine.close_socket(number)

    def close(self) -> None:
        self._engine.unlisten(self)
        self.end()

    def end(self) -> None:
        """Say that this port is of no more use."""
        if not self.closed.done():
            self.closed.set_result(None)


def _packets(frame: memoryview) -> list[bytes]:
    """The single IP packets of one frame for the host, as the host's own segmentation would make them."""
    out = bytearray(_SPLIT_ROOM)
    count, stride, end = split(frame, len(frame), out, 0, 0)
    edges = [(i * stride + HEADER_BYTES, min((i + 1) * stride, end) - TAG_BYTES) for i in range(count)]
    return [_trimmed(bytes(out[start:stop])) for start, stop in edges]


def _trimmed(packet: bytes) -> bytes:
    """Without WireGuard's padding."""
    if packet[0] >> 4 == 4:
        return packet[: int.from_bytes(packet[2:4], "big")]
    return packet[: 40 + int.from_bytes(packet[4:6], "big")]
