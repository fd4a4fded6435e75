"""The in-memory engine passes the conformance suite, and its clock is the test's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.support.engine_conformance import SCENARIOS, Forward, Scenario, pair
from tests.support.engine_listening import LISTENING_SCENARIOS
from tests.support.packets import udp_packet
from warren.engine.base import Engine
from warren.engine.memory import MemoryEngine, MemoryNetwork
from warren.model.tunnel import TransportAddress


class MemoryBench:
    """All engines at one address, told apart by port, as on one host."""

    def __init__(self, seed: int = 1) -> None:
        self.network = MemoryNetwork(random.Random(seed).randbytes)

    async def engine(self, name: str) -> Engine:
        return MemoryEngine(self.network, f"mem-{name}", "192.0.2.1")

    async def address(self, engine: Engine) -> TransportAddress:
        assert isinstance(engine, MemoryEngine)
        return engine.address

    async def inject(self, engine: Engine, packet: bytes) -> None:
        assert isinstance(engine, MemoryEngine)
        engine.inject(packet)

    async def expect(self, engine: Engine, packet: bytes) -> None:
        assert isinstance(engine, MemoryEngine)
        assert engine.delivered == [packet]
        engine.delivered.clear()

    async def until(self, true: Callable[[], bool]) -> None:
        assert true()

    async def relay(self, forward: Forward) -> TransportAddress:
        address = TransportAddress(ip_address("192.0.2.99"), 3478)

        def receive(data: bytes, source: TransportAddress, _: TransportAddress) -> None:
            for answer, destination in forward(data, source):
                self.network.send(address, destination, answer)

        self.network.host(address, receive)
        return address


@pytest.mark.parametrize("scenario", SCENARIOS + LISTENING_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_memory_engine_conforms(scenario: Scenario) -> None:
    asyncio.run(scenario(MemoryBench()))  # type: ignore[arg-type]


def test_a_session_is_renewed_while_hours_pass_in_a_moment() -> None:
    async def hours() -> None:
        bench = MemoryBench()
        a, b = await pair(bench)
        for number in range(120):
            packet = udp_packet("10.77.0.1", "10.77.0.2", b"minute %d" % number)
            await bench.inject(a, packet)
            await bench.expect(b, packet)
            bench.network.advance(60.0)
        # 120 s after each handshake the next is due: two hours of steady traffic need about sixty.
        assert 40 <= (await a.statistics())["handshakes_completed"] <= 61

    asyncio.run(hours())
