"""What reaching others needs tasks for: names of relays, and streams to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from warren import log
from warren.errors import WarrenError
from warren.reach.doors import Bridge, Doors
from warren.reach.relay_values import Connect, Disconnect, RelayPlace, Resolve, Transport, Wish
from warren.reach.uplinks import Uplinks

_log = log.get("reach")


class Errands:
    """Runs the wishes of :class:`Uplinks` and tells it how they came out; then calls ``work``."""

    def __init__(self, doors: Doors, relays: Uplinks, port: Callable[[], int], work: Callable[[], None]) -> None:
        self._doors = doors
        self._relays = relays
        self._port = port
        self._work = work
        self._tasks: set[asyncio.Task[None]] = set()
        self._bridges: dict[tuple[str, Transport], asyncio.Task[None]] = {}

    def run(self, wishes: Iterable[Wish]) -> None:
        for wish in wishes:
            match wish:
                case Resolve(name, hosts):
                    self._keep(asyncio.create_task(self._resolve(name, hosts)))
                case Connect(place, transport):
                    task = asyncio.create_task(self._connect(place, transport))
                    self._keep(task)
                    self._bridges[place.name, transport] = task
                case Disconnect(name, transport):
                    bridge = self._bridges.pop((name, transport), None)
                    if bridge is not None:
                        bridge.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._bridges.clear()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("this is a bug in Warren (%s: %s)", type(error).__name__, error)

    async def _resolve(self, name: str, hosts: tuple[str, ...]) -> None:
        try:
            addresses = await self._doors.resolve(hosts)
        except WarrenError as error:
            self._relays.resolved(name, (), self._doors.clock(), str(error))
        else:
            self._relays.resolved(name, addresses, self._doors.clock())
        self._work()

    async def _connect(self, place: RelayPlace, transport: Transport) -> None:
        """As long as the stream lives."""
        try:
            bridge: Bridge = await self._doors.open_bridge(place, transport, self._port)
        except WarrenError as error:
            self._relays.not_connected(place.name, transport, str(error), self._doors.clock())
            self._work()
            return
        try:
            self._relays.connected(place.name, transport, bridge.address, self._doors.clock())
            self._work()
            why = await bridge.closed
            self._relays.not_connected(place.name, transport, why, self._doors.clock())
            self._work()
        finally:
            bridge.close()
