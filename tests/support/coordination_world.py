"""The simulation's world: one coordinator that may be killed, its nodes, the connections between, one virtual clock.

Everything is the real code but for the web server, TLS and time: the service over a store in memory, its sessions, the
nodes' sessions and maps. A connection is a stream in each direction; what is under way when it breaks is lost from
some point on, as TCP loses it. asyncio only takes turns here: nothing waits for real time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.support.coordination_node import SimNode
from tests.support.coordination_store import FragileStore
from warren.coordinator.problems import Problem
from warren.coordinator.service import Options, Service, SessionToken
from warren.coordinator.store_memory import MemoryStore
from warren.coordinator.wakes import Wake
from warren.proto.control.server import ServerSession, State
from warren.proto.control.server_events import (
    AuthenticateWanted,
    Ended,
    EnrolWanted,
    Event,
    LeaveWanted,
    PublishWanted,
    Reported,
    SignalWanted,
)

CERTIFICATE = bytes(32)
QUARANTINE_S, GRACE_S = 200.0, 100.0
_TURNS_MAX = 10_000

T = TypeVar("T")


@dataclass
class Outcome(Generic[T]):
    """How a request of an administrator ended: answered, refused, or nobody knows."""

    value: T | None = None
    problem: Problem | None = None
    lost: bool = False


@dataclass(eq=False)
class Wire:
    """A connection."""

    node: SimNode
    server: ServerSession
    token: SessionToken | None = None
    to_node: deque[bytes] = field(default_factory=deque)
    to_coordinator: deque[bytes] = field(default_factory=deque)
    behind: bool = False
    sending: asyncio.Task[None] | None = None


class World:
    """Use inside a running loop; single owner."""

    def __init__(self, chance: random.Random) -> None:
        self.now = 1_000_000.0
        self.chance = chance
        self.disk = MemoryStore()
        self.nodes: list[SimNode] = []
        self.wires: list[Wire] = []
        self.crashes = 0
        self._store: FragileStore | None = None
        self._service: Service | None = None
        self._driver = asyncio.current_task()
        self._listening: asyncio.Task[None] | None = None

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def store(self) -> FragileStore:
        assert self._store is not None
        return self._store

    @property
    def is_up(self) -> bool:
        return self._service is not None

    # The coordinator's process

    async def start(self) -> None:
        """Raises nothing: a process that is killed while it starts is not up afterwards."""
        self._store = FragileStore(self.disk)
        self._service = Service(
            self._store,
            urls=("https://coordinator.example",),
            wall_clock=lambda: self.now,
            random=self.chance.randbytes,
            options=Options(quarantine_s=QUARANTINE_S, ephemeral_grace_s=GRACE_S),
        )
        if not (await self.ask(self._service.start())).lost:
            self._listening = self._begin(self._listen(self._service))
            await self.turns()

    async def kill(self) -> None:
        """The process is gone, with everything in it; connections break."""
        self.crashes += 1
        self._service = self._store = None
        tasks = [task for task in asyncio.all_tasks() if task is not self._driver]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wire in list(self.wires):
            self.cut(wire)

    async def ask(self, question: Awaitable[T]) -> Outcome[T]:
        """Ask the service, and see what becomes of it when the process is killed meanwhile."""
        store = self.store
        asking = asyncio.ensure_future(question)
        crashing = asyncio.ensure_future(store.crashed.wait())
        await asyncio.wait({asking, crashing}, return_when=asyncio.FIRST_COMPLETED)
        crashing.cancel()
        try:
            if not asking.done():
                await self.kill()
                return Outcome(lost=True)
            return Outcome(value=asking.result())
        except Problem as problem:
            return Outcome(problem=problem)

    # Connections

    def connect(self, node: SimNode) -> None:
        """The node connects, if it can; what it had before is cut."""
        for wire in [wire for wire in self.wires if wire.node is node]:
            self.cut(wire)
        if not self.is_up or node.partitioned or not (node.is_member or node.enrol):
            return
        server = ServerSession(
            nonce=self.chance.randbytes(32), certificate_sha256=CERTIFICATE, time_s=self.now, now=self.now
        )
        node.connect(CERTIFICATE, self.now)
        self.wires.append(Wire(node, server))

    def cut(self, wire: Wire) -> None:
        """Break a connection; of what is under way a part may still arrive."""
        for _ in range(self.chance.randint(0, len(wire.to_node))):
            self._to_node(wire)
        if wire in self.wires:
            self.wires.remove(wire)
        if wire.node.session is not None:
            wire.node.session.end("the connection was lost")
            self._heed(wire.node)
        wire.server.end("the connection was lost")
        if self.is_up and wire.token is not None:
            wire.sending = self._begin(self._depart(self.service, wire.token))

    async def move(self, share: float = 1.0) -> None:
        """Carry messages both ways, each with the chance ``share``, and let everybody act on them."""
        for wire in list(self.wires):
            if wire not in self.wires or wire.node.partitioned:
                continue
            if wire.node.session is None:
                self.cut(wire)
            else:
                wire.to_coordinator.extend(wire.node.session.take_transmits())
            wire.to_node.extend(wire.server.take_transmits())
            while wire.to_coordinator and self.chance.random() < share:
                wire.server.receive(wire.to_coordinator.popleft(), self.now)
            self._serve(wire)
            while wire.to_node and self.chance.random() < share:
                self._to_node(wire)
            if wire.server.state is State.ENDED and not wire.to_node and not wire.server.pending_bytes:
                self.cut(wire)
        await self.turns()

    async def settle(self) -> None:
        """Until nothing is under way but for partitioned nodes."""
        for _ in range(200):
            await self.move()
            if not self.is_up or not any(self._is_busy(wire) for wire in self.wires if not wire.node.partitioned):
                return
        raise AssertionError("the coordinator and its nodes never fall silent")

    async def turns(self) -> None:
        """Let the coordinator's tasks run until they all wait; kills it when its store says so."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        for _ in range(_TURNS_MAX):
            await asyncio.sleep(0)
            if self._store is not None and self._store.crashed.is_set():
                await self.kill()
                return
            if not ready:
                return
        raise AssertionError("the coordinator's tasks never come to rest")

    def _is_busy(self, wire: Wire) -> bool:
        session = wire.node.session
        return bool(
            wire.to_node
            or wire.to_coordinator
            or wire.behind
            or wire.server.pending_bytes
            or (wire.sending is not None and not wire.sending.done())
            or wire.server.state in {State.DECIDING, State.LEAVING, State.ENDED}
            or session is None
            or session.state.name in {"WAITING", "PROVING"}
        )

    def _to_node(self, wire: Wire) -> None:
        if wire.node.session is not None:
            wire.node.session.receive(wire.to_node.popleft(), self.now)
            self._heed(wire.node)
        else:
            wire.to_node.clear()

    def _heed(self, node: SimNode) -> None:
        if node.session is not None:
            for event in node.session.take_events():
                node.heed(event)

    # What the web server does

    def _serve(self, wire: Wire) -> None:
        events = wire.server.take_events()
        if events and self.is_up:
            before = wire.sending
            wire.sending = self._begin(self._heed_all(self.service, wire, events, before))

    async def _heed_all(
        self, service: Service, wire: Wire, events: list[Event], before: asyncio.Task[None] | None
    ) -> None:
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        for event in events:
            try:
                await self._heed_one(service, wire, event)
            except Problem as problem:
                self._refuse(wire, problem)

    async def _heed_one(self, service: Service, wire: Wire, event: Event) -> None:
        network, node = wire.server.network, wire.server.node
        match event:
            case AuthenticateWanted() | EnrolWanted():
                if isinstance(event, EnrolWanted):
                    await service.enrol(network, node, event.secret, event.name)
                else:
                    await service.admit(network, node)
                wire.token = await service.connected(network, node, "192.0.2.9")
                if not wire.server.accept(observed="192.0.2.9", time_s=self.now):
                    await service.disconnected(wire.token)
                await self._catch_up(service, wire)
            case PublishWanted(record):
                wire.server.published(await service.publish(network, node, record))
            case Reported(report):
                await service.report(network, node, report)
            case SignalWanted(to, data):
                if not await service.send_signal(network, node, to, data):
                    wire.server.undeliverable(to)
            case LeaveWanted():
                await service.leave(network, node)
                wire.server.end("the node has left")
            case Ended():
                pass

    async def _catch_up(self, service: Service, wire: Wire) -> None:
        wire.behind = False
        try:
            for part in await service.packed_updates_since(wire.server.network, wire.server.since):
                wire.server.update(part.head, part.message)
        except Problem as problem:
            self._refuse(wire, problem)

    async def _listen(self, service: Service) -> None:
        async with service.watch() as wakes:
            async for wake in wakes:
                for wire in [wire for wire in self.wires if wire.token is not None]:
                    await self._wake(service, wire, wake)

    async def _wake(self, service: Service, wire: Wire, wake: Wake) -> None:
        if wake.node is not None and wake.node != wire.server.node:
            return
        if wake.ended is not None:
            if wake.session is None or (wire.token is not None and wake.session == wire.token.id):
                self._refuse(wire, wake.ended)
        elif wake.signal is not None:
            wire.server.signal(wake.signal.node, wake.signal.data)
        elif wire.server.state is State.OPEN:
            await self._catch_up(service, wire)

    @staticmethod
    def _refuse(wire: Wire, problem: Problem) -> None:
        said = problem.refused()
        wire.server.refuse(said.kind, said.title, said.detail, said.remedy, said.retry_after_s)

    @staticmethod
    async def _depart(service: Service, token: SessionToken) -> None:
        with contextlib.suppress(Problem):  # the database is away: the next start clears it up
            await service.disconnected(token)

    def _begin(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(_run(work))
        task.add_done_callback(_raise_bugs)
        return task


async def _run(work: Awaitable[None]) -> None:
    await work


def _raise_bugs(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
