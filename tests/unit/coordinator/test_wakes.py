"""Wakes: nobody misses one, and whoever is slow does not make others wait or memory grow."""

from __future__ import annotations

import asyncio

from warren.coordinator.problems import Problem
from warren.coordinator.wakes import SIGNALS_MAX, Hub, Wake
from warren.proto.control.messages import Signal

NETWORK, NODE = bytes(32), bytes(range(32))


def test_a_slow_listener_hears_of_the_newest_revision_once_and_of_endings_first() -> None:
    async def main() -> list[Wake]:
        hub = Hub()
        heard = []
        async with hub.watch() as wakes:
            for revision in range(1, 1001):
                hub.publish(Wake(network=NETWORK, revision=revision))
            for i in range(SIGNALS_MAX + 5):
                hub.publish(Wake(network=NETWORK, node=NODE, signal=Signal(node=NODE, data=i.to_bytes(4))))
            hub.publish(Wake(network=NETWORK, node=NODE, ended=Problem("revoked")))
            heard += [await anext(wakes) for _ in range(SIGNALS_MAX + 2)]
            hub.close()
            heard += [wake async for wake in wakes]
        return heard

    first, *signals, last = asyncio.run(main())
    assert first.ended is not None
    assert next(wake.signal.data for wake in signals if wake.signal) == (5).to_bytes(4)  # the oldest are lost
    assert last.revision == 1000


def test_who_does_not_watch_any_more_is_forgotten() -> None:
    async def main() -> None:
        hub = Hub()
        async with hub.watch():
            pass
        assert not hub._listeners

    asyncio.run(main())
