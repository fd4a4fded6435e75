"""A network in memory: datagrams between engines, and whatever else a test puts into it, on a clock that only moves
when told to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.turn.channel import wrap_train

_DELIVERIES_MAX = 10_000  # more in one go means that two engines answer each other for ever: a bug

_PORTS_FROM = 20_000  # below those that Linux gives to sockets, which may be handed over

Receive = Callable[[bytes, TransportAddress, TransportAddress], None]
"""Takes one datagram: its data, where it comes from and where it goes."""


def _everything(source: TransportAddress, destination: TransportAddress) -> bool:  # noqa: ARG001 - as all such
    return True


class Train(NamedTuple):
    """Datagrams under way, ``stride`` bytes each, the last may be shorter."""

    source: TransportAddress
    destination: TransportAddress
    data: bytes
    stride: int
    ecn: int


class Station(Protocol):
    """Who is at an address: it takes trains, and wakes."""

    def receive(self, train: Train) -> None: ...

    def next_deadline(self) -> float | None: ...

    def handle_timeout(self) -> None: ...


class MemoryNetwork:
    """Carries datagrams in order and without loss. ``now`` is in seconds.

    Engines bind ports here. A test may put other things between or beside them: :meth:`host` (a TURN server, the
    outside of a NAT), :meth:`gateway` (the inside of a NAT). Both send by :meth:`send`.
    """

    def __init__(self, random: Callable[[int], bytes], wall_clock_ns: int = 1_700_000_000 * 10**9) -> None:
        self.now = 0.0
        self.random = random
        self.carries: Callable[[TransportAddress, TransportAddress], bool] = _everything
        """Datagrams for which this is False are lost."""
        self.mtu = 65535
        """Datagrams with more bytes of IP packet that must not be fragmented are lost."""
        self._wall_start_ns = wall_clock_ns
        self._stations: dict[tuple[IPAddress, int], Station] = {}
        self._hosts: dict[TransportAddress, Receive] = {}
        self._gateways: dict[IPAddress, Receive] = {}
        self._under_way: deque[Train] = deque()
        self._settling = False
        self._next_port = _PORTS_FROM

    def wall_clock_ns(self) -> int:
        return self._wall_start_ns + int(self.now * 10**9)

    # Who is there.

    def bind(self, station: Station, addresses: tuple[IPAddress, ...], port: int) -> int:
        """Give ``station`` the port ``port`` of each of ``addresses`` (0: a free one) and return it. Raises
        OperationFailed when it is taken.
        """
        if port == 0:
            port = self._next_port
            self._next_port += 1
        for ip in addresses:
            if self._stations.get((ip, port), station) is not station:
                raise OperationFailed(f"UDP port {port} of {ip} is taken: choose another ListenPort")
        for ip in addresses:
            self._stations[ip, port] = station
        return port

    def release(self, station: Station, port: int | None = None) -> None:
        """Free ``port`` of ``station``; None: whatever it has."""
        self._stations = {
            place: other
            for place, other in self._stations.items()
            if other is not station or (port is not None and place[1] != port)
        }

    def host(self, address: TransportAddress, receive: Receive | None) -> None:
        """Give what goes to ``address`` to ``receive``, each datagram by itself; port 0: all ports where no one else
        is. None: to nobody any more.
        """
        if receive is None:
            self._hosts.pop(address, None)
        else:
            self._hosts[address] = receive

    def gateway(self, ip: IPAddress, forward: Receive | None) -> None:
        """Give what ``ip`` sends to ``forward``, each datagram by itself, wherever it goes. None: carry it as ever."""
        if forward is None:
            self._gateways.pop(ip, None)
        else:
            self._gateways[ip] = forward

    # What is under way.

    def send(self, source: TransportAddress, destination: TransportAddress, data: bytes) -> None:
        """Send one datagram; it arrives when the present call into the network comes to its end."""
        self.post(Train(source, destination, data, max(1, len(data)), 0))

    def post(self, train: Train) -> None:
        self._under_way.append(train)

    def settle(self) -> None:
        """Deliver until nothing is under way. Called from within a delivery it leaves that to the call outside."""
        if self._settling:
            return
        self._settling = True
        try:
            for _ in range(_DELIVERIES_MAX):
                if not self._under_way:
                    return
                self._deliver(self._under_way.popleft())
        finally:
            self._settling = False
        raise RuntimeError(f"still busy after {_DELIVERIES_MAX} deliveries")

    def _deliver(self, train: Train) -> None:
        source, destination = train.source, train.destination
        if not self.carries(source, destination):
            return
        forward = self._gateways.get(source.ip)
        if forward is None:
            station = self._stations.get((destination.ip, destination.port))
            if station is not None:
                station.receive(train)
                return
            forward = self._hosts.get(destination) or self._hosts.get(TransportAddress(destination.ip, 0))
        if forward is not None:
            for at in range(0, max(1, len(train.data)), train.stride):
                forward(train.data[at : at + train.stride], source, destination)

    def advance(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline of every engine on the way."""
        end = self.now + seconds
        while True:
            stations = list(dict.fromkeys(self._stations.values()))
            deadlines = [at for station in stations if (at := station.next_deadline()) is not None and at <= end]
            if not deadlines:
                break
            self.now = max(self.now, min(deadlines))
            for station in stations:
                station.handle_timeout()
            self.settle()
        self.now = end


class MemorySockets:
    """The UDP ports of a station with the addresses ``ips``: number 0 is the tunnel's own, others were handed over."""

    def __init__(self, network: MemoryNetwork, station: Station, ips: tuple[str, ...]) -> None:
        self.ips = tuple(ip_address(ip) for ip in ips)
        self.ports: dict[int, int] = {}
        self._network = network
        self._station = station

    def open(self, number: int, port: int) -> int:
        """Raises OperationFailed, with nothing changed, when the port is taken."""
        chosen = self._network.bind(self._station, self.ips, port)
        before = self.ports.get(number)
        if before is not None and before != chosen:
            self._network.release(self._station, before)
        self.ports[number] = chosen
        return chosen

    def close(self, number: int) -> None:
        port = self.ports.pop(number, None)
        if port is not None:
            self._network.release(self._station, port)

    def number_of(self, port: int) -> int:
        return next(number for number, other in self.ports.items() if other == port)

    def send(
        self,
        data: bytes,
        stride: int,
        destination: TransportAddress,
        *,
        source: IPAddress | None,
        channel: int,
        number: int,
        ecn: int = 0,
        dont_fragment: bool = False,
    ) -> None:
        """Send a train as a host does: it is lost without an address of the family or a socket of that number."""
        family = [ip for ip in self.ips if ip.version == destination.ip.version]
        port = self.ports.get(number)
        if port is None or not family or (source is not None and source not in family):
            return
        if channel:
            data, stride = wrap_train(data, stride, channel), stride + 4
        overhead = 28 if destination.ip.version == 4 else 48
        if dont_fragment and min(stride, len(data)) + overhead > self._network.mtu:
            return
        here = TransportAddress(source or family[0], port)
        self._network.post(Train(here, destination, data, stride, ecn))
