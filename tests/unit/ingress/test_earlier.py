"""Which process of Caddy goes when there are too many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warren.ingress import earlier
from warren.ingress.earlier import Earlier
from warren.ingress.sites import Ports


class FakeLookup:
    """Says how many clients a port has WebSockets of."""

    def __init__(self, clients: dict[int, int | None]) -> None:
        self.clients = clients

    async def websockets(self, ports: Ports) -> int | None:
        return self.clients[ports.http]


class FakeGeneration:
    pid, finishes = 1, False

    def __init__(self, number: int) -> None:
        self.number = number
        self.ports = Ports(number, 100 + number)
        self.closed = self.left = False

    def leave(self) -> None:
        self.left = True

    async def ended(self, within_s: float) -> bool:
        await asyncio.Event().wait()
        return True

    async def let_go(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("clients", "ends"),
    [
        ({1: 5, 2: 1, 3: 1, 4: 1}, [2]),  # one client is everywhere, and five only at the first
        ({1: 2, 2: 2, 3: 2, 4: 2}, [1]),
        ({1: 3, 2: 3, 3: 3, 4: 1}, [4]),
        ({1: None, 2: None, 3: None, 4: None}, [1]),
        ({1: 5, 2: 5, 3: 5}, []),
    ],
)
def test_of_too_many_the_one_goes_that_the_fewest_clients_would_miss(
    clients: dict[int, int | None], ends: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        lookup: Any = FakeLookup(clients)
        kept = Earlier(lookup)
        generations = [FakeGeneration(number) for number in clients]
        for one in generations:
            await kept.add(one)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while len(kept) > earlier.EARLIER_MAX:
                await asyncio.sleep(0)
        assert [one.number for one in generations if one.closed] == ends
        assert all(one.left for one in generations)
        await kept.let_go()

    asyncio.run(scene())
    assert caplog.text.count("there are too many, or too old") == len(ends)
