"""A virtual Internet for the machines of paths/: NATs and firewalls as RFC 4787 describes them, links, relays, a clock.

A site is a network behind a box; the box of a home behind a CGN stands in the CGN's network. Everything else is on the
root network. Time moves from one arrival or deadline to the next; all chance comes from one seed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.candidates import embed
from warren.paths.nat import Behaviour

HEADERS = {4: 28, 6: 48}
Receive = Callable[["Packet"], None]


@dataclass(slots=True)
class Packet:
    """``inside`` is what a host keeps of it: which of its sockets sent it."""

    source: TransportAddress
    to: TransportAddress
    data: bytes
    dont_fragment: bool = False

    @property
    def size(self) -> int:
        return len(self.data) + HEADERS[self.to.ip.version]


@dataclass
class Link:
    """What lies between a network and the one above it, or a host and its network. Seconds one way."""

    latency_s: float = 0.005
    jitter_s: float = 0.0
    loss: float = 0.0
    mtu: int = 1500
    fragments: bool = False
    """Its ends cut what is too long and may be cut."""
    up: bool = True
    blocked_out: bool = False
    """UDP to the outside is dropped."""
    blocked_in: bool = False
    drops: Callable[[Packet, bool], bool] | None = None
    """Whether it drops a packet; the flag: it goes out."""
    busy_until: dict[bool, float] = field(default_factory=dict)


@dataclass(slots=True)
class Mapping:
    inside: TransportAddress
    outside: TransportAddress
    sent_to: set[object]
    used_at: float
    dead: bool = False


class Box:
    """A NAT, or a firewall if its behaviour does not translate. Two tables would be two boxes: v4 and v6 are apart."""

    def __init__(self, world: World, behaviour: Behaviour, outside: IPv4Address | None) -> None:
        self.world = world
        self.behaviour = behaviour
        self.outside = outside
        self.by_inside: dict[object, Mapping] = {}
        self.by_outside: dict[TransportAddress, list[Mapping]] = {}
        """More than one only of one socket: a NAT that keeps ports keeps them for every destination."""
        self._next_port = world.chance.randrange(20_000, 50_000)

    def flush(self) -> None:
        """As a reboot does; ports go on elsewhere."""
        self.by_inside.clear()
        self.by_outside.clear()
        self._next_port = self.world.chance.randrange(20_000, 50_000)

    def _key(self, source: TransportAddress, to: TransportAddress) -> object:
        return {"eim": source, "adm": (source, to.ip), "apdm": (source, to)}[self.behaviour.mapping]

    def _alive(self, mapping: Mapping | None) -> bool:
        if mapping is None or mapping.dead:
            return False
        life = self.behaviour.lifetime_s
        if life is None or self.world.now - mapping.used_at < life:
            return True
        self.by_outside[mapping.outside].remove(mapping)
        mapping.dead = True
        return False

    def out(self, source: TransportAddress, to: TransportAddress) -> TransportAddress:
        """The source as the outside sees it; opens or refreshes a mapping."""
        key = self._key(source, to)
        mapping = self.by_inside.get(key)
        if mapping is None or not self._alive(mapping):
            outside = TransportAddress(self._outside_ip(source), self._port(source))
            mapping = self.by_inside[key] = Mapping(source, outside, set(), self.world.now)
            self.by_outside.setdefault(outside, []).append(mapping)
        mapping.used_at = self.world.now
        mapping.sent_to.add(to if self.behaviour.filtering == "apdf" else to.ip)
        return mapping.outside

    def _outside_ip(self, source: TransportAddress) -> IPAddress:
        return self.outside if self.behaviour.translated and self.outside is not None else source.ip

    def _port(self, source: TransportAddress) -> int:
        if not self.behaviour.translated:
            return source.port
        ip = self._outside_ip(source)
        if self.behaviour.allocation == "preserving" and not self._taken(ip, source.port, source):
            return source.port
        while True:
            if self.behaviour.allocation == "random":
                port = self.world.chance.randrange(1024, 65_536)
            else:
                self._next_port = port = self._next_port + 1 if self._next_port < 65_535 else 1024
            if not self._taken(ip, port):
                return port

    def _taken(self, ip: IPAddress, port: int, but_by: TransportAddress | None = None) -> bool:
        mappings = self.by_outside.get(TransportAddress(ip, port), ())
        return any(self._alive(mapping) and mapping.inside != but_by for mapping in list(mappings))

    def enter(self, source: TransportAddress, to: TransportAddress) -> TransportAddress | None:
        """Where a packet from outside goes; None: it is dropped."""
        if not self.behaviour.translated and self.behaviour.filtering == "eif":
            return to
        allowed = source if self.behaviour.filtering == "apdf" else source.ip
        for mapping in list(self.by_outside.get(to, ())):
            if self._alive(mapping) and (self.behaviour.filtering == "eif" or allowed in mapping.sent_to):
                return mapping.inside  # what comes in does not keep it open (RFC 4787 §4.3, REQ-6)
        return None


class Network:
    """Hosts on one link, and the box towards the network above. ``box4``/``box6`` None: it is not routed there."""

    def __init__(self, world: World, above: Network | None = None, link: Link | None = None) -> None:
        self.world = world
        self.above = above
        self.link = link or Link()
        self.box4: Box | None = None
        self.box6: Box | None = None
        self.nat64: Nat64 | None = None
        self.hosts: dict[IPAddress, Receive] = {}
        self.below: dict[IPAddress, Network] = {}
        """Networks whose box has this address here, or whose hosts are routed here (IPv6)."""

    def box(self, version: int) -> Box | None:
        return self.box4 if version == 4 else self.box6

    def send(self, packet: Packet, after: float = 0.0) -> None:
        """From one of its hosts, or from the network below."""
        host = self.hosts.get(packet.to.ip)
        if host is not None:
            self.world.at(after + 0.0002, lambda: host(packet))
            return
        below = self.below.get(packet.to.ip)
        if below is not None:
            below.come_in(packet, after)
            return
        if self.above is not None:
            self.go_out(packet, after)

    def go_out(self, packet: Packet, after: float) -> None:
        if self.nat64 is not None and packet.to.ip in self.nat64.prefix:
            self.nat64.go_out(packet, after)
            return
        box = self.box(packet.to.ip.version)
        if box is None or self.above is None:
            return
        delay = self.cross(packet, outwards=True)
        if delay is None:
            return
        outside = box.out(packet.source, packet.to)
        moved = Packet(outside, packet.to, packet.data, packet.dont_fragment)
        if box.behaviour.translated and packet.to.ip == box.outside:  # its own outside address
            if box.behaviour.hairpin:
                inside = box.enter(outside, packet.to)
                if inside is not None:
                    self.send(Packet(outside, inside, packet.data, packet.dont_fragment), after + 0.0005)
            return
        self.above.send(moved, after + delay)

    def come_in(self, packet: Packet, after: float) -> None:
        box = self.box(packet.to.ip.version)
        delay = self.cross(packet, outwards=False)
        if box is None or delay is None:
            return

        def arrive() -> None:
            inside = box.enter(packet.source, packet.to)
            if inside is not None:
                self.send(Packet(packet.source, inside, packet.data, packet.dont_fragment))

        self.world.at(after + delay, arrive)

    def cross(self, packet: Packet, *, outwards: bool) -> float | None:
        """Over the link to the network above: seconds, or None if the packet is lost."""
        link = self.link
        if not link.up or (link.blocked_out if outwards else link.blocked_in):
            return None
        if packet.size > link.mtu and not (link.fragments and not packet.dont_fragment):  # nobody tells
            return None
        if link.loss and self.world.chance.random() < link.loss:
            return None
        if link.drops is not None and link.drops(packet, outwards):
            return None
        return max(0.0, link.latency_s + self.world.chance.uniform(-link.jitter_s, link.jitter_s))


class Nat64:
    """A NAT whose inside is IPv6 and whose outside IPv4 (RFC 6146)."""

    def __init__(self, network: Network, box: Box, prefix: IPv6Network) -> None:
        self.network = network
        self.box = box
        self.prefix = prefix
        network.world.put(network.world.root, box.outside or IPv4Address(0), self.come_in)

    def go_out(self, packet: Packet, after: float) -> None:
        to = TransportAddress(IPv4Address(packet.to.ip.packed[12:]), packet.to.port)
        delay = self.network.cross(packet, outwards=True)
        if delay is not None:
            outside = self.box.out(packet.source, to)
            if to.ip == self.box.outside:
                return
            self.network.world.root.send(Packet(outside, to, packet.data, packet.dont_fragment), after + delay)

    def come_in(self, packet: Packet) -> None:
        inside = self.box.enter(packet.source, packet.to)
        delay = self.network.cross(packet, outwards=False)
        if inside is None or delay is None or not isinstance(packet.source.ip, IPv4Address):
            return
        source = TransportAddress(embed(packet.source.ip, self.prefix), packet.source.port)
        self.network.send(Packet(source, inside, packet.data, packet.dont_fragment), delay)


class World:
    """The root network, the clock and the heap of what happens next."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.packets = 0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self.root = Network(self)
        self._addresses4 = itertools.count(int(IPv4Address("198.51.0.1")))
        self._addresses6 = itertools.count(int(IPv6Address("2001:db8::1")), 1 << 64)

    def address4(self) -> IPv4Address:
        """A public one of its own."""
        return IPv4Address(next(self._addresses4))

    @staticmethod
    def private4(last: int) -> IPv4Address:
        return IPv4Address(f"192.168.1.{last}")

    def address6(self) -> IPv6Address:
        return IPv6Address(next(self._addresses6))

    def at(self, after: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + max(0.0, after), next(self._serial), what))

    def run(self, until: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Until ``done`` or that time. Bounded by the number of events, so that a storm fails a test."""
        for _ in range(3_000_000):
            if done():
                return True
            if not self._heap or self._heap[0][0] > until:
                self.now = max(self.now, until)
                return done()
            at, _, what = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            what()
        raise AssertionError("a storm: three million events")

    def site(
        self,
        *,
        v4: Behaviour | None = None,
        v6: Behaviour | None = None,
        above: Network | None = None,
        link: Link | None = None,
        outside: IPv4Address | None = None,
    ) -> Network:
        """A network behind a box with these behaviours, as seen from the network above."""
        above = above or self.root
        network = Network(self, above, link)
        if v4 is not None:
            outside = outside or (self.address4() if v4.translated else None)
            network.box4 = Box(self, v4, outside)
            if outside is not None:
                above.below[outside] = network
        if v6 is not None:
            network.box6 = Box(self, v6, None)
        return network

    def translating_site(
        self, behaviour: Behaviour, prefix: IPv6Network, *, v6: Behaviour, link: Link | None = None
    ) -> Network:
        """A network without IPv4 whose box also is a NAT64 with that /96 (RFC 6146)."""
        site = self.site(v6=v6, link=link)
        site.nat64 = Nat64(site, Box(self, behaviour, self.address4()), prefix)
        return site

    def put(self, network: Network, address: IPAddress, receive: Receive) -> None:
        """A host. An untranslated address is routed from the root down to it."""
        network.hosts[address] = receive
        one = network
        while one.above is not None:
            box = one.box(address.version)
            if box is None or box.behaviour.translated:
                return
            one.above.below[address] = one
            one = one.above

    def move_outside(self, network: Network, *, address: IPv4Address | None = None) -> None:
        """The box forgets its mappings and, with an ``address``, has another one outside."""
        box = network.box4
        if box is None or network.above is None:
            raise ValueError("there is no NAT")
        box.flush()
        if address is not None:
            if box.outside is not None:
                network.above.below.pop(box.outside, None)
            box.outside = address
            network.above.below[address] = network
