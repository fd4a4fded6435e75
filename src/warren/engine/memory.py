"""An engine without a kernel: the same WireGuard device over a network that is a dictionary. For tests and simulations.

Everything happens inside the call that causes it, on a clock that only moves when told to, so a test never waits.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from warren.errors import OperationFailed, Unreachable
from warren.model.tunnel import TransportAddress, TunnelChange, TunnelStatus
from warren.proto.datapath import split
from warren.proto.ip.virtio import VNET
from warren.proto.wireguard.constants import HEADER_BYTES, TAG_BYTES
from warren.proto.wireguard.device import Device

_DELIVERIES_MAX = 10_000  # more in one go means that two engines answer each other for ever: a bug
_SPLIT_ROOM = 1 << 18
_Sockaddr = tuple[str, int] | tuple[str, int, int, int]


class MemoryNetwork:
    """Carries datagrams between :class:`MemoryEngine` objects, in order and without loss. ``now`` is in seconds."""

    def __init__(self, random: Callable[[int], bytes], wall_clock_ns: int = 1_700_000_000 * 10**9) -> None:
        self.now = 0.0
        self.random = random
        self._wall_start_ns = wall_clock_ns
        self._engines: dict[tuple[str, int], MemoryEngine] = {}
        self._under_way: deque[tuple[_Sockaddr, _Sockaddr, bytes, int, int]] = deque()
        self._next_port = 49152

    def wall_clock_ns(self) -> int:
        return self._wall_start_ns + int(self.now * 10**9)

    def bind(self, engine: MemoryEngine, port: int) -> int:
        """Give ``engine`` the port ``port`` of its address (0: a free one). Raises OperationFailed when it is taken."""
        if port == 0:
            port = self._next_port
            self._next_port += 1
        if self._engines.get((engine.ip, port), engine) is not engine:
            raise OperationFailed(f"UDP port {port} of {engine.ip} is taken: choose another ListenPort")
        self.release(engine)
        self._engines[engine.ip, port] = engine
        return port

    def release(self, engine: MemoryEngine) -> None:
        """Free whatever port ``engine`` has."""
        self._engines = {key: other for key, other in self._engines.items() if other is not engine}

    def post(self, source: _Sockaddr, destination: _Sockaddr, train: bytes, stride: int, ecn: int) -> None:
        self._under_way.append((source, destination, train, stride, ecn))

    def settle(self) -> None:
        """Deliver until nothing is under way."""
        for _ in range(_DELIVERIES_MAX):
            if not self._under_way:
                return
            source, destination, train, stride, ecn = self._under_way.popleft()
            engine = self._engines.get((destination[0], destination[1]))
            if engine is not None:
                engine.receive(train, stride, source, ecn)
        raise RuntimeError(f"still busy after {_DELIVERIES_MAX} deliveries")

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline of every engine on the way."""
        end = self.now + seconds
        while True:
            deadlines = [
                d for engine in set(self._engines.values()) if (d := engine.next_deadline()) is not None and d <= end
            ]
            if not deadlines:
                break
            self.now = max(self.now, min(deadlines))
            for engine in list(self._engines.values()):
                engine.handle_timeout()
            self.settle()
        self.now = end


class MemoryEngine:
    """An :class:`~warren.engine.base.Engine` at underlay address ``ip`` of ``network``. ``delivered`` collects inner
    packets.
    """

    def __init__(self, network: MemoryNetwork, interface: str, ip: str) -> None:
        self.ip = ip
        self.delivered: list[bytes] = []
        self._network = network
        self._interface = interface
        self._device = Device(random=network.random, wall_clock_ns=network.wall_clock_ns)
        self._port = network.bind(self, 0)
        self._fwmark = 0
        self._closed = False
        self._device.up(network.now)

    @property
    def interface(self) -> str:
        return self._interface

    @property
    def address(self) -> TransportAddress:
        return TransportAddress(ip_address(self.ip), self._port)

    async def configure(self, change: TunnelChange) -> None:
        self._must_be_open()
        self._device.check(change)
        if change.listen_port is not None and change.listen_port != self._port:
            self._port = self._network.bind(self, change.listen_port)
        if change.fwmark is not None:
            self._fwmark = change.fwmark
        self._device.configure(change, self._network.now)
        self._emit()
        self._network.settle()

    async def status(self) -> TunnelStatus:
        self._must_be_open()
        return dataclasses.replace(self._device.status(), listen_port=self._port, fwmark=self._fwmark)

    async def statistics(self) -> Mapping[str, int]:
        self._must_be_open()
        return dict(self._device.counters)

    async def close(self) -> None:
        self._closed = True
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

    def receive(self, train: bytes, stride: int, source: _Sockaddr, ecn: int) -> None:
        """Take one train from the network."""
        now = self._network.now
        self._device.receive(bytearray(train), len(train), stride, source, b"", ecn, now)
        for frame in self._device.take_frames():
            self.delivered += _packets(frame)
        self._device.handshake_work(now, self._device.pending_handshakes)
        self._emit()

    def next_deadline(self) -> float | None:
        deadline = self._device.next_deadline()
        return None if deadline is None else deadline.at

    def handle_timeout(self) -> None:
        self._device.handle_timeout(self._network.now)
        self._emit()

    def _emit(self) -> None:
        self._device.take_events()
        here: _Sockaddr = (self.ip, self._port) if ":" not in self.ip else (self.ip, self._port, 0, 0)
        for data, stride, endpoint, ecn, _ in self._device.take_transmits():
            self._network.post(here, endpoint.address, bytes(data), stride, ecn)


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
