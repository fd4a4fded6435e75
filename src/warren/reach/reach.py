"""Reaches the members of one network: drives path selection, relays and probes over one data plane.

The machines decide (:mod:`warren.paths.connectivity`, :mod:`warren.reach.relays`); this moves their datagrams through
the data plane's control port, wakes them in time, and does what needs a socket or a name server. Everything happens in
callbacks of the event loop; nothing is polled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from warren import log
from warren.engine.base import Engine
from warren.model.datagrams import ControlDatagram, ControlEvent, PathWanted, PeerHeard
from warren.model.tunnel import PLAIN, TransportAddress, TunnelStatus, Way
from warren.paths import events as paths
from warren.paths.connectivity import Connectivity
from warren.paths.nat import Situation
from warren.paths.values import Base, CandidateKind, Path, RemoteCandidate, Settings, Surroundings
from warren.proto.turn.client import TurnClient
from warren.reach.courses import Course, Courses
from warren.reach.doors import Bridge, Doors, Owner, PeerFacts
from warren.reach.drive import Drive
from warren.reach.errands import Errands
from warren.reach.mirrors import Throw
from warren.reach.outside import Outside
from warren.reach.peers import Peers
from warren.reach.places import Place, place_of
from warren.reach.relay_values import (
    BasesChanged,
    Came,
    ChannelBound,
    Reflected,
    RelayPlace,
    RelayStatus,
    Transport,
    UdpBlocked,
)
from warren.reach.relays import Relays
from warren.reach.sockets import PunchSockets
from warren.reach.tcp_paths import TcpDoors, TcpPaths
from warren.reach.translated import translated, translated_places

_INBOX_MAX: Final = 4096
"""Control datagrams that wait while one is dealt with; the rest is lost, as on a network."""
_CHANNELS_SPARE: Final = 64
"""When there is room for so few more at a relay, channels that lead nowhere are given up."""
_ROUNDS_MAX: Final = 64
"""So often in a row the machines may cause work for each other; then it is the event loop's turn."""

_log = log.get("reach")


@dataclass(frozen=True, slots=True)
class _Adopted:
    """Where a data plane that was taken over sends to."""

    node: bytes
    endpoint: TransportAddress
    way: Way


class Reach:
    """One network's; :meth:`use` it on a data plane. Single owner, one event loop; never fails."""

    def __init__(self, network: str, node: bytes, doors: Doors, owner: Owner, settings: Settings | None = None) -> None:
        """``network``: its name, for the log. ``node``: this node's key."""
        self._network = network
        self._doors = doors
        self._owner = owner
        self._paths = Connectivity(node=node, random=doors.random, now=doors.clock(), settings=settings)
        self._peers = Peers()
        self._relays = Relays(doors.random, self._turn_client)
        self._sockets = PunchSockets(self._came_to_socket)
        self._drive = Drive(self._relays, self._sockets, doors.clock)
        self._outside = Outside(network, doors.random, self._relays, self._paths, self._drive, owner)
        self._courses = Courses(self._relays, lambda base: self._sockets.hand_over(base, self._drive.port))
        self._errands = Errands(doors, self._relays, lambda: self._port_number, self._work_and_tell)
        self._tcp = TcpPaths(
            node,
            TcpDoors(doors.clock, self._tcp_addresses, self._punch_tcp, owner.send_signal, owner.course_changed),
            self._peers.check_key,
        )
        self._alarm = doors.alarm(self._work)
        self._port_number = 0
        self._around = Surroundings()
        self._inbox: deque[ControlEvent | _Adopted] = deque(maxlen=_INBOX_MAX)
        self._busy = False
        self._told: object = None
        self._tell_due = True
        self.udp_blocked = False

    # From outside

    async def use(self, engine: Engine, ended: Callable[[], None]) -> None:
        """Work over ``engine`` from now on; ``ended`` is called when it does not listen to this any more. Raises
        Unreachable, OperationFailed; there is then no engine.
        """
        self.leave()
        port = await engine.listen(self._heard)
        self._drive.port = port
        port.closed.add_done_callback(lambda _: ended())
        self._work()

    def leave(self) -> None:
        """There is no data plane (any more)."""
        port, self._drive.port = self._drive.port, None
        if port is not None:
            port.close()
        self._alarm.set(None)

    @property
    def listens(self) -> bool:
        """There is a data plane, and it is heard."""
        return self._drive.port is not None and not self._drive.port.closed.done()

    async def close(self) -> None:
        """Give allocations back, and end what runs."""
        self._relays.close(self._now)
        self._sockets.close()
        self._errands.run(self._relays.take_wishes())
        self._send_all()
        self.leave()
        await self._tcp.close()
        await self._errands.close()

    def set_bases(self, bases: tuple[Base, ...], around: Surroundings, port: int) -> None:
        """The addresses of this host that packets may leave from, what is around it, and the tunnel's port."""
        before, self._drive.bases, self._around, self._port_number = self._drive.bases, bases, around, port
        self._set_bases(self._now)
        if bases != before:
            self._outside.ask(self._now)
            if before:
                self.network_changed()
                return
        self._work_and_tell()

    def network_changed(self) -> None:
        """Routes of this host, or what is behind them, may be others: everything is looked at again at once."""
        now = self._now
        self._paths.network_changed(now)
        self._relays.network_changed(now)
        self._outside.network_changed(now)
        self._work_and_tell()

    def set_ways_in(self, verified: Iterable[TransportAddress], others: Iterable[TransportAddress]) -> None:
        """Addresses that gateways have given; through the ``others`` nothing has come in yet."""
        self._outside.set_ways_in(verified, others, self._now)
        self._work_and_tell()

    def set_relays(self, places: Iterable[RelayPlace]) -> None:
        """These may be used, with their credentials."""
        self._relays.keep(places, self._now)
        self._work_and_tell()

    def set_peers(self, peers: Iterable[PeerFacts]) -> None:
        """The members to be reached. Who is not named is forgotten."""
        gone, changed = self._peers.set(peers)
        now = self._now
        for node in gone:
            self._tcp.drop(node)
            self._paths.remove_peer(node)
            self._courses.forget(node)
        for peer in changed:
            if peer.check_keys:
                self._paths.set_peer(peer.node, peer.check_keys, peer.candidates, peer.nat, now)
            else:
                self._paths.remove_peer(peer.node)
        for node in self._peers.take_early():
            self._paths.want(node, now)
        self._work()

    def set_record(self, envelope: bytes, candidates: tuple[RemoteCandidate, ...], nat: str) -> None:
        """The own record as it goes along with signals, and what it says."""
        self._paths.set_self(record=envelope, candidates=candidates, nat=nat)

    def want(self, node: bytes) -> None:
        """A path to that peer is wanted now."""
        if node in self._peers:
            self._paths.want(node, self._now)
            self._work()

    def adopt(self, node: bytes, endpoint: TransportAddress, way: Way) -> None:
        """The data plane of before sends to that peer by this way: look whether it still works."""
        self._inbox.append(_Adopted(node, endpoint, way))
        self._work()

    def traffic(self, status: TunnelStatus, *, active: bool) -> None:
        """What the data plane counts. ``active``: some of it has changed."""
        now = self._now
        self._relays.set_active(active, now)
        for peer in status.peers:
            node = self._peers.holder(peer.public_key)
            if node is not None:
                self._paths.traffic(node, peer.tx_bytes, peer.rx_bytes, now)
                self._consider_tcp(node)
        self._work()

    def signal_received(self, node: bytes, data: bytes) -> None:
        """A signal of that member came by the coordinator."""
        if node in self._peers and not self._tcp.received(node, data):
            self._paths.signal_received(node, data, self._now)
            self._work()

    # What is known

    def course(self, node: bytes) -> Course | None:
        """How packets to that peer are to travel; None: no path was ever found."""
        course, bridge = self._courses.course(node), self._tcp.bridge(node)
        return course if course is None or bridge is None else replace(course, endpoint=bridge, way=PLAIN)

    def path(self, node: bytes) -> Path | None:
        """The path that is good now."""
        return self._courses.path(node)

    def lost(self, node: bytes) -> bool:
        """A path was wanted, and none was found, or the last one is gone."""
        return self._peers.lost(node)

    def mtu(self, node: bytes) -> int | None:
        """The largest inner packet that passes on that peer's path; None: not known."""
        return self._peers.mtu(node)

    def why(self, node: bytes) -> str:
        """What path selection last said of that peer."""
        return self._peers.why(node)

    def candidates(self) -> list[tuple[CandidateKind, TransportAddress]]:
        """What others see of this node, the best first: outside addresses, then those at relays."""
        return self._outside.candidates()

    def relays(self) -> tuple[RelayStatus, ...]:
        return self._relays.status()

    def situation(self) -> Situation | None:
        """What stands before this node; None: not known."""
        return self._outside.situation(self._port_number, udp=not self.udp_blocked)

    def nat(self) -> str:
        """The same in the words of NodeRecord.nat; empty: not known."""
        found = self.situation()
        return "" if found is None else str(found)

    @property
    def settled(self) -> bool:
        """Relays have answered or not: the candidates will not change soon."""
        return self._relays.settled

    def place(self, node: bytes) -> Place:
        """How packets to that peer travel now."""
        if self._tcp.bridge(node) is not None:
            return Place(path="direct", endpoint="a TCP connection", why="UDP does not pass, and TCP does.")
        return place_of(self.explain(node), self._relays.status())

    def explain(self, node: bytes) -> paths.PeerReport | None:
        """None: it is not among the peers."""
        return self._paths.explain(node, self._now)

    # The work

    @property
    def _now(self) -> float:
        return self._doors.clock()

    def _heard(self, event: ControlEvent) -> None:
        self._inbox.append(event)
        self._work()

    def _work_and_tell(self) -> None:
        """The same, after something that the owner may have to be told of."""
        self._tell_due = True
        self._work()

    def _work(self) -> None:
        """Do all that is due. Called within itself (an engine in memory answers at once) it leaves that to itself."""
        if self._busy:
            return
        self._busy = True
        try:
            for _ in range(_ROUNDS_MAX):
                now = self._now
                while self._inbox:
                    self._take(self._inbox.popleft(), now)
                self._wake_machines(now)
                self._take_relay_events(now)
                self._take_path_events(now)
                self._outside.take_mappings(now)
                self._errands.run(self._relays.take_wishes())
                if not self._send_all() and not self._inbox:
                    break
        finally:
            self._busy = False
        if self._tell_due:
            self._tell_due = False
            self._tell()
        self._set_alarm()

    def _wake_machines(self, now: float) -> None:
        for machine in (self._paths, self._relays, *self._outside.machines):
            deadline = machine.next_deadline()
            if deadline is not None and deadline.at <= now:
                machine.handle_timeout(now)
                self._tell_due |= machine is not self._paths

    def _set_alarm(self) -> None:
        machines = (self._paths, self._relays, *self._outside.machines)
        deadlines = [one for machine in machines if (one := machine.next_deadline()) is not None]
        self._alarm.set(min((one.at for one in deadlines), default=None) if self._drive.port is not None else None)

    def _tell(self) -> None:
        told = (tuple(self.candidates()), self._relays.status(), self.udp_blocked, self.nat())
        if told != self._told:
            self._told = told
            self._owner.reach_changed()

    # What comes

    def _take(self, event: ControlEvent | _Adopted, now: float) -> None:
        match event:
            case ControlDatagram():
                self._take_datagram(event, now)
            case PeerHeard(key, remote, way):
                node = self._peers.holder(key)
                if node is not None:
                    self._hear(node, remote, way, now)
            case PathWanted(key):
                node = self._peers.holder(key)
                if node is not None:
                    self._paths.want(node, now)
                else:
                    self._peers.wanted_early(key)
            case _Adopted(node, remote, way):
                self._hear(node, remote, way, now)

    def _hear(self, node: bytes, remote: TransportAddress, way: Way, now: float) -> None:
        place = self._drive.place(remote, way)
        if place is not None and node in self._peers:
            self._paths.heard(node, place[1], place[0], now)

    def _take_datagram(self, datagram: ControlDatagram, now: float) -> None:
        data, remote, way = datagram.data, datagram.remote, datagram.way
        if not way.channel and (self._outside.receive(data, remote, now) or self._relays.receive(data, remote, now)):
            self._tell_due = True
            return
        place = self._drive.place(remote, way)
        if place is not None:
            self._paths.receive(data, place[1], place[0], now)

    # What the machines say

    def _take_relay_events(self, now: float) -> None:
        for event in self._relays.take_events():
            match event:
                case Came(base, peer, data):
                    self._take_relayed(base, peer, data, now)
                case ChannelBound(base):
                    for node in self._courses.refresh(base):
                        self._owner.course_changed(node)
                case BasesChanged():
                    self._set_bases(now)
                    self._outside.again(now)
                case Reflected(_, mapped):
                    self._outside.reflected(mapped, now)
                case UdpBlocked(blocked):
                    self.udp_blocked = blocked
                    self._outside.again(now)
                    self._paths.network_changed(now)
                    _log.info("%s: UDP %s", self._network, "seems to be blocked here" if blocked else "passes")

    def _take_relayed(self, base: Base, peer: TransportAddress, data: bytes, now: float) -> None:
        """Something came without a channel: the next packets of that peer are to find one."""
        leg = self._relays.leg(base)
        if leg is None or self._outside.came(base, peer, data):
            return
        if self._paths.receive(data, peer, base, now):  # whoever shares a peer's address could send anything else
            self._keep_channels(base)
            leg.client.bind(peer, now)

    def _keep_channels(self, base: Base) -> None:
        """Peers come from ever new ports: channels to where no pair leads any more make room before there is none."""
        leg = self._relays.leg(base)
        if leg is not None:
            remotes = cache(lambda: self._paths.remotes(base))
            leg.client.keep_channels(_CHANNELS_SPARE, lambda peer: peer in remotes())

    def _take_path_events(self, now: float) -> None:
        for event in self._paths.take_events():
            match event:
                case paths.Selected(node, path, why):
                    self._select(node, path, why, now)
                case paths.Mtu(node, _, size):
                    self._peers.measured(node, size)
                    self._owner.reach_changed()
                case paths.Mapped(base, address):
                    self._outside.seen(base, address)
                    self._tell_due = True
                case paths.SocketsWanted(node, count, base):
                    self._paths.sockets_opened(node, self._sockets.open(node, count, base), now)
                case paths.SocketsDone(node, keep):
                    self._sockets.done(node, keep, self._drive.port)
                case paths.SignalWanted(node, data):
                    self._owner.send_signal(node, data)
                case paths.Learned(_, envelope):
                    self._owner.learned(envelope)

    def _came_to_socket(self, data: bytes, remote: TransportAddress, base: Base) -> None:
        self._paths.receive(data, remote, base, self._now)
        self._work()

    def _select(self, node: bytes, path: Path | None, why: str, now: float) -> None:
        before = self._courses.path(node)
        self._peers.selected(node, why, lost=path is None)
        if path is not None:
            self._keep_channels(path.base)
        if self._courses.select(node, path, now) or path is None:
            self._owner.course_changed(node)
        self._consider_tcp(node)
        if before is not None and before.base.kind == "relay" and path != before:
            self._relays.doubt(before.base, now)

    def _set_bases(self, now: float) -> None:
        ready = [leg for leg in self._relays.legs() if leg.ready]
        relayed = tuple((leg.base.relay, address) for leg in ready for address in leg.client.relayed)
        bases = (*self._drive.bases, *(leg.base for leg in ready))
        self._paths.set_bases(bases, now, replace(self._around, relayed=relayed))
        self._outside.look_in_mirrors(now)

    def _consider_tcp(self, node: bytes) -> None:
        """Where one of the two sends no UDP, or only small packets get through, a connection may do better."""
        path, peer = self._courses.path(node), self._peers.get(node)
        if path is None or peer is None:
            return
        if self._paths.is_narrow(node):
            self._tcp.want(node)
        elif not path.relayed:
            self._tcp.drop(node)
        elif self.udp_blocked or "no-udp" in peer.nat.split():
            self._tcp.want(node)

    async def _tcp_addresses(self) -> list[TransportAddress]:
        """Where TCP from the port of the tunnel's number comes from."""
        places = translated_places(self._relays.places(), self._around)
        seen = await self._doors.tcp_mapped(places, self._port_number)
        own = [
            TransportAddress(base.address, self._port_number) for base in self._drive.bases if base.address is not None
        ]
        return list(dict.fromkeys([*seen, *own]))

    async def _punch_tcp(self, remote: Sequence[TransportAddress], key: bytes, controlling: bool) -> Bridge | None:
        there = translated(remote, self._around)
        return await self._doors.punch_tcp(there, key, controlling, self._port_number)

    # What goes

    def _send_all(self) -> bool:
        """Returns whether something was sent."""
        sent = False
        for check in self._paths.take_transmits():
            sent = True
            self._drive.check(check)
        for thing in self._outside.take_transmits():
            sent = True
            if isinstance(thing, Throw):
                self._drive.throw(thing)
            else:
                self._drive.send(thing)
        for datagram in self._relays.take_transmits():
            sent = True
            self._drive.send(datagram)
        return sent

    def _turn_client(self, server: TransportAddress, place: RelayPlace, transport: Transport, now: float) -> TurnClient:
        return TurnClient(
            server=server,
            username=place.username,
            password=place.password,
            random=self._doors.random,
            now=now,
            reliable=transport != "udp",
            name=place.name,
        )
