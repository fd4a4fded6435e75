"""A keeper of streams that runs, and all around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

from tests.unit.agent.fakes import signing_key
from tests.unit.agent.streams.fakes import FakeProcess, FakeWeb
from warren.agent.streams.config import StreamConfig
from warren.agent.streams.directory import Directory, NetworkView
from warren.agent.streams.doors import Doors
from warren.agent.streams.forward_commands import Forwards
from warren.agent.streams.forward_store import ForwardStore
from warren.agent.streams.keeper import StreamKeeper
from warren.agent.streams.order import Nearness
from warren.errors import OperationFailed
from warren.ingress.sites import Settings
from warren.model.services import Connector, Service
from warren.model.tunnel import IPAddress
from warren.proto.control.messages import Task

WEB = Service(name="web", at=("members",), target="localhost:8080", port=80)
SHOP = Connector(name="shop", at=("member:me",), service="web", kind="http", domains=("shop.example.org",))
HERE = ip_address("8.8.8.8")


class FakeNetwork:
    """What the keeper sees of a network."""

    def __init__(self, made: NetworkView) -> None:
        directory = made.directory
        self.network = signing_key(f"authority of {directory.network}").verify_key
        self.name = directory.network
        self.interface = "w-home"
        self.directory: Directory | None = directory
        self.settled = True
        self.tasks: tuple[Task, ...] = ()

    def see(self, made: NetworkView) -> None:
        self.directory = made.directory

    def nearness(self, node: bytes) -> Nearness:
        return Nearness()

    def own_ips(self) -> tuple[IPAddress, ...]:
        return (HERE,)

    def tell_tasks(self, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks


class World:
    """A keeper that runs, and all around it."""

    def __init__(self, directory: Path, *networks: FakeNetwork) -> None:
        self.directory = directory
        self.networks = list(networks)
        self.config = StreamConfig()
        self.processes: list[FakeProcess] = []
        self.webs: list[FakeWeb] = []
        self.make_web = FakeWeb
        self.now = 0.0
        self.broken = ""
        self.starting = False
        self.leads_to = HERE
        doors = Doors(self._open, self._web, self._resolve)
        self.keeper = StreamKeeper(
            directory,
            directory,
            networks=lambda: self.networks,
            starting=lambda: self.starting,
            config=lambda: self.config,
            resolve_name=lambda _: ("fd00::1",),
            doors=doors,
            clock=lambda: self.now,
        )
        self.forwards = Forwards(self.keeper, ForwardStore(directory), lambda: self.config)

    @property
    def process(self) -> FakeProcess:
        return self.processes[-1]

    async def _open(self, run: Path, nest: Path | None) -> FakeProcess:
        if self.broken:
            raise OperationFailed(self.broken)
        self.processes.append(FakeProcess())
        return self.processes[-1]

    def _web(self, settings: Settings, lookup: Path) -> FakeWeb:
        self.webs.append(self.make_web(settings))
        return self.webs[-1]

    async def _resolve(self, hosts: Sequence[str]) -> Sequence[IPAddress]:
        return (self.leads_to,)

    def ids(self) -> list[str]:
        return [one.id for one in self.process.config.entries]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    world.forwards.load()
    task = asyncio.create_task(world.keeper.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.keeper.let_go()
