"""Drives the :class:`~warren.tunnel.endpoints.EndpointKeeper`: does its lookups in the background and tells how they
went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from warren import log
from warren.errors import OperationFailed
from warren.identity.keys import PublicKey
from warren.model.tunnel import IPAddress, PeerStatus, TransportAddress
from warren.tunnel.config import TunnelConfig
from warren.tunnel.endpoints import EndpointKeeper
from warren.tunnel.fields import Endpoint

FIRST_WAIT_S: Final = 3.0
"""How long a start waits for names, so that the MTU can follow the way to the peers; the rest goes on behind."""

Resolve = Callable[[Endpoint], Awaitable[tuple[TransportAddress, ...]]]
"""Raises OperationFailed when the endpoint has no address now."""

_log = log.get("tunnel")


class Lookups:
    """``wake`` is called whenever a lookup has ended. :meth:`close` ends the lookups under way."""

    def __init__(self, resolve: Resolve, clock: Callable[[], float], wake: Callable[[], None]) -> None:
        self._resolve = resolve
        self._clock = clock
        self._wake = wake
        self._keeper = EndpointKeeper()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failing: set[Endpoint] = set()

    def want(self, config: TunnelConfig) -> None:
        """Look after the endpoints of ``config`` from now on."""
        endpoints = {peer.public_key: peer.endpoint for peer in config.peers if peer.endpoint is not None}
        self._keeper.want(endpoints, self._clock())

    async def first(self) -> None:
        """Look everything up, and wait a moment for the answers."""
        self.start()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FIRST_WAIT_S)

    def start(self) -> None:
        """Start the lookups that are due."""
        for endpoint in self._keeper.take_lookups(self._clock()):
            task = asyncio.create_task(self._look_up(endpoint))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look_up(self, endpoint: Endpoint) -> None:
        try:
            addresses = await self._resolve(endpoint)
        except OperationFailed as error:
            delay = self._keeper.failed(endpoint, self._clock())
            if endpoint not in self._failing:  # one line when it begins, one when it ends
                _log.warning("%s; trying again in %.0f s, and on", error, delay)
            self._failing.add(endpoint)
        else:
            if endpoint in self._failing:
                _log.info("%s can be resolved again", endpoint.host)
            self._failing.discard(endpoint)
            self._keeper.resolved(endpoint, addresses, self._clock())
        self._wake()

    def adopt(self, peers: Iterable[PeerStatus]) -> None:
        self._keeper.adopt(peers)

    def reset(self) -> None:
        self._keeper.reset(self._clock())

    def hurry(self) -> None:
        self._keeper.hurry(self._clock())

    def observe(self, peers: Iterable[PeerStatus], wall_ns: int) -> None:
        self._keeper.observe(peers, wall_ns, self._clock())

    def take_endpoints(self) -> dict[PublicKey, TransportAddress]:
        return self._keeper.take_endpoints()

    def destinations(self) -> list[IPAddress]:
        return self._keeper.destinations()

    def is_ours(self, key: PublicKey, address: TransportAddress | None) -> bool:
        return self._keeper.is_ours(key, address)

    def seconds_left(self) -> float | None:
        """Until something is to be done; None: nothing ever is."""
        deadline = self._keeper.next_deadline()
        return None if deadline is None else max(0.0, deadline.at - self._clock())

    def due_to_observe(self) -> bool:
        return self._keeper.observe_at() <= self._clock()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
