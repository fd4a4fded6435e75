"""A network as streams see it: this node is ``me``, others are by name; and a stream process and a Caddy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path

from tests.unit.agent.fakes import EPOCH_S, signing_key
from warren.agent.streams.config import StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.directory import Directory, NetworkView
from warren.agent.streams.entries import Streams, Wishes, streams
from warren.agent.streams.order import Class, Nearness
from warren.errors import OperationFailed, Unreachable
from warren.ingress.sites import Ports, Settings, Site
from warren.l4.config import Config, Entry, EntryState, Status
from warren.l4.kinds import Judge
from warren.model.addresses import node_prefix, ula_prefix
from warren.model.documents import Coordinator, Membership, NetworkSpec, Rule
from warren.model.members import Member
from warren.model.policy import DEFAULT_POLICY
from warren.model.services import Connector, Service

RUN = Path("/run/warren")


def member(
    name: str, index: int, *, network: str = "home", routes: tuple[str, ...] = (), tags: tuple[str, ...] = ()
) -> Member:
    authority = signing_key(f"authority of {network}").verify_key
    return Member(
        Membership(
            network=authority.raw,
            version=1,
            node=signing_key(name).verify_key.raw,
            name=name,
            prefix6=str(node_prefix(ula_prefix(authority), index)),
            address4=f"10.77.0.{index}",
            tags=tags,
            routes=routes,
            not_before=EPOCH_S,
            not_after=EPOCH_S + 3600,
        )
    )


def view(
    *services: Service,
    connectors: Sequence[Connector] = (),
    policy: tuple[Rule, ...] = DEFAULT_POLICY,
    near: Mapping[str, Nearness] | None = None,
    network: str = "home",
    state: str = "up",
    transparent_port: int = 0,
) -> NetworkView:
    """``me``, ``bob`` and ``carol``, behind whom is 192.0.2.0/24."""
    authority = signing_key(f"authority of {network}").verify_key
    spec = NetworkSpec(
        network=authority.raw,
        version=1,
        name=network,
        prefix6=str(ula_prefix(authority)),
        prefix4="10.77.0.0/16",
        policy=policy,
        coordinators=(Coordinator(url="https://c.example", key=signing_key("coordinator").verify_key.raw),),
        services=services,
        connectors=tuple(connectors),
    )
    me = member("me", 1, network=network, tags=("gate",), routes=("198.51.100.0/24",) if transparent_port else ())
    others = (
        member("bob", 2, network=network),
        member("carol", 3, network=network, routes=("192.0.2.0/24",)),
    )
    peers = {one.membership.node: (*one.own, *map(ip_network, one.membership.routes)) for one in others}
    live = (me, *others) if state == "up" else ()
    directory = Directory(network, state, spec, me, live, peers if live else {})  # type: ignore[arg-type]
    names = {one.membership.node: one.name for one in (me, *others)}

    def nearness(node: bytes) -> Nearness:
        usual = Nearness(Class.SELF) if names[node] == "me" else Nearness(Class.DIRECT, 10.0)
        return (near or {}).get(names[node], usual)

    return NetworkView(network, directory, nearness, "w-home", transparent_port)


def worked_out(
    *views: NetworkView, wishes: Wishes | None = None, around: Surroundings | None = None, **config: object
) -> Streams:
    """What comes of it; ``config``: of :class:`StreamConfig`."""
    wanted = wishes or Wishes(StreamConfig(**config))  # type: ignore[arg-type]
    where = around or Surroundings(run=RUN / "sites", gateway=wanted.config.gateway)
    return streams(views, wanted, where, {})


def entry(found: Streams, name: str) -> Entry:
    (one,) = [one for one in found.config.entries if one.id == name]
    return one


def problem(found: Streams, name: str) -> str:
    (one,) = [one for one in found.items if one.id == name]
    return one.problem


class FakeProcess:
    """A stream process; ``refuses`` are reasons by id of entries that cannot listen."""

    def __init__(self) -> None:
        self.resolver: Callable[[str], Sequence[str]] = lambda _: ()
        self.judge: Judge = lambda *_: None
        self.changed = asyncio.Event()
        self.configs: list[Config] = []
        self.refuses: dict[str, str] = {}
        self.failure = ""
        self.ended = asyncio.Event()
        self.closed = False
        self.asked = 0

    @property
    def config(self) -> Config:
        return self.configs[-1]

    async def configure(self, config: Config) -> Status:
        if self.ended.is_set():
            raise Unreachable("the stream process has just ended")
        if self.failure:
            raise OperationFailed(self.failure)
        self.configs.append(config)
        return self._status()

    async def status(self) -> Status:
        self.asked += 1
        return self._status()

    def _status(self) -> Status:
        return Status(entries=tuple(self._state(one.id) for one in self.config.entries))

    def _state(self, name: str) -> EntryState:
        if name in self.refuses:
            return EntryState(id=name, state="failed", reason=self.refuses[name])
        return EntryState(id=name, state="listening", places=("somewhere",), opened=3)

    async def wait_closed(self) -> None:
        await self.ended.wait()

    async def close(self) -> None:
        self.closed = True
        self.ended.set()

    async def detach(self) -> None:
        pass


class FakeWeb:
    """A Caddy."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.changed = asyncio.Event()
        self.ports: Ports | None = None
        self.sites: tuple[Site, ...] = ()
        self.failure = ""
        self.troubles: dict[str, str] = {}
        self.closed = False
        self.gone = False

    async def find(self) -> Ports | None:
        return self.ports

    async def ready(self) -> Ports:
        if self.failure:
            raise OperationFailed(self.failure)
        self.ports = Ports(8080, 8443)
        return self.ports

    async def keep(self, sites: Sequence[Site]) -> Ports | None:
        if self.failure:
            raise OperationFailed(self.failure)
        self.sites = tuple(sites)
        self.ports = Ports(8080, 8443) if sites else None
        return self.ports

    def problems(self) -> Mapping[str, str]:
        return self.troubles

    async def close(self) -> None:
        self.closed = True

    async def let_go(self) -> None:
        self.gone = True
