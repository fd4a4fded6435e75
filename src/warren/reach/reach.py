"""Reaches the members of one network: drives path selection, relays and probes over one data plane.

The machines decide (:mod:`warren.paths.connectivity`, :mod:`warren.reach.relays`); this moves their datagrams through
the data plane's control port, wakes them in time, and does what needs a socket or a name server. Everything happens in
callbacks of the event loop; nothing is polled.

::

    data plane ──▶ arrivals.py ──▶ machines ──▶ outcomes.py ──▶ owner, courses, sockets
        ▲                             │
        └──────── drive.py ◀──────────┘          direct_tcp.py: what UDP does not do
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from warren.engine.base import Engine
from warren.model.datagrams import ControlEvent
from warren.model.tunnel import PLAIN, TransportAddress, TunnelStatus, Way
from warren.paths import events as paths
from warren.paths.connectivity import Connectivity
from warren.paths.nat import Situation
from warren.paths.values import Base, CandidateKind, Path, RemoteCandidate, Settings, Surroundings
from warren.proto.turn.client import TurnClient
from warren.reach.arrivals import Adopted, Arrivals
from warren.reach.courses import Course, Courses
from warren.reach.direct_tcp import DirectTcp
from warren.reach.doors import Doors, Owner, PeerFacts
from warren.reach.drive import Drive
from warren.reach.errands import Errands
from warren.reach.mirrors import Throw
from warren.reach.outcomes import Outcomes
from warren.reach.outside import Outside
from warren.reach.parts import Parts
from warren.reach.peers import Peers
from warren.reach.places import Place, place_of
from warren.reach.relay_values import RelayPlace, RelayStatus, Transport
from warren.reach.sockets import PunchSockets
from warren.reach.uplinks import Uplinks

_ROUNDS_MAX: Final = 64
"""So often in a row the machines may cause work for each other; then it is the event loop's turn."""


class Reach:
    """One network's; :meth:`use` it on a data plane. Single owner, one event loop; never fails."""

    def __init__(self, network: str, node: bytes, doors: Doors, owner: Owner, settings: Settings | None = None) -> None:
        """``network``: its name, for the log. ``node``: this node's key."""
        relays = Uplinks(doors.random, self._turn_client)
        sockets = PunchSockets(self._came_to_socket)
        connectivity = Connectivity(node=node, random=doors.random, now=doors.clock(), settings=settings)
        drive = Drive(relays, sockets, doors.clock)
        self._parts = Parts(
            network=network,
            doors=doors,
            owner=owner,
            paths=connectivity,
            peers=Peers(),
            relays=relays,
            sockets=sockets,
            drive=drive,
            outside=Outside(network, doors.random, relays, connectivity, drive, owner),
            courses=Courses(relays, lambda base: sockets.hand_over(base, drive.port)),
        )
        self._arrivals = Arrivals(self._parts)
        self._tcp = DirectTcp(node, self._parts)
        self._outcomes = Outcomes(self._parts, self._arrivals, self._tcp.consider)
        self._errands = Errands(doors, relays, lambda: self._parts.port_number, self._work_and_tell)
        self._alarm = doors.alarm(self._work)
        self._busy = False
        self._told: object = None

    # From outside

    async def use(self, engine: Engine, ended: Callable[[], None]) -> None:
        """Work over ``engine`` from now on; ``ended`` is called when it does not listen to this any more. Raises
        Unreachable, OperationFailed; there is then no engine.
        """
        self.leave()
        port = await engine.listen(self._heard)
        self._parts.drive.port = port
        port.closed.add_done_callback(lambda _: ended())
        self._work()

    def leave(self) -> None:
        """There is no data plane (any more)."""
        port, self._parts.drive.port = self._parts.drive.port, None
        if port is not None:
            port.close()
        self._alarm.set(None)

    @property
    def listens(self) -> bool:
        """There is a data plane, and it is heard."""
        return self._parts.drive.port is not None and not self._parts.drive.port.closed.done()

    async def close(self) -> None:
        """Give allocations back, and end what runs."""
        self._parts.relays.close(self._now)
        self._parts.sockets.close()
        self._errands.run(self._parts.relays.take_wishes())
        self._send_all()
        self.leave()
        await self._tcp.paths.close()
        await self._errands.close()

    def set_bases(self, bases: tuple[Base, ...], around: Surroundings, port: int) -> None:
        """The addresses of this host that packets may leave from, what is around it, and the tunnel's port."""
        parts = self._parts
        before, parts.drive.bases, parts.around, parts.port_number = parts.drive.bases, bases, around, port
        parts.relays.set_bases(bases, self._now)
        self._outcomes.set_bases(self._now)
        if bases != before:
            self._parts.outside.ask(self._now)
            if before:
                self.network_changed()
                return
        self._work_and_tell()

    def network_changed(self) -> None:
        """Routes of this host, or what is behind them, may be others: everything is looked at again at once."""
        now = self._now
        self._parts.paths.network_changed(now)
        self._parts.relays.network_changed(now)
        self._parts.outside.network_changed(now)
        self._work_and_tell()

    def set_ways_in(self, verified: Iterable[TransportAddress], others: Iterable[TransportAddress]) -> None:
        """Addresses that gateways have given; through the ``others`` nothing has come in yet."""
        self._parts.outside.set_ways_in(verified, others, self._now)
        self._work_and_tell()

    def set_relays(self, places: Iterable[RelayPlace]) -> None:
        """These may be used, with their credentials."""
        self._parts.relays.keep(places, self._now)
        self._work_and_tell()

    def set_peers(self, peers: Iterable[PeerFacts]) -> None:
        """The members to be reached. Who is not named is forgotten."""
        gone, changed = self._parts.peers.set(peers)
        now = self._now
        for node in gone:
            self._tcp.paths.drop(node)
            self._parts.paths.remove_peer(node)
            self._parts.courses.forget(node)
        for peer in changed:
            if peer.check_keys:
                self._parts.paths.set_peer(peer.node, peer.check_keys, peer.candidates, peer.nat, now)
            else:
                self._parts.paths.remove_peer(peer.node)
        for node in self._parts.peers.take_early():
            self._parts.paths.want(node, now)
        self._work()

    def set_record(self, envelope: bytes, candidates: tuple[RemoteCandidate, ...], nat: str) -> None:
        """The own record as it goes along with signals, and what it says."""
        self._parts.paths.set_self(record=envelope, candidates=candidates, nat=nat)

    def want(self, node: bytes) -> None:
        """A path to that peer is wanted now."""
        if node in self._parts.peers:
            self._parts.paths.want(node, self._now)
            self._work()

    def adopt(self, node: bytes, endpoint: TransportAddress, way: Way) -> None:
        """The data plane of before sends to that peer by this way: look whether it still works."""
        self._arrivals.put(Adopted(node, endpoint, way))
        self._work()

    def traffic(self, status: TunnelStatus, *, active: bool) -> None:
        """What the data plane counts. ``active``: some of it has changed."""
        now = self._now
        self._parts.relays.set_active(active, now)
        for peer in status.peers:
            node = self._parts.peers.holder(peer.public_key)
            if node is not None:
                self._parts.paths.traffic(node, peer.tx_bytes, peer.rx_bytes, now)
                self._tcp.consider(node)
        self._work()

    def signal_received(self, node: bytes, data: bytes) -> None:
        """A signal of that member came by the coordinator."""
        if node in self._parts.peers and not self._tcp.paths.received(node, data):
            self._parts.paths.signal_received(node, data, self._now)
            self._work()

    # What is known

    def course(self, node: bytes) -> Course | None:
        """How packets to that peer are to travel; None: no path was ever found."""
        course, bridge = self._parts.courses.course(node), self._tcp.paths.bridge(node)
        return course if course is None or bridge is None else replace(course, endpoint=bridge, way=PLAIN)

    def path(self, node: bytes) -> Path | None:
        """The path that is good now."""
        return self._parts.courses.path(node)

    def lost(self, node: bytes) -> bool:
        """A path was wanted, and none was found, or the last one is gone."""
        return self._parts.peers.lost(node)

    def mtu(self, node: bytes) -> int | None:
        """The largest inner packet that passes on that peer's path; None: not known."""
        return self._parts.peers.mtu(node)

    def why(self, node: bytes) -> str:
        """What path selection last said of that peer."""
        return self._parts.peers.why(node)

    def candidates(self) -> list[tuple[CandidateKind, TransportAddress]]:
        """What others see of this node, the best first: outside addresses, then those at relays."""
        return self._parts.outside.candidates()

    def relays(self) -> tuple[RelayStatus, ...]:
        return self._parts.relays.status()

    def situation(self) -> Situation | None:
        """What stands before this node; None: not known."""
        return self._parts.outside.situation(self._parts.port_number, udp=not self._parts.udp_blocked)

    def nat(self) -> str:
        """The same in the words of NodeRecord.nat; empty: not known."""
        found = self.situation()
        return "" if found is None else str(found)

    @property
    def udp_blocked(self) -> bool:
        """The network here seems to let no UDP out."""
        return self._parts.udp_blocked

    @property
    def settled(self) -> bool:
        """Relays have answered or not: the candidates will not change soon."""
        return self._parts.relays.settled

    def place(self, node: bytes) -> Place:
        """How packets to that peer travel now."""
        if self._tcp.paths.bridge(node) is not None:
            what = "Large UDP packets do" if self._parts.paths.is_narrow(node) else "UDP does"
            return Place(path="direct", endpoint="a TCP connection", why=f"{what} not pass, and TCP does.")
        return place_of(self.explain(node), self._parts.relays.status())

    def explain(self, node: bytes) -> paths.PeerReport | None:
        """None: it is not among the peers."""
        return self._parts.paths.explain(node, self._now)

    # The work

    @property
    def _now(self) -> float:
        return self._parts.doors.clock()

    def _heard(self, event: ControlEvent) -> None:
        self._arrivals.put(event)
        self._work()

    def _work_and_tell(self) -> None:
        """The same, after something that the owner may have to be told of."""
        self._parts.tell_due = True
        self._work()

    def _work(self) -> None:
        """Do all that is due. Called within itself (an engine in memory answers at once) it leaves that to itself."""
        if self._busy:
            return
        self._busy = True
        try:
            for _ in range(_ROUNDS_MAX):
                now = self._now
                self._arrivals.take_all(now)
                self._wake_machines(now)
                self._outcomes.of_relays(now)
                self._outcomes.of_paths(now)
                self._parts.outside.take_mappings(now)
                self._errands.run(self._parts.relays.take_wishes())
                if not self._send_all() and not self._arrivals:
                    break
        finally:
            self._busy = False
        if self._parts.tell_due:
            self._parts.tell_due = False
            self._tell()
        self._set_alarm()

    def _wake_machines(self, now: float) -> None:
        for machine in (self._parts.paths, self._parts.relays, *self._parts.outside.machines):
            deadline = machine.next_deadline()
            if deadline is not None and deadline.at <= now:
                machine.handle_timeout(now)
                self._parts.tell_due |= machine is not self._parts.paths

    def _set_alarm(self) -> None:
        machines = (self._parts.paths, self._parts.relays, *self._parts.outside.machines)
        deadlines = [one for machine in machines if (one := machine.next_deadline()) is not None]
        self._alarm.set(
            min((one.at for one in deadlines), default=None) if self._parts.drive.port is not None else None
        )

    def _tell(self) -> None:
        told = (tuple(self.candidates()), self._parts.relays.status(), self._parts.udp_blocked, self.nat())
        if told != self._told:
            self._told = told
            self._parts.owner.reach_changed()

    # What comes and goes

    def _came_to_socket(self, data: bytes, remote: TransportAddress, base: Base) -> None:
        self._parts.paths.receive(data, remote, base, self._now)
        self._work()

    def _send_all(self) -> bool:
        """Returns whether something was sent."""
        sent = False
        for check in self._parts.paths.take_transmits():
            sent = True
            self._parts.drive.check(check)
        for thing in self._parts.outside.take_transmits():
            sent = True
            if isinstance(thing, Throw):
                self._parts.drive.throw(thing)
            else:
                self._parts.drive.send(thing)
        for datagram in self._parts.relays.take_transmits():
            sent = True
            self._parts.drive.send(datagram)
        return sent

    def _turn_client(self, server: TransportAddress, place: RelayPlace, transport: Transport, now: float) -> TurnClient:
        return TurnClient(
            server=server,
            username=place.username,
            password=place.password,
            random=self._parts.doors.random,
            now=now,
            reliable=transport != "udp",
            name=place.name,
        )
