"""A forward of UDP on this host's loopback, with clients and backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.support.l4_parties import Party
from tests.support.l4_tools import FakeTools
from warren.l4.config import Backend, Entry, Listen, Way
from warren.l4.datagrams import DatagramEntry

V4, V6 = "127.0.0.1", "::1"


class Peer(Party):
    """A client or a backend."""

    async def receive(self) -> tuple[bytes, Any]:
        data, source = await self.hear()
        return data, source[:2]

    async def answer(self, data: bytes = b"answer") -> bytes:
        """Answer the next datagram; what was in it."""
        asked, source = await self.receive()
        await self.send(data, source)
        return asked


def to(*peers: Peer, **more: Any) -> Way:
    backends = tuple(Backend(name=f"b{n}", side="host", host=p.place[0], port=p.place[1]) for n, p in enumerate(peers))
    return Way(backends=backends, **more)


def entry_of(way: Way, *, listen: tuple[Listen, ...] = (Listen(protocol="udp", address=V4),), **more: Any) -> Entry:
    return Entry(id="forward", listen=listen, way=way, **more)


class Running:
    def __init__(self, entry: DatagramEntry, tools: FakeTools) -> None:
        self.entry, self.tools = entry, tools

    @property
    def place(self) -> Any:
        return self.at(0)

    def at(self, number: int) -> Any:
        host, _, port = self.entry.state().places[number].rpartition(":")
        return host.strip("[]"), int(port)


@asynccontextmanager
async def running(entry: Entry, tools: FakeTools | None = None) -> AsyncIterator[Running]:
    tools = tools or FakeTools()
    made = DatagramEntry(entry, tools)
    await made.open()
    try:
        yield Running(made, tools)
    finally:
        await made.close()
    assert tools.open == 0
    assert made.room.used == 0
    assert len(made.table) == 0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        before = set(asyncio.all_tasks())
        await test()
        await asyncio.sleep(0)
        assert set(asyncio.all_tasks()) <= before

    asyncio.run(whole())
