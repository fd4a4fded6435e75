"""One network of a node, over doors in memory: joining, keeping, being killed, rotating, being revoked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.packets import udp_packet
from tests.unit.agent.fakes import FakeCoordinator, FakeHost, FakeNode, pass_time, settle
from warren.agent.config import AgentConfig
from warren.engine.memory import MemoryNetwork


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


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

    def passes(self, sender: FakeNode, receiver: FakeNode) -> bool:
        """Whether a packet gets from one to the other."""
        mine, theirs = (node.runner.own for node in (sender, receiver))
        assert mine is not None and theirs is not None
        receiver.plane.delivered.clear()
        packet = udp_packet(str(mine.address6), str(theirs.address6), b"hello")
        sender.plane.inject(packet)
        return receiver.plane.delivered == [packet]

    async def end(self) -> None:
        for node in (self.a, self.b):
            await node.end()


def test_two_nodes_join_and_reach_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        pair = await Pair(tmp_path).start()
        assert pair.a.runner.joined.result().name == "a"
        assert pair.passes(pair.a, pair.b)
        assert pair.passes(pair.b, pair.a)
        await pair.end()

    run(main())
