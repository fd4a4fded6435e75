"""Devices on a simulated network: time moves by hand, loss and order come from a seed, a failure shows what happened.

::

    with Wire(seed=7, loss=0.2) as wire:
        a, b = wire.pair()
        a.send(packet)
        wire.advance(30.0)
        assert b.delivered == [packet]

Leaving the block with an exception prints the seed and the last messages as a sequence diagram.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from types import TracebackType
from typing import Self

from tests.support.packets import udp_packet
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PeerChange, PeerStatus, TransportAddress, TunnelChange
from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.device import Device
from warren.proto.wireguard.events import Event, TimestampUsed
from warren.proto.wireguard.timers import NEVER

PORT = 51820
WALL_START_NS = 1_700_000_000 * 10**9
_STEPS_MAX = 200_000  # of one advance: more is a storm, which is a bug
_DIAGRAM_LINES = 60
_VNET = bytes(10)
_NAMES = {1: "initiation", 2: "response", 3: "cookie reply", 4: "data"}


class Host:
    """One device at ``address``. ``delivered`` collects its inner packets, ``events`` what it told; the test may move
    ``address``.
    """

    def __init__(self, wire: Wire, name: str, address: SocketAddress, inner: tuple[str, ...]) -> None:
        self.name = name
        self.address = address
        self.local = b""
        """What the datagrams of this host's peers arrive with as the local address."""
        self.inner = inner
        self.private_key = PrivateKey(wire.random.randbytes(32))
        self.delivered: list[bytes] = []
        self.events: list[Event] = []
        self.wall_offset_ns = 0
        self.handshake_budget = 1_000_000
        """Handshake messages it may process per delivery."""
        self.timestamps: list[int] = []
        self.sent_from: list[bytes] = []
        """The ``local`` of each transmit."""
        self._wire = wire
        self.device = wire.new_device(self)

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key()

    def wall_clock_ns(self) -> int:
        return WALL_START_NS + int(self._wire.now * 10**9) + self.wall_offset_ns

    def configure(self, *peers: PeerChange, **device: object) -> None:
        self.device.configure(TunnelChange(peers=peers, **device), self._wire.now)  # type: ignore[arg-type]
        self._wire.collect(self)

    def peer(self, other: Host, **change: object) -> PeerChange:
        """A change that adds ``other`` with its inner addresses, and with its endpoint unless ``endpoint`` says
        otherwise.
        """
        host, port = other.address[:2]
        values: dict[str, object] = {
            "endpoint": TransportAddress(ip_address(host), port),
            "allowed_ips": tuple(ip_network(inner) for inner in other.inner),
        }
        return PeerChange(other.public_key, **{**values, **change})  # type: ignore[arg-type]

    def status_of(self, other: Host) -> PeerStatus:
        return next(peer for peer in self.device.status().peers if peer.public_key == other.public_key)

    def send(self, *packets: bytes) -> None:
        """The host writes ``packets`` in one batch."""
        for packet in packets:
            frame = bytearray(_VNET + packet)
            self.device.send(memoryview(frame), len(frame), self._wire.now)
        self.device.flush(self._wire.now)
        self._wire.collect(self)

    def packet_to(self, other: Host, payload: bytes = b"payload", family: int = 0) -> bytes:
        """A UDP packet between the inner addresses of both."""
        return udp_packet(self.inner[family], other.inner[family], payload)

    def restart(self, timestamp_floor_ns: int = 0) -> None:
        """A new device with the same key and nothing remembered, down and without peers."""
        self.device = self._wire.new_device(self, timestamp_floor_ns)
        self.configure(private_key=self.private_key)


class Wire:
    """The network between hosts. Impairments may be changed at any time; ``captured`` is every datagram that was sent.

    ``loss`` and ``duplicate`` are probabilities; each datagram takes ``delay_s`` and up to ``jitter_s`` more, so
    jitter reorders.
    """

    def __init__(
        self, seed: int, *, loss: float = 0.0, duplicate: float = 0.0, delay_s: float = 0.01, jitter_s: float = 0.0,
        datapath: DataPath | None = None,
    ) -> None:  # fmt: skip
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 1000.0
        self.loss, self.duplicate, self.delay_s, self.jitter_s = loss, duplicate, delay_s, jitter_s
        self.captured: list[tuple[SocketAddress, SocketAddress, bytes]] = []
        self.filter: Callable[[SocketAddress, SocketAddress, bytes], bool] = lambda source, destination, data: True
        """Datagrams for which this is False are lost."""
        self._datapath = datapath
        self._hosts: list[Host] = []
        self._under_way: list[tuple[float, int, SocketAddress, SocketAddress, bytes, int]] = []
        self._serial = 0
        self._diagram: deque[str] = deque(maxlen=_DIAGRAM_LINES)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            lines = [f"seed {self.seed}, at {self.now:.3f} s; the last messages were:", *self._diagram]
            sys.stderr.write("\n".join(lines) + "\n")

    # Hosts.

    def new_device(self, host: Host, timestamp_floor_ns: int = 0) -> Device:
        return Device(
            random=self.random.randbytes,
            wall_clock_ns=host.wall_clock_ns,
            timestamp_floor_ns=timestamp_floor_ns,
            datapath=self._datapath,
        )

    def host(self, name: str, ip: str, *inner: str) -> Host:
        """A device that is up, with a key and no peers."""
        address: SocketAddress = (ip, PORT) if "." in ip else (ip, PORT, 0, 0)
        host = Host(self, name, address, inner)
        self._hosts.append(host)
        host.configure(private_key=host.private_key)
        host.device.up(self.now)
        return host

    def pair(self, psk: PresharedKey | None = None) -> tuple[Host, Host]:
        """Two hosts that know each other: ``a`` has an endpoint for ``b``, not the other way round."""
        a = self.host("a", "192.0.2.1", "10.0.0.1", "fd00::1")
        b = self.host("b", "192.0.2.2", "10.0.0.2", "fd00::2")
        a.configure(a.peer(b, preshared_key=psk))
        b.configure(b.peer(a, preshared_key=psk, endpoint=None))
        return a, b

    # Time and datagrams.

    def collect(self, host: Host) -> None:
        """Put on the wire what ``host`` wants to send."""
        for event in host.device.take_events():
            if isinstance(event, TimestampUsed):
                host.timestamps.append(event.timestamp_ns)
            else:
                host.events.append(event)
                self._diagram.append(f"{self.now:12.3f}  {host.name}: {event}")
        for transmit in host.device.take_transmits():
            data = bytes(transmit.data)
            host.sent_from.append(transmit.endpoint.local)
            for at in range(0, len(data), transmit.stride):
                self.post(host.address, transmit.endpoint.address, data[at : at + transmit.stride], transmit.ecn)

    def post(self, source: SocketAddress, destination: SocketAddress, data: bytes, ecn: int = 0) -> None:
        """Send one datagram, with what the network does to it."""
        self.captured.append((source, destination, data))
        if self.random.random() < self.loss or not self.filter(source, destination, data):
            self._note(source, destination, data, "lost")
            return
        for _ in range(2 if self.random.random() < self.duplicate else 1):
            at = self.now + self.delay_s + self.random.random() * self.jitter_s
            self._serial += 1
            heapq.heappush(self._under_way, (at, self._serial, source, destination, data, ecn))

    def advance(self, seconds: float) -> None:
        """Let time pass: datagrams arrive, timers fire, everything in order."""
        end = self.now + seconds
        for _ in range(_STEPS_MAX):
            deadlines = [deadline.at for host in self._hosts if (deadline := host.device.next_deadline()) is not None]
            arrival = [self._under_way[0][0]] if self._under_way else []
            at = min(arrival + deadlines, default=NEVER)
            if at > end:
                break
            self.now = max(self.now, at)
            if arrival and arrival[0] <= self.now:
                self._arrive()
            for host in self._hosts:
                host.device.handle_timeout(self.now)
                self.collect(host)
        else:
            raise AssertionError(f"still busy after {_STEPS_MAX} steps")
        self.now = max(self.now, end)

    def settle(self) -> None:
        """Let what is under way arrive, and what answers it."""
        self.advance(1.0)

    def inject(self, host: Host, data: bytes, source: SocketAddress, stride: int = 0, ecn: int = 0) -> None:
        """Give ``host`` bytes from ``source`` right now, as one train."""
        device = host.device
        buffer = bytearray(data)
        device.receive(buffer, len(buffer), stride or max(1, len(buffer)), source, host.local, ecn, self.now)
        host.delivered += [bytes(frame)[len(_VNET) :] for frame in device.take_frames()]
        device.handshake_work(self.now, host.handshake_budget)

    def _arrive(self) -> None:
        _, _, source, destination, data, ecn = heapq.heappop(self._under_way)
        for host in self._hosts:
            if host.address == destination:
                self._note(source, destination, data, "")
                self.inject(host, data, source, ecn=ecn)
                self.collect(host)

    def _note(self, source: SocketAddress, destination: SocketAddress, data: bytes, fate: str) -> None:
        kind = _NAMES.get(data[0] if data else 0, "?")
        self._diagram.append(f"{self.now:12.3f}  {source[0]} → {destination[0]}  {kind} ({len(data)} bytes) {fate}")

    def messages(self, kind: int, source: Host | None = None) -> list[bytes]:
        """All messages of type ``kind`` sent so far (from the present address of ``source``)."""
        return [d for s, _, d in self.captured if d[:1] == bytes([kind]) and (source is None or s == source.address)]
