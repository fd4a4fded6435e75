"""A host with an agent, and networks that it may join."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.unit.agent.fakes import FakeCoordinator, FakeHost, FakeLink
from warren.agent.agent import Agent
from warren.engine.memory import MemoryNetwork


class Machine:
    """A host with an agent, and networks that it may join."""

    def __init__(self, tmp_path: Path, *coordinators: FakeCoordinator) -> None:
        self.underlay = MemoryNetwork(random.Random(1).randbytes)
        self.host = FakeHost(self.underlay, tmp_path / "state", "192.0.2.10")
        self.links: list[FakeLink] = []
        by_key = {coordinator.key: coordinator for coordinator in coordinators}

        def open_link(**arguments: object) -> FakeLink:
            link = by_key[arguments["network"]].open_link(**arguments)  # type: ignore[index, arg-type]
            self.links.append(link)
            return link

        self.host.open_link = open_link

    async def start(self) -> Agent:
        await self.host.plug() if not await self.host.netlink.addresses() else None
        self.agent = self.host.agent()
        self.work = asyncio.create_task(self.agent.run())
        return self.agent

    async def stop(self) -> None:
        self.agent.stop()
        await self.work


def scenario(work: Callable[[Machine, Agent], Awaitable[None]], tmp_path: Path, *coordinators: FakeCoordinator) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, *coordinators)
        await work(machine, await machine.start())
        await machine.stop()

    asyncio.run(main())
