"""One network of this node: keeps host, engine and coordinator in agreement with the documents.

All work is done in one task, one thing after the other (:meth:`NetworkRunner.turn`). Whatever happens elsewhere (a
document arrives, a link goes down, the data plane ends, a command) only leaves a note and wakes that task. A turn that
meets nothing new changes nothing; one that fails in a part says so, does the rest, and tries that part again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final

import msgspec

from warren import log
from warren.agent import naming, rotation
from warren.agent.apply import Host, Ledger
from warren.agent.candidates import Surroundings, candidates, disagreements
from warren.agent.clock import KEPT_EVERY_S, NetworkClock
from warren.agent.desired import Wanted, wanted
from warren.agent.peering import Here, Peering
from warren.agent.plan import Item, Mtu, Policy, Up
from warren.agent.plane import Plane
from warren.agent.records import Content, OwnRecord, Reachability
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.agent.status import View, membership, report
from warren.agent.world import Link
from warren.api.node import Connected, Disconnected, EnrolRequest, Event, Published, Refused, UpdateReceived
from warren.errors import OperationFailed, WarrenError
from warren.identity.keys import PublicKey
from warren.identity.signing import VerifyKey
from warren.identity.store import WireGuardKeys
from warren.l3.firewall import ruleset
from warren.model.documents import Coordinator
from warren.model.netmap import Applied, Member, NetworkMap
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.control.local import Joined, Membership
from warren.proto.control.messages import Report

RETRY_S: Final = 5.0
"""Before what failed is tried again."""
AUDIT_S: Final = 60.0
"""How often the host is looked at although nothing tells of a change: nftables tells of none."""
REPORT_SOON_S: Final = 1.0
INFORMED_S: Final = 60.0
"""So long after a connection was lost the node counts as knowing what others announced."""
TURN_PAUSE_MAX_S: Final = 1.0
_PORTS: Final = range(32_768, 60_999)
_EVENTS_MAX: Final = 256

_log = log.get("agent")


@dataclass
class LinkStanding:
    """How the node stands with its coordinators. Moments on the wall clock."""

    connected: bool = False
    url: str = ""
    since_s: float | None = None
    error: str = ""
    refused: str = ""
    """The kind of the last refusal; empty since one was a success."""
    observed: str = ""
    report_every_s: float = 60.0


@dataclass
class _Due:
    """What is to be done in the next turn."""

    host: bool = True
    names: bool = True
    record: bool = True
    documents: bool = False
    at: dict[str, float] = field(default_factory=dict)
    """When something is to be tried again or done anew, by its name."""

    def again(self, what: str, at: float) -> None:
        self.at[what] = at

    def take(self, what: str, now: float) -> bool:
        if what in self.at and now >= self.at[what]:
            del self.at[what]
            return True
        return False


class NetworkRunner:
    """:meth:`run` it as a task; it ends after :meth:`stop`, :meth:`leave`, or an enrolment that was refused."""

    def __init__(
        self,
        network: VerifyKey,
        shared: Shared,
        state: NetworkState,
        *,
        name: str = "",
        coordinators: Sequence[Coordinator] = (),
        enrol: EnrolRequest | None = None,
    ) -> None:
        """``enrol``: become a member first, of the network that is called ``name`` and known by ``coordinators``."""
        self.network = network
        self.state = state
        self.documents = NetworkMap(network)
        self.standing = LinkStanding()
        self.joined: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        """The node is a member and its interface is up; or WarrenError, why it will not be one."""
        self._shared = shared
        self._world = shared.world
        self._name = name or state.settings.name or network.short
        self._enrol = enrol
        self._coordinators = tuple(coordinators) or state.settings.coordinators
        self._clock = NetworkClock(state.settings.time, self._world.boot)
        self._key = shared.keys.node_key(network)
        self._keys: WireGuardKeys | None = None
        self._record = OwnRecord(self._key, network, state.settings.record_version)
        self._published = 0
        self._ledger = Ledger(self._name)
        self._plane = Plane(self._name, self._world, self.wake)
        self._peering = Peering(self._name)
        self._host: Host | None = None
        self._wanted = Wanted("starting")
        self._surroundings = Surroundings()
        self._notes: deque[Event] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._wake = asyncio.Event()
        self._stopping = False
        self._found = False
        self._due = _Due()
        self._informed_until = self._world.clock() + INFORMED_S
        self._started = self._world.clock()
        self._reported: object = None
        self._served: object = None
        self._listen_port = 0
        self._link: Link | None = None
        self._load()

    def _load(self) -> None:
        revision, envelopes = self.state.documents()
        if envelopes:
            applied = self.documents.apply(revision=revision, whole=True, more=False, put=envelopes, drop=())
            for refusal in applied.refused:
                _log.warning("%s: a cached %s document is not used: %s", self._name, refusal.kind, refusal.reason)
        self._take_spec()
        claims = [ip_network(text) for text in self.state.settings.claims]
        self._shared.claim(self.network, self._name, claims)
        if self.state.settings.interface:
            self._shared.interfaces[self.network] = self.state.settings.interface

    # From outside

    @property
    def name(self) -> str:
        """The network's name."""
        return self._name

    @property
    def interface(self) -> str:
        return self._plane.interface

    @property
    def enrolling(self) -> bool:
        """It was started with a ticket, and is no member yet."""
        return self._enrol is not None

    @property
    def needs_ticket(self) -> bool:
        """The node is no member any more, or its lease has ended without a coordinator to renew it."""
        return self._wanted.state in {"revoked", "expired"} or self.standing.refused in {"revoked", "not-a-member"}

    @property
    def why_not_joined(self) -> str:
        return self.standing.error or "the coordinator has not sent the network's documents yet"

    def addresses_of(self, name: str) -> tuple[str, ...]:
        """The overlay addresses of the live member that ``name`` means; none when it means nobody here."""
        spec = self._wanted.spec
        label, _, rest = name.rstrip(".").lower().partition(".")
        if spec is None or rest not in {"", self._name, f"{self._name}.{spec.suffix}"}:
            return ()
        for member in self._wanted.members:
            if member.name == label:
                return tuple(str(ip) for ip in (member.address6, member.address4) if ip is not None)
        return ()

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """End :meth:`run`; the host stays as it is until :meth:`remove`."""
        self._stopping = True
        self._wake.set()

    def network_changed(self) -> None:
        """Links, addresses or routes of the host may have changed."""
        self._due.host = True
        self._wake.set()
        if self._link is not None and not self.standing.connected:
            self._link.retry_now()

    def config_changed(self) -> None:
        """The local config is another one."""
        self._due.host = self._due.names = self._due.record = True
        self._listen_port = 0
        self._wake.set()

    def note(self, event: Event) -> None:
        """Something came from the link; the next turn deals with it."""
        self._notes.append(event)
        if len(self._notes) >= _EVENTS_MAX:
            self._room.clear()
        self._wake.set()

    async def run(self) -> None:
        """Raises WarrenError when the node was to enrol and is refused; nothing is then left."""
        link = self._world.open_link(
            network=self.network,
            node=self._key,
            coordinators=self._coordinators,
            since=lambda: self.documents.revision,
            enrol=self._enrol,
        )
        async with link:
            self.use_link(link)
            reader = asyncio.create_task(self._read(link), name=f"events of {self._name}")
            try:
                while not self._stopping:
                    self._wake.clear()
                    began = self._world.clock()
                    pause = await self.turn()
                    # Many changes at once are one turn's work: a turn may take half of the time at most.
                    await asyncio.sleep(min(TURN_PAUSE_MAX_S, self._world.clock() - began))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), pause)
            finally:
                self._link = None
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                await self.let_go()

    async def let_go(self) -> None:
        """Stop looking after the data plane; it goes on."""
        await self._plane.let_go()

    def use_link(self, link: Link) -> None:
        """What is said to the coordinator goes by ``link`` from now on; what comes is to be given to :meth:`note`."""
        self._link = link

    async def _read(self, link: Link) -> None:
        async for event in link.events():
            self.note(event)
            await self._room.wait()  # the coordinator waits too

    async def leave(self) -> None:
        """Give the membership up. Raises Unreachable or OperationFailed; the node is then still a member."""
        if self._link is None:
            raise OperationFailed(f"{self._name} is not running")
        await self._link.leave()

    async def remove(self) -> list[str]:
        """Take away what was made in the host; returns what failed, one sentence each."""
        failures = []
        try:
            await self._world.names.stop(self.interface)
        except WarrenError as error:
            failures.append(str(error))
        try:
            await self._plane.close()
            if self._host is not None:
                self._host.table.remove()
        except WarrenError as error:
            failures.append(str(error))
        self._shared.release(self.network)
        return failures

    # A turn

    async def turn(self) -> float:
        """Do what is to be done now; returns the seconds until something is due by time alone."""
        self._take_notes()
        try:
            if self._due.host or self._due.take("audit", self._now):
                self._surroundings = await self._shared.surroundings()
                self._due.host = self._due.record = True
            await self._keep_plane()
            self._turn_keys()
            self._want()
            if self._plane.runs:
                await self._reach()
                await self._settle()
                await self._serve_names()
            self._publish()
        except WarrenError as error:
            self._ledger.failed("data plane", error)
            self._due.again("retry", self._now + RETRY_S)
        else:
            if self._plane.runs:
                self._ledger.done("data plane")
        self._save()
        self._see_joined()
        self._send_report()
        return self._pause()

    @property
    def _now(self) -> float:
        return self._world.clock()

    @property
    def network_s(self) -> float:
        """The time in the network."""
        return self._clock.now(self._world.wall_clock(), self._world.clock())

    def _pause(self) -> float:
        now = self._now
        moments = list(self._due.at.values())
        if self._plane.runs:
            moments.append(self._peering.due_at())
        elif self._plane.retry_at is not None:
            moments.append(self._plane.retry_at)
        network_s = self.network_s
        change = self.documents.next_lease_change(network_s)
        if change is not None:
            moments.append(now + change - network_s)
        step_at = rotation.next_step_at(self._rotation(), *self._rotation_times()) if self._keys else None
        if step_at is not None:
            moments.append(max(now + step_at - network_s, now + RETRY_S))
        return max(0.0, min(moments, default=now + AUDIT_S) - now)

    # Documents

    def _take_notes(self) -> None:
        while self._notes:
            event = self._notes.popleft()
            match event:
                case Connected():
                    self._connected(event)
                case UpdateReceived(update):
                    self._updated(
                        self.documents.apply(
                            revision=update.revision,
                            whole=update.whole,
                            more=update.more,
                            put=update.put,
                            drop=update.drop,
                        )
                    )
                case Published(version):
                    self._published = max(self._published, version)
                case Disconnected(why):
                    self._disconnected(why)
                case Refused():
                    self._refused(event)
                case _:
                    pass  # signals are for paths through NATs
        self._room.set()

    def _connected(self, event: Connected) -> None:
        wall_s = self._world.wall_clock()
        self.documents.abandon()
        self._clock.tell(event.time_s, wall_s, self._now)
        self.standing = LinkStanding(
            True, event.url, wall_s, observed=event.observed, report_every_s=event.report_every_s
        )
        _log.info("%s: connected to the coordinator at %s", self._name, event.url)
        warning = self._clock.warning()
        if warning:
            _log.warning("%s: %s", self._name, warning)
        if self._link is not None and self._record.latest is not None:
            self._link.publish(self._record.latest)
        self._due.record = True
        self._due.again("report", self._now + REPORT_SOON_S)

    def _disconnected(self, why: str) -> None:
        standing = self.standing
        if standing.connected or standing.since_s is None:
            _log.warning("%s: the coordinator is not connected: %s", self._name, why)
            self._informed_until = self._now + INFORMED_S
            standing.since_s = self._world.wall_clock()
        standing.connected = False
        standing.error = why

    def _refused(self, event: Refused) -> None:
        self.standing.connected = False
        self.standing.error, self.standing.refused = str(event), event.refused.kind
        _log.warning("%s: the coordinator refuses this node: %s", self._name, event)
        if self._enrol is not None and event.final and not self.joined.done():
            self.joined.set_exception(OperationFailed(f"{self._name}: {event}"))
            self._stopping = True

    def _updated(self, applied: Applied) -> None:
        if not applied.complete:
            return
        if applied.refused_count:
            first = applied.refused[0]
            _log.warning(
                "%s: %d documents of the coordinator were refused, the first, a %s: %s",
                self._name,
                applied.refused_count,
                first.kind,
                first.reason,
            )
        if applied.changed or applied.dropped:
            self._due.documents = self._due.names = True
            self._take_spec()
        if self._link is not None:
            self._link.members = len(self.documents.members())

    def _take_spec(self) -> None:
        spec = self.documents.spec
        if spec is None:
            return
        self._name = spec.name
        if spec.coordinators:
            self._coordinators = spec.coordinators
        if self._link is not None:
            self._link.coordinators = self._coordinators

    # The data plane and the keys

    @property
    def own(self) -> Member | None:
        return self.documents.member(self._key.verify_key.raw)

    async def _keep_plane(self) -> None:
        if self.own is None or self.documents.spec is None:
            return
        if not self._found:
            await self._find_plane()
        if self._plane.due():
            await self._plane.start(self._surroundings.mtu())
            self._peering.forget_engine()
            self._due.host = self._due.names = True
            self._served = None

    async def _find_plane(self) -> None:
        settings = self.state.settings
        names = [settings.interface, *naming.interface_names(self._name, self.network)]
        others = self._shared.other_interfaces(self.network)
        adopted = await self._plane.find(names, others, self._public_keys())
        self._found = True
        interface = self._plane.interface
        self._shared.interfaces[self.network] = interface
        self._host = Host(interface, self._world.netlink, self._world.nft, self._world.sysctls, self._ledger)
        self._note_settings(interface=interface)
        if adopted:
            _log.info("%s: took over the data plane of %s, which runs already", self._name, interface)

    def _own_keys(self) -> list[PublicKey]:
        keys = self._wireguard_keys()
        return [key.public_key() for key in (keys.current, keys.next) if key is not None]

    def _public_keys(self) -> list[PublicKey]:
        """Also those of before: an agent that was killed while it changed the key may find the old one in use."""
        found = self._own_keys()
        record = None if self.own is None else self.own.record
        if record is not None:
            found += [PublicKey(key) for key in (record.wireguard_key, record.next_wireguard_key) if key]
        return found

    def _wireguard_keys(self) -> WireGuardKeys:
        if self._keys is None:
            self._keys = self._shared.keys.wireguard_keys(self.network, self.network_s)
        return self._keys

    def _rotation(self) -> rotation.Standing:
        keys = self._wireguard_keys()
        announced = self._record.latest
        told = (
            self.standing.connected
            and announced is not None
            and announced.document.next_wireguard_key is not None
            and self._published >= announced.document.version
        )
        return rotation.Standing(
            min(keys.current_since_s, self.network_s), min(keys.next_since_s or 0.0, self.network_s), told
        )

    def _rotation_times(self) -> tuple[float, float]:
        return self._shared.config.rotate_s, self._shared.config.announce_s

    def _turn_keys(self) -> None:
        if self.own is None or not self._plane.runs:
            return
        try:
            match rotation.step(self._rotation(), *self._rotation_times(), self.network_s):
                case "announce":
                    self._keys = self._shared.keys.prepare_next(self.network, self.network_s)
                    self._due.record = True
                    _log.info("%s: the next WireGuard key is announced", self._name)
                case "take":
                    self._keys = self._shared.keys.use_next(self.network, self.network_s)
                    self._due.record = True
                    _log.info("%s: a fresh WireGuard key is in use", self._name)
        except OperationFailed as error:
            self._ledger.failed("key rotation", error)
        else:
            self._ledger.done("key rotation")

    # What is wanted, and reaching it

    def _want(self) -> None:
        before = self._wanted
        if self._plane.interface:
            self._wanted = wanted(
                self.documents,
                self._key.verify_key.raw,
                self.network_s,
                self._plane.interface,
                taken=self._shared.taken(self.network, self._surroundings),
                holders=self._peering.holders,
                own_keys=self._own_keys(),
                refused=self.standing.refused == "revoked",
            )
        else:
            self._wanted = Wanted("starting", spec=self.documents.spec)
        if self._wanted != before:
            self._due.host = self._due.names = True
            self._shared.claim(self.network, self._name, self._wanted.claims)
            for warning in set(self._wanted.warnings) - set(before.warnings):
                _log.warning("%s: %s", self._name, warning)
            if self._wanted.state != before.state and self._wanted.state in {"expired", "revoked"}:
                _log.warning("%s: %s", self._name, _END[self._wanted.state])

    async def _reach(self) -> None:
        if self._host is None or not (self._due.host or self._due.take("host", self._now)):
            return
        interface = self._plane.interface
        want = self._wanted
        policy = ruleset(interface, want.own, want.rules)
        items: list[Item] = [Policy(interface, "in place"), *want.addresses, *want.routes]
        items += [Mtu(interface, self._surroundings.mtu()), Up(interface)]
        self._due.host = False
        await self._host.reach(items, policy, ruleset(interface, want.own, None))
        self._check_forwarding()
        if self._ledger.failing():
            self._due.again("host", self._now + RETRY_S)
        self._due.again("audit", self._now + AUDIT_S)

    def _check_forwarding(self) -> None:
        """Subnets behind this node are reached only if the host passes packets on; that is the operator's to switch."""
        names = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
        versions = {network.version for network in self._wanted.own.routes}
        off = [names[version] for version in sorted(versions) if self._world.sysctls.get(names[version]) == "0"]
        if off:
            settings = " ".join(f"{name.replace('/', '.')}=1" for name in off)
            self._ledger.failed("forwarding", f"this host passes no packets on; run `sysctl -w {settings}`")
        elif versions:
            self._ledger.done("forwarding")
        else:
            self._ledger.forget("forwarding")

    async def _settle(self) -> None:
        engine = self._plane.engine
        now = self._now
        if engine is None:
            return
        here = Here(
            underlay=self._surroundings.underlay(),
            candidates=self._own_candidates(),
            overlays=self._shared.overlays(),
            private_key=self._wireguard_keys().current,
            listen_port=self._port(),
            informed=self.standing.connected or now < self._informed_until,
        )
        try:
            changed = await self._peering.settle(
                engine, self._wanted.peers, here, now, int(self._world.wall_clock() * 1e9)
            )
        except OperationFailed as error:
            self._ledger.failed("peers", error)
            self._due.again("peers", now + RETRY_S)
            if not self._shared.config.port_for(self._name):
                self._choose_port()
            return
        if changed:
            _log.debug("%s: peers changed", self._name)
        self._ledger.done("peers")

    def _own_candidates(self) -> tuple[TransportAddress, ...]:
        found = candidates(self._surroundings, self._shared.config, self._port(), self._shared.overlays())
        return tuple(TransportAddress(ip_address(one.address), one.port) for one in found)

    def _port(self) -> int:
        if not self._listen_port:
            self._listen_port = self._shared.config.port_for(self._name) or self.state.settings.listen_port
            if not self._listen_port:
                self._choose_port()
            self._shared.ports[self.network] = self._listen_port
        return self._listen_port

    def _choose_port(self) -> None:
        others = {port for network, port in self._shared.ports.items() if network != self.network}
        free = [port for port in (self._world.random.choice(_PORTS) for _ in range(16)) if port not in others]
        self._listen_port = free[0]
        self._note_settings(listen_port=self._listen_port)
        self._due.record = True

    async def _serve_names(self) -> None:
        want = self._wanted
        serve = bool(want.members) and self._shared.config.wants_dns(self._name) and want.spec is not None
        if not self._due.names and not self._due.take("dns", self._now):
            return
        self._due.names = False
        try:
            if serve and want.spec is not None:
                content = (want.addresses, want.spec, want.members)
                if content != self._served:
                    addresses: list[IPAddress] = [address.value.ip for address in want.addresses]
                    await self._world.names.serve(self.interface, addresses, want.spec, want.members)
                    self._served = content
                self._ledger.done("dns")
            else:
                if self._served is not None:
                    await self._world.names.stop(self.interface)
                self._served = None
                self._ledger.forget("dns")
        except OperationFailed as error:
            self._ledger.failed("dns", error)
            self._due.again("dns", self._now + RETRY_S)

    # What is told and kept

    def _publish(self) -> None:
        own = self.own
        if own is None or self._keys is None or not self._plane.runs:
            return
        keys = self._keys
        following = keys.next.public_key() if keys.next else None
        found = candidates(self._surroundings, self._shared.config, self._port(), self._shared.overlays())
        content = Content(keys.current.public_key(), following, found, self._reachability())
        if not self._record.is_due(content, own.record):
            return
        version = self._record.next_version(own.record)
        self._note_settings(record_version=version)
        record = self._record.make(content, version, own.record)
        if self._record.contested:
            self._ledger.failed(
                "record",
                "another agent publishes with this node's key: its state was copied; let one of the two join anew",
            )
        if self._link is not None:
            self._link.publish(record)

    def _reachability(self) -> Reachability:
        if self._shared.config.stated.addresses:
            return "public"
        observed = self._observed()
        offered = self._surroundings.offered(self._shared.config)
        has_global6 = any(ip.version == 6 and ip.is_global for ip in offered)
        if observed is not None and observed.version == 4 and observed.is_global and observed not in offered:
            return "hidden-dual-stack" if has_global6 else "hidden"
        return "unknown"

    def _observed(self) -> IPAddress | None:
        with contextlib.suppress(ValueError):
            return ip_address(self.standing.observed)
        return None

    def _note_settings(self, **changes: object) -> None:
        """Remember, and keep on disk; a disk that does not take it is told, and tried again."""
        try:
            self.state.write(msgspec.structs.replace(self.state.settings, **changes))
        except OperationFailed as error:
            self._ledger.failed("state", error)
            self._due.again("state", self._now + RETRY_S)

    def _save(self) -> None:
        """Keep what a start without a coordinator needs."""
        if self.own is None or self.documents.spec is None:
            return
        now = self._now
        retry = self._due.take("state", now)
        settings = self.state.settings
        fresh = msgspec.structs.replace(
            settings,
            name=self._name,
            coordinators=self._coordinators[:16],
            claims=tuple(str(network) for network in self._wanted.claims[:4096]) or settings.claims,
        )
        try:
            if self._due.documents:
                self.state.write_documents(self.documents.revision, self.documents.envelopes())
                self._due.documents = False
            if self._due.take("time", now) or "time" not in self._due.at:
                time = self._clock.keep(self._world.wall_clock(), now)
                fresh = msgspec.structs.replace(fresh, time=time)
                self._due.again("time", now + KEPT_EVERY_S)
            if fresh != settings or retry:
                self.state.write(fresh)
        except OperationFailed as error:
            self._ledger.failed("state", error)
            self._due.again("state", now + RETRY_S)
        else:
            self._ledger.done("state")

    def _see_joined(self) -> None:
        own = self.own
        if self.joined.done() or own is None or self._wanted.state != "up" or not self._plane.runs:
            return
        addresses = tuple(str(address.value) for address in self._wanted.addresses)
        _log.info("%s: joined as %s (%s), interface %s", self._name, own.name, ", ".join(addresses), self.interface)
        self._enrol = None
        self.joined.set_result(Joined(network=self._name, name=own.name, interface=self.interface, addresses=addresses))

    def _send_report(self) -> None:
        if self._link is None or not self.standing.connected:
            return
        facts = (self._ledger.tasks(), self._wanted.state, self._peering.signature(), self._surroundings.addresses)
        if facts != self._reported and "report-soon" not in self._due.at:
            self._due.again("report-soon", self._now + REPORT_SOON_S)
        if self._due.take("report", self._now) | self._due.take("report-soon", self._now):
            self._reported = facts
            self._link.report(self.report())
            self._due.again("report", self._now + self.standing.report_every_s)

    # What it says of itself

    def report(self) -> Report:
        """For the coordinator (R12)."""
        return report(self._view())

    def status(self) -> Membership:
        """For the people on this host."""
        return membership(self._view())

    def _view(self) -> View:
        config = self._shared.config
        warnings = [
            *self.state.warnings,
            *self._wanted.warnings,
            *disagreements(config.stated, self._surroundings, self._observed()),
        ]
        clock = self._clock.warning()
        return View(
            network=self.network,
            node=self._key.verify_key,
            name=self._name,
            own=self.own,
            spec=self.documents.spec,
            wanted=self._wanted,
            live=self._wanted.members,
            degraded=self._ledger.failing() or (self._found and not self._plane.runs),
            interface=self.interface,
            listen_port=self._listen_port,
            key=None if self._keys is None else self._keys.current.public_key(),
            revision=self.documents.revision,
            map_version=0 if self.documents.spec is None else self.documents.spec.version,
            reachability=self._reachability(),
            stated=config.stated.lines(),
            candidates=tuple(str(one) for one in self._own_candidates()) if self._listen_port else (),
            standing=self.standing,
            offset_s=self._clock.offset_s,
            tasks=self._ledger.tasks(),
            peering=self._peering,
            warnings=(*warnings, *([clock] if clock else [])),
            surroundings=self._surroundings,
            uptime_s=self._now - self._started,
            wall_s=self._world.wall_clock(),
        )


_END: Final = {
    "expired": "the lease of this node has ended, so it talks to nobody; it goes on when the coordinator renews it",
    "revoked": "this node was revoked; it is no member any more",
}
