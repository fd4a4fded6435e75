"""Nodes of the virtual Internet: real Connectivity machines and the least of a driver around each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address

from tests.support.nat_world import Network, Packet, World
from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.candidates import embed
from warren.paths.connectivity import Connectivity
from warren.paths.events import Check, Learned, Mapped, Mtu, Selected, SignalWanted, SocketsDone, SocketsWanted
from warren.paths.nat import Situation
from warren.paths.values import Base, Path, RemoteCandidate, Settings, Surroundings

PORT = 51820
DATA = b"\4\0\0\0"
"""What WireGuard's data begins with: the driver tells it from checks."""
SIGNAL_S = 0.03
STUN_S = 20.0
"""Mappings towards relays are kept open this often."""


class RelayServer:
    """TURN as its users see it: allocations, permissions by address, and a death."""

    def __init__(self, world: World, name: str, *, v6: bool = True) -> None:
        self.world = world
        self.name = name
        self.address4 = world.address4()
        self.address6 = world.address6() if v6 else None
        self.alive = True
        self.swallows: Callable[[PathNode], bool] = lambda sender: False
        """Whether it passes checks on and loses the data of a node."""
        self.allocations: dict[TransportAddress, PathNode] = {}
        self._ports = 50_000
        for address in (self.address4, self.address6):
            if address is not None:
                world.put(world.root, address, self._receive)

    def allocate(self, node: PathNode) -> tuple[TransportAddress, ...]:
        self._ports += 1
        ips: list[IPAddress] = [ip for ip in (self.address4, self.address6) if ip is not None]
        relayed = tuple(TransportAddress(ip, self._ports) for ip in ips)
        for address in relayed:
            self.allocations[address] = node
        return relayed

    def forward(self, node: PathNode, remote: TransportAddress, data: bytes) -> None:
        """``node`` sends through its allocation."""
        if not self.alive or (data.startswith(DATA) and self.swallows(node)):
            return
        for address in node.relayed.get(self.name, ()):
            if address.ip.version == remote.ip.version and self.allocations.get(address) is node:
                self.world.root.send(Packet(address, remote, data))
                return

    def _receive(self, packet: Packet) -> None:
        node = self.allocations.get(packet.to)
        if self.alive and node is not None and packet.source.ip in node.permitted and not self._swallowed(packet):
            node.from_relay(self.name, packet)

    def _swallowed(self, packet: Packet) -> bool:
        """Data says from whom it is."""
        return packet.data.startswith(DATA) and any(
            self.swallows(node) for node in self.users() if node.key == packet.data[4:36]
        )

    def users(self) -> set[PathNode]:
        return {peer for node in self.allocations.values() for peer in (node, *node.peers.values())}


@dataclass
class Uplink:
    """An interface of a node."""

    network: Network
    address: IPAddress
    interface: int
    up: bool = True

    @property
    def base(self) -> Base:
        return Base(address=self.address, interface=self.interface)


@dataclass
class Counters:
    sent: int = 0
    came: int = 0
    selections: list[tuple[float, Path | None]] = field(default_factory=list)
    why: list[str] = field(default_factory=list)
    """Of each selection."""
    direct_at: float | None = None
    first_at: float | None = None
    arrived: list[float] = field(default_factory=list)
    """When data came."""
    mtu: int | None = None


class PathNode:
    """One node. ``situation``: what it tells of its NAT; None: nothing."""

    def __init__(
        self,
        world: World,
        name: str,
        uplinks: list[tuple[Network, IPAddress]],
        *,
        situation: Situation | None = None,
        relays: tuple[RelayServer, ...] = (),
        settings: Settings | None = None,
        around: Surroundings | None = None,
        stun: tuple[RelayServer, ...] | None = None,
        port: int = PORT,
    ) -> None:
        self.world = world
        self.name = name
        self.key = hashlib.sha256(name.encode()).digest()
        self.nat = "" if situation is None else str(situation)
        self.relays = relays
        self.stun = relays if stun is None else stun
        self.around = around or Surroundings()
        self.port = port
        self.uplinks = [Uplink(network, address, number) for number, (network, address) in enumerate(uplinks, 1)]
        self.machine = Connectivity(node=self.key, random=world.chance.randbytes, settings=settings, now=world.now)
        self.peers: dict[bytes, PathNode] = {}
        self.selected: dict[bytes, Path | None] = {}
        self.count: dict[bytes, Counters] = {}
        self.relayed: dict[str, tuple[TransportAddress, ...]] = {}
        self.permitted: set[IPAddress] = set()
        self.mapped: dict[Base, TransportAddress] = {}
        self.sockets: dict[int, tuple[bytes, Base, int]] = {}
        self.coordinator = True
        self.relays_over_udp = False
        """Else over TCP, which nothing blocks, and for which nothing is too large."""
        self.talks: dict[bytes, tuple[float, int]] = {}
        self._socket_number = 0
        self._wake = float("inf")
        self._heard_at: dict[bytes, float] = {}
        for uplink in self.uplinks:
            world.put(uplink.network, uplink.address, partial(self._receive, uplink))
        self.set_bases()
        self._stun_again()
        world.at(1.0 + world.chance.random(), self._every_second)

    # What a driver does

    def set_bases(self) -> None:
        for relay in self.relays:
            if relay.name not in self.relayed:
                self.relayed[relay.name] = relay.allocate(self)
        bases = [uplink.base for uplink in self.uplinks if uplink.up]
        bases += [Base(kind="relay", relay=name) for name in self.relayed]
        relayed = tuple((name, address) for name, all_ in self.relayed.items() for address in all_)
        by = next((uplink.interface for uplink in self.uplinks if uplink.up), 0)  # as from_relay and _send have it
        around = replace(self.around, relayed=relayed, relay_uplinks=tuple((name, by) for name in self.relayed))
        self.machine.set_bases(tuple(bases), self.world.now, around)
        self.after()

    def lose_relay(self, name: str) -> None:
        """Its TURN client says that the allocation is gone."""
        self.relayed.pop(name, None)
        self.relays = tuple(relay for relay in self.relays if relay.name != name)
        self.set_bases()

    def candidates(self) -> tuple[RemoteCandidate, ...]:
        found = [
            RemoteCandidate("host", TransportAddress(uplink.address, self.port)) for uplink in self.uplinks if uplink.up
        ]
        found += [RemoteCandidate("srflx", address) for address in dict.fromkeys(self.mapped.values())]
        found += [RemoteCandidate("relay", address) for all_ in self.relayed.values() for address in all_]
        return tuple(found)

    def ask_stun(self) -> bool:
        """What each STUN server sees, through the NATs as they are now. True: a candidate is new."""
        before = set(self.mapped.values())
        for uplink in self.uplinks:
            for relay in self.stun:
                seen = self._outside(uplink, relay)
                if seen is not None and uplink.up and relay.alive:
                    self.mapped[uplink.base] = seen
                    server = TransportAddress(relay.address4, 3478)
                    self.machine.set_mapped(uplink.base, seen, self.world.now, server)
        return set(self.mapped.values()) != before

    def _outside(self, uplink: Uplink, relay: RelayServer) -> TransportAddress | None:
        ip: IPAddress = relay.address4
        if uplink.address.version == 6:
            if self.around.nat64 is None:
                return None
            ip = embed(relay.address4, self.around.nat64)
        source, network = TransportAddress(uplink.address, self.port), uplink.network
        if network.nat64 is not None and not network.link.blocked_out:
            return network.nat64.box.out(source, TransportAddress(relay.address4, 3478))
        to = TransportAddress(ip, 3478)
        while network.above is not None:
            box = network.box(ip.version)
            if box is None or not network.link.up or network.link.blocked_out:
                return None
            source = box.out(source, to)
            network = network.above
        return source if source.ip != uplink.address else None

    def _stun_again(self) -> None:
        if self.ask_stun():
            self.publish()
        self.world.at(STUN_S, self._stun_again)

    def publish(self) -> None:
        """A new record, brought to all by the coordinator."""
        now, candidates = self.world.now, self.candidates()
        self.machine.set_self(record=b"record of " + self.name.encode(), candidates=candidates, nat=self.nat)
        for peer in self.peers.values():
            if self.coordinator and peer.coordinator:
                self.world.at(SIGNAL_S * 2, partial(peer.learn, self, candidates))
        self.machine.handle_timeout(now)
        self.after()

    def learn(self, other: PathNode, candidates: tuple[RemoteCandidate, ...]) -> None:
        keys = (hashlib.sha256(min(self.key, other.key) + max(self.key, other.key)).digest(),)
        self.peers[other.key] = other
        self.count.setdefault(other.key, Counters())
        self.permitted |= {candidate.address.ip for candidate in candidates}
        self.machine.set_peer(other.key, keys, candidates, other.nat, self.world.now)
        self.after()

    def meet(self, other: PathNode) -> None:
        """Both know each other's records."""
        self.peers[other.key], other.peers[self.key] = other, self
        for one, two in ((self, other), (other, self)):
            one.machine.set_self(record=b"record", candidates=one.candidates(), nat=one.nat)
            one.learn(two, two.candidates())

    def want(self, other: PathNode) -> None:
        self.machine.want(other.key, self.world.now)
        self.after()

    def talk(self, other: PathNode, *, every_s: float = 0.1, size: int = 200) -> None:
        """Data flows to ``other`` from now on."""
        self.talks[other.key] = (every_s, size)
        self.want(other)
        self._say(other.key)

    def hush(self, other: PathNode) -> None:
        self.talks.pop(other.key, None)

    def _say(self, key: bytes) -> None:
        if key not in self.talks:
            return
        every_s, size = self.talks[key]
        self.count[key].sent += size
        path = self.selected.get(key)
        if path is not None:
            self._send(path.base, path.remote, DATA + self.key + bytes(max(0, size - 36)))
        self.world.at(every_s, lambda: self._say(key))

    def _every_second(self) -> None:
        for key, count in self.count.items():
            self.machine.traffic(key, count.sent, count.came, self.world.now)
            if key in self.talks and self.selected.get(key) is None:
                self.machine.want(key, self.world.now)
        self.after()
        self.world.at(1.0, self._every_second)

    def roam(self, uplink: int, network: Network, address: IPAddress) -> None:
        """The interface has another address in another network."""
        one = self.uplinks[uplink]
        one.network.hosts.pop(one.address, None)
        self.mapped.pop(one.base, None)
        one.network, one.address, one.up = network, address, True
        self.world.put(network, address, partial(self._receive, one))
        self.changed()

    def unplug(self, uplink: int, *, up: bool = False) -> None:
        one = self.uplinks[uplink]
        one.up = up
        if not up:
            self.mapped.pop(one.base, None)
        self.changed()

    def changed(self) -> None:
        """Netlink said so."""
        self.set_bases()
        self.machine.network_changed(self.world.now)
        self.ask_stun()
        self.publish()

    # Packets

    def _receive(self, uplink: Uplink, packet: Packet) -> None:
        if not uplink.up or uplink.address != packet.to.ip:
            return
        if packet.to.port == self.port:
            self._came(uplink.base, packet)
            return
        for number, (_, base, port) in self.sockets.items():
            if port == packet.to.port and base.address == uplink.address:
                self._came(Base("socket", base.address, base.interface, socket=number), packet)
                return

    def from_relay(self, name: str, packet: Packet) -> None:
        """By TCP if UDP is blocked: that is the bridge's business; the leg has the delay and the loss of the uplink."""
        uplink = next((one for one in self.uplinks if one.up), None)
        if uplink is None or name not in self.relayed:
            return
        delay = self._leg(uplink, packet, outwards=False)
        if delay is not None:
            self.world.at(delay, lambda: self._came(Base(kind="relay", relay=name), packet))

    def _leg(self, uplink: Uplink, packet: Packet, *, outwards: bool) -> float | None:
        delay, network = 0.0, uplink.network
        while network.above is not None:
            link = network.link
            kept = link.blocked_in, link.blocked_out, link.mtu
            if not self.relays_over_udp:
                link.blocked_in, link.blocked_out, link.mtu = False, False, 65_535
            one = network.cross(packet, outwards=outwards)
            link.blocked_in, link.blocked_out, link.mtu = kept
            if one is None:
                return None
            delay += one
            network = network.above
        return delay

    def _came(self, base: Base, packet: Packet) -> None:
        now = self.world.now
        if not packet.data.startswith(DATA):
            self.machine.receive(packet.data, packet.source, base, now)
            self.after()
            return
        key = packet.data[4:36]
        count = self.count.get(key)
        if count is None:
            return
        count.came += len(packet.data)
        count.arrived.append(now)
        path = self.selected.get(key)
        elsewhere = path is None or (path.base, path.remote) != (base, packet.source)
        if elsewhere and now - self._heard_at.get(key, 0.0) >= 1.0:
            self._heard_at[key] = now
            self.machine.heard(key, packet.source, base, now)
            self.after()

    def _send(self, base: Base, remote: TransportAddress, data: bytes, *, dont_fragment: bool = False) -> None:
        self.world.packets += 1
        if base.kind == "relay":
            uplink = next((one for one in self.uplinks if one.up), None)
            relay = next((one for one in self.relays if one.name == base.relay), None)
            if uplink is None or relay is None:
                return
            packet = Packet(remote, remote, data, dont_fragment)
            self.permitted.add(remote.ip)
            delay = self._leg(uplink, packet, outwards=True)
            if delay is not None:
                self.world.at(delay, lambda: relay.forward(self, remote, data))
            return
        uplink = next((one for one in self.uplinks if one.address == base.address and one.up), None)
        if uplink is None or uplink.address.version != remote.ip.version:
            return
        port = self.port
        if base.kind == "socket":
            if base.socket not in self.sockets:
                return
            port = self.sockets[base.socket][2]
        uplink.network.send(Packet(TransportAddress(uplink.address, port), remote, data, dont_fragment))

    # The machine

    def after(self) -> None:
        """After every call of the machine."""
        for check in self.machine.take_transmits():
            self._transmit(check)
        for event in self.machine.take_events():
            self._event(event)
        deadline = self.machine.next_deadline()
        if deadline is not None and deadline.at < self._wake:
            self._wake = max(deadline.at, self.world.now)
            self.world.at(self._wake - self.world.now, partial(self._timeout, self._wake))

    def _timeout(self, wake: float) -> None:
        if wake != self._wake:
            return  # an earlier one was set after this
        self._wake = float("inf")
        self.machine.handle_timeout(self.world.now)
        self.after()

    def _transmit(self, check: Check) -> None:
        self._send(check.base, check.remote, check.data, dont_fragment=check.dont_fragment)

    def _event(self, event: object) -> None:
        now = self.world.now
        match event:
            case Selected(node, path, why):
                self._check_selected(node, path)
                self.selected[node] = path
                count = self.count[node]
                count.selections.append((now, path))
                count.why.append(why)
                if path is not None and count.first_at is None:
                    count.first_at = now
                if path is not None and not path.relayed and count.direct_at is None:
                    count.direct_at = now
            case Mtu(node, _, size):
                self.count[node].mtu = size
            case SignalWanted(node, data):
                peer = self.peers[node]
                if self.coordinator and peer.coordinator:
                    self.world.at(SIGNAL_S, lambda: peer.signalled(self.key, data))
            case SocketsWanted(node, count_, base):
                self._open(node, count_, base)
            case SocketsDone(node, keep):
                self.sockets = {number: one for number, one in self.sockets.items() if one[0] != node or number == keep}
            case Mapped(base, address, _):
                if (
                    address not in self.mapped.values()
                    and base not in self.mapped
                    and isinstance(address.ip, IPv4Address)
                ):
                    self.mapped[base] = address
            case Learned():
                pass

    def _check_selected(self, node: bytes, path: Path | None) -> None:
        """What is selected was validated by an answered check of ours."""
        report = self.machine.explain(node, self.world.now)
        if path is None or report is None:
            return
        pair = next((one for one in report.pairs if one.path == path), None)
        if pair is None or not pair.answered or pair.rtt_s is None:
            raise AssertionError(f"{self.name} selected {path}, which nobody answered")

    def signalled(self, key: bytes, data: bytes) -> None:
        self.machine.signal_received(key, data, self.world.now)
        self.after()

    def _open(self, node: bytes, count: int, base: Base) -> None:
        opened = []
        for _ in range(count):
            self._socket_number += 1
            self.sockets[self._socket_number] = (node, base, 10_000 + self._socket_number)
            opened.append(Base("socket", base.address, base.interface, socket=self._socket_number))
        self.world.at(0.01, lambda: self._opened(node, tuple(opened)))

    def _opened(self, node: bytes, opened: tuple[Base, ...]) -> None:
        self.machine.sockets_opened(node, opened, self.world.now)
        self.after()
