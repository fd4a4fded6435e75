"""A network in memory: a coordinator that only keeps and hands out documents, and nodes with hosts and engines of
their own. Nothing moves but by the test's hand, and nothing waits.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface
from pathlib import Path
from typing import Self

from warren.agent.agent import Agent
from warren.agent.config import AgentConfig
from warren.agent.network.ground import Enrolment
from warren.agent.network.runner import NetworkRunner
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.agent.streams.doors import Doors
from warren.agent.world import World
from warren.api.node_events import Connected, Disconnected, Event, Published, Refused, SignalReceived, UpdateReceived
from warren.engine.choose import Choice
from warren.engine.memory import MemoryEngine, MemoryNetwork
from warren.engine.memory_network import Train
from warren.errors import OperationFailed, Unreachable
from warren.identity.signing import SigningKey, VerifyKey
from warren.identity.store import KeyStore
from warren.l4.overlay import HostSockets
from warren.linux.netlink_memory import MemoryNetlink
from warren.linux.netlink_values import Address
from warren.linux.nft import MemoryNft
from warren.linux.sysctl import MemorySysctls
from warren.model.addresses import node_prefix, ula_prefix
from warren.model.documents import (
    Coordinator,
    Document,
    DocumentKey,
    Membership,
    NetworkSpec,
    NodeRecord,
    Revocation,
    Rule,
    Ticket,
)
from warren.model.envelope import Envelope
from warren.model.netmap import Member
from warren.model.policy import DEFAULT_POLICY
from warren.model.services import Service
from warren.model.tickets import ticket_text
from warren.model.tunnel import IPAddress
from warren.model.verified import Verified, sign
from warren.proto.control import messages
from warren.proto.control.client import EnrolRequest

EPOCH_S = 1_700_000_000
URL = "https://192.0.2.1:8443"


def signing_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


class FakeCoordinator:
    """Keeps the newest of each document of one network, and tells every link of every change."""

    def __init__(
        self, name: str = "home", *, prefix4: str | None = "10.77.0.0/16", lease_s: int = 86_400, authority: str = ""
    ) -> None:
        self.authority = signing_key(f"authority of {authority or name}")
        self.key = self.authority.verify_key
        self.name = name
        self.now_s: Callable[[], float] = lambda: float(EPOCH_S)
        self.lease_s = lease_s
        self.prefix4 = None if prefix4 is None else IPv4Network(prefix4)
        self.documents: dict[DocumentKey, Envelope] = {}
        self.versions: dict[DocumentKey, int] = {}
        self.links: list[FakeLink] = []
        self.revision = 0
        self.away = False
        self.refusal: messages.Refused | None = None
        self.policy: tuple[Rule, ...] = DEFAULT_POLICY
        self.services: tuple[Service, ...] = ()
        self._members: dict[bytes, Membership] = {}
        self.put_spec()

    @property
    def coordinators(self) -> tuple[Coordinator, ...]:
        return (Coordinator(url=URL, key=signing_key("coordinator").verify_key.raw),)

    def ticket(self, **changes: object) -> str:
        ticket = Ticket(
            network=self.key.raw,
            version=1,
            name=self.name,
            coordinators=self.coordinators,
            secret=bytes(16),
            not_after=EPOCH_S + 3600,
        )
        return ticket_text(sign(replace_struct(ticket, **changes), self.authority))

    def put_spec(self) -> None:
        spec = NetworkSpec(
            network=self.key.raw,
            version=self.next_version(DocumentKey("network")),
            name=self.name,
            prefix6=str(ula_prefix(self.key)),
            prefix4=None if self.prefix4 is None else str(self.prefix4),
            policy=self.policy,
            coordinators=self.coordinators,
            services=self.services,
        )
        self.put(sign(spec, self.authority))

    def enrol(self, node: VerifyKey, name: str, **changes: object) -> Membership:
        index = len(self._members) + 1
        now_s = int(self.now_s())
        if node.raw in self._members:
            return self._members[node.raw]
        membership = Membership(
            network=self.key.raw,
            version=1,
            node=node.raw,
            name=name,
            prefix6=str(node_prefix(ula_prefix(self.key), index)),
            address4=None if self.prefix4 is None else str(self.prefix4[index]),
            not_before=now_s - 60,
            not_after=now_s + self.lease_s,
        )
        self.change_member(node, membership, **changes)
        return self._members[node.raw]

    def change_member(self, node: VerifyKey, membership: Membership | None = None, **changes: object) -> None:
        old = membership or self._members[node.raw]
        version = self.next_version(DocumentKey("membership", node.raw))
        fresh = replace_struct(old, version=version, **changes)
        self._members[node.raw] = fresh
        self.put(sign(fresh, self.authority))

    def revoke(self, *nodes: VerifyKey) -> None:
        version = self.next_version(DocumentKey("revocation"))
        revocation = Revocation(network=self.key.raw, version=version, nodes=tuple(node.raw for node in nodes))
        self.put(sign(revocation, self.authority))

    def next_version(self, key: DocumentKey) -> int:
        return self.versions.get(key, 0) + 1

    def put(self, verified: Verified[Document]) -> None:
        if verified.document.version <= self.versions.get(verified.key, 0):
            return
        self.documents[verified.key] = verified.envelope
        self.versions[verified.key] = verified.document.version
        self.revision += 1
        for link in self.links:
            link.tell(UpdateReceived(messages.Update(revision=self.revision, put=(verified.envelope,))))

    def whole(self) -> messages.Update:
        return messages.Update(revision=self.revision, whole=True, put=tuple(self.documents.values()))

    def open_link(
        self,
        *,
        network: VerifyKey,
        node: SigningKey,
        coordinators: Sequence[Coordinator],
        since: Callable[[], int],
        enrol: EnrolRequest | None,
        proxy: str | None = None,
    ) -> FakeLink:
        assert network == self.key
        return FakeLink(self, node.verify_key, tuple(coordinators), enrol)


class FakeLink:
    """A link that works at once, or never while the coordinator is away."""

    def __init__(
        self,
        coordinator: FakeCoordinator,
        node: VerifyKey,
        coordinators: tuple[Coordinator, ...] = (),
        enrol: EnrolRequest | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.coordinators = coordinators
        self.members = 0
        self.reports: list[messages.Report] = []
        self.records: list[NodeRecord] = []
        self.retries = 0
        self.left = False
        self._node = node
        self._enrol = enrol
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.waiting: list[Event] = []
        self.enrolled = False

    def connect(self) -> None:
        coordinator = self.coordinator
        if coordinator.refusal is not None:
            self.tell(Refused(coordinator.refusal, coordinator.refusal.retry_after_s is None))
        elif coordinator.away or not self.coordinators:
            self.tell(Disconnected(f"no coordinator answers at {URL}", 1.0))
        else:
            if self._enrol is not None:
                coordinator.enrol(self._node, self._enrol.name)
                self.enrolled = True
            now_s = coordinator.now_s()
            self.tell(Connected(URL, now_s, 0.0, "192.0.2.99", 60.0))
            self.tell(UpdateReceived(coordinator.whole()))
            coordinator.links.append(self)

    def tell(self, event: Event) -> None:
        self.waiting.append(event)
        self._events.put_nowait(event)

    def take(self) -> list[Event]:
        taken, self.waiting = self.waiting, []
        return taken

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event

    def publish(self, record: Verified[NodeRecord]) -> None:
        if self in self.coordinator.links and not self.coordinator.away:
            self.records.append(record.document)
            self.coordinator.put(record)
            self.tell(Published(record.document.version))

    def report(self, report: messages.Report) -> None:
        messages.pack(report)
        self.reports.append(report)

    def signal(self, to: bytes, data: bytes) -> bool:
        """The coordinator hands it on at once."""
        if self not in self.coordinator.links or self.coordinator.away:
            return False
        for link in self.coordinator.links:
            if link._node.raw == to:
                link.tell(SignalReceived(self._node.raw, data))
        return True

    def retry_now(self) -> None:
        self.retries += 1

    async def leave(self) -> None:
        if self.coordinator.away:
            raise Unreachable("the coordinator does not answer now")
        self.left = True
        self._events.put_nowait(None)

    async def __aenter__(self) -> Self:
        self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self in self.coordinator.links:
            self.coordinator.links.remove(self)


class FakePlane(MemoryEngine):
    """An engine in memory whose interface is in its host's netlink as long as it runs."""

    def __init__(self, network: MemoryNetwork, interface: str, ip: str, netlink: MemoryNetlink) -> None:
        super().__init__(network, interface, ip)
        self.netlink = netlink
        self.ended = asyncio.Event()
        self.ours = True
        self.starts = 0

    async def statistics(self) -> dict[str, int]:
        return dict(await super().statistics()) if self.ours else {}

    async def close(self) -> None:
        await super().close()
        await self.netlink.remove_link(self.interface)
        self.ended.set()

    async def wait_closed(self) -> None:
        await self.ended.wait()


class FakeAlarm:
    """An alarm of the network's clock: it rings while time passes there."""

    def __init__(self, network: MemoryNetwork, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._network = network
        self._at: float | None = None
        network.bind(self, (ip_address("127.0.0.1"),), 0)

    def set(self, at: float | None) -> None:
        self._at = at

    def next_deadline(self) -> float | None:
        return self._at

    def handle_timeout(self) -> None:
        if self._at is not None and self._at <= self._network.now:
            self._at = None
            self._ring()

    def receive(self, train: Train) -> None:
        raise AssertionError("nobody sends to a clock")


class FakeNames:
    def __init__(self) -> None:
        self.served: dict[str, list[str]] = {}
        self.refusal: str | None = None

    async def serve(
        self, interface: str, addresses: Sequence[IPAddress], spec: NetworkSpec, members: Sequence[Member]
    ) -> None:
        if self.refusal is not None:
            raise OperationFailed(self.refusal)
        self.served[interface] = sorted(member.name for member in members)

    async def stop(self, interface: str) -> None:
        self.served.pop(interface, None)


class FailingNft(MemoryNft):
    """Refuses documents with ``forbidden`` in them."""

    forbidden: str | None = None

    def run(self, document):  # type: ignore[no-untyped-def]
        document = list(document)
        if self.forbidden is not None and self.forbidden in repr(document):
            raise OperationFailed("nftables refuses the rules: as the test wants it")
        return super().run(document)


class FakeHost:
    """A machine: kernel, disk and agent. The engines of all machines meet in ``underlay``."""

    def __init__(self, underlay: MemoryNetwork, directory: Path, ip: str, config: AgentConfig | None = None) -> None:
        self.underlay = underlay
        self.directory = directory
        self.ip = ip
        self.config = config or AgentConfig()
        self.netlink = MemoryNetlink()
        self.netlink.add_link("eth0", 1500, "veth")
        self.nft = FailingNft()
        self.sysctls = MemorySysctls({"net/ipv4/ip_forward": "0", "net/ipv6/conf/all/forwarding": "0"})
        self.names = FakeNames()
        self.planes: dict[str, FakePlane] = {}
        self.failing_starts = 0
        self.wall_offset_s = 0.0
        self.nat64: IPv6Network | None = None
        self.boot = "boot 1"
        self.inside = self.netlink
        self.choice = Choice("userspace", "the test has it so")
        self.helper_trouble = ""
        self.open_link: Callable[..., FakeLink] | None = None
        self.doors = Doors()

    def be_rootless(self) -> None:
        """From now on the engine's interfaces are in a network of their own."""
        self.inside = MemoryNetlink()
        self.choice = Choice("rootless", "the test has it so")

    async def plug(self) -> Self:
        await self.netlink.set_link("eth0", up=True)
        await self.netlink.add_address(Address("eth0", ip_interface(f"{self.ip}/{24 if '.' in self.ip else 64}")))
        return self

    # Engines

    async def start(self, interface: str, mtu: int) -> FakePlane:
        if self.failing_starts:
            self.failing_starts -= 1
            raise OperationFailed("the data plane did not start")
        assert interface not in self.planes or self.planes[interface].ended.is_set()
        self.inside.add_link(interface, mtu)
        self.planes[interface] = FakePlane(self.underlay, interface, self.ip, self.inside)
        return self.planes[interface]

    async def attach(self, interface: str) -> FakePlane:
        plane = self.planes.get(interface)
        if plane is None or plane.ended.is_set():
            raise Unreachable(f"no data plane answers for interface {interface}")
        return plane

    async def find_nat64(self) -> IPv6Network | None:
        return self.nat64

    def wall_s(self) -> float:
        return self.underlay.wall_clock_ns() / 1e9 + self.wall_offset_s

    def world(self) -> World:
        assert self.open_link is not None
        return World(
            netlink=self.netlink,
            inside=self.inside,
            nft=self.nft,
            sysctls=self.sysctls,
            overlay=HostSockets(),
            engines=self,
            open_link=self.open_link,
            names=self.names,
            find_nat64=self.find_nat64,
            boot=self.boot,
            choice=self.choice,
            helper_trouble=lambda: self.helper_trouble,
            clock=lambda: self.underlay.now,
            wall_clock=self.wall_s,
            random=random.Random(self.ip),
            urandom=random.Random(f"bytes of {self.ip}").randbytes,
            alarm=lambda ring: FakeAlarm(self.underlay, ring),
        )

    def shared(self) -> Shared:
        keys = KeyStore.open(self.directory / "keys", random=random.Random(f"keys of {self.ip}").randbytes)
        return Shared(self.world(), keys, self.directory, self.config)

    def agent(self) -> Agent:
        return Agent(self.shared(), load_config=lambda: self.config, doors=self.doors)


class FakeNode:
    """One network of one machine, turned by hand."""

    def __init__(
        self, host: FakeHost, coordinator: FakeCoordinator, name: str, *, shared: Shared | None = None, new: bool = True
    ) -> None:
        self.host = host
        self.coordinator = coordinator
        host.open_link = coordinator.open_link
        self.shared = shared or host.shared()
        enrolment = Enrolment(coordinator.name, coordinator.coordinators, EnrolRequest(bytes(16), name))
        state = NetworkState(host.directory, coordinator.key)
        self.runner = NetworkRunner(coordinator.key, self.shared, state, enrolment if new else None)
        self.key = self.shared.keys.node_key(coordinator.key).verify_key
        self.link = FakeLink(coordinator, self.key, coordinator.coordinators, enrolment.request if new else None)
        self.runner.use_link(self.link)

    @property
    def plane(self) -> FakePlane:
        return self.host.planes[self.runner.situation.interface]

    async def turn(self) -> float:
        for event in self.link.take():
            self.runner.note(event)
        pause = await self.runner.turn()
        await self.rest()
        return pause

    async def rest(self) -> None:
        """Let what was begun go on."""
        for _ in range(8):
            await asyncio.sleep(0)

    async def kill(self) -> None:
        """As kill -9: nothing is cleaned up, the data plane goes on."""
        if self.link in self.coordinator.links:
            self.coordinator.links.remove(self.link)
        await self.runner.let_go()

    async def end(self) -> None:
        assert await self.runner.remove() == []


async def settle(*nodes: FakeNode, turns: int = 4) -> None:
    for _ in range(turns):
        for node in nodes:
            await node.turn()


async def pass_time(underlay: MemoryNetwork, seconds: float, *nodes: FakeNode, step: float = 1.0) -> None:
    """Let time pass with a turn of every node each ``step`` seconds."""
    for _ in range(round(seconds / step)):
        underlay.advance(step)
        for node in nodes:
            await node.turn()


def replace_struct(struct, **changes):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(struct, **changes)
