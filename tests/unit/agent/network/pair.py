"""Two nodes of one network, over doors in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.packets import udp_packet
from tests.unit.agent.fakes import (
    FakeCoordinator,
    FakeHost,
    FakeNode,
    pass_time,
    settle,
)
from warren.agent.config import AgentConfig
from warren.engine.memory import MemoryNetwork
from warren.linux.nft import Table


class Pair:
    """Two nodes of one network that have joined."""

    def __init__(self, tmp_path: Path, config: AgentConfig | None = None) -> None:
        self.underlay = MemoryNetwork(random.Random(1).randbytes)
        self.coordinator = FakeCoordinator()
        self.coordinator.now_s = lambda: self.underlay.wall_clock_ns() / 1e9
        self.tmp_path = tmp_path
        self.config = config

    async def start(self) -> Pair:
        self.a = await self.node("a", "192.0.2.10")
        self.b = await self.node("b", "192.0.2.11")
        await settle(self.a, self.b)
        await pass_time(self.underlay, 3, self.a, self.b)
        return self

    async def node(self, name: str, ip: str) -> FakeNode:
        host = await FakeHost(self.underlay, self.tmp_path / name, ip, self.config).plug()
        node = FakeNode(host, self.coordinator, name)
        node.link.connect()
        return node

    async def again(self, node: FakeNode, *, connect: bool = True) -> FakeNode:
        """The agent of ``node`` was killed and starts again."""
        await node.kill()
        fresh = FakeNode(node.host, self.coordinator, "", new=False)
        if connect:
            fresh.link.connect()
        return fresh

    async def time(self, seconds: float, step: float = 1.0) -> None:
        await pass_time(self.underlay, seconds, self.a, self.b, step=step)

    async def passes(self, sender: FakeNode, receiver: FakeNode) -> bool:
        """Whether a packet gets from one to the other within a second, with paths found on the way."""
        mine, theirs = sender.runner.situation.own, receiver.runner.situation.own
        assert mine is not None
        assert theirs is not None
        receiver.plane.delivered.clear()
        packet = udp_packet(str(mine.address6), str(theirs.address6), b"hello")
        sender.plane.inject(packet)
        for _ in range(20):
            if receiver.plane.delivered:
                break
            await self.a.rest()
            self.underlay.advance(0.05)
        return receiver.plane.delivered == [packet]

    async def end(self) -> None:
        for node in (self.a, self.b):
            await node.end()


def scenario(work: Callable[[Pair], Awaitable[None]], tmp_path: Path, config: AgentConfig | None = None) -> None:
    """Run ``work`` with two members, and take them down afterwards."""

    async def main() -> None:
        pair = await Pair(tmp_path, config).start()
        await work(pair)
        await pair.end()

    asyncio.run(main())


def table_of(node: FakeNode) -> Table:
    return Table("inet", f"warren-{node.runner.situation.interface}")
