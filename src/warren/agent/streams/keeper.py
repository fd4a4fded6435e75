"""Keeps the stream process and Caddy as the networks and this node's operator want them: the driver below the pure
:mod:`~warren.agent.streams.entries`.

Both outlive the agent. What a new agent finds running it leaves alone until each of its networks has told what it
wants, so that no stream ends because half of the agent is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from warren import log
from warren.agent.network.subnets import transparent_port
from warren.agent.streams.caddy import WebKeeper
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.directory import NetworkView, Protocol
from warren.agent.streams.domains import Domains
from warren.agent.streams.doors import Doors, Network
from warren.agent.streams.entries import Streams, Wishes, listener_at, peer_lookup, streams
from warren.agent.streams.forwards import Asked, asked_item, objection
from warren.agent.streams.order import Orders
from warren.agent.streams.process import ProcessKeeper
from warren.agent.streams.status import State, news, stream_values, tasks
from warren.agent.streams.values import Item
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.ingress.sites import Settings
from warren.ingress.stored import domains_served
from warren.model.tunnel import IPAddress
from warren.proto.control.local import Stream

READY_WITHIN_S: Final = 20.0
"""How long streams that were found running wait for networks that are slow to start."""
SETTLE_WITHIN_S: Final = 30.0
REFRESH_WITHIN_S: Final = 2.0
AGAIN_S: Final = 2.0
"""Before what failed is tried again."""
PAUSE_S: Final = 0.05
"""Turns of networks come in bunches."""
SITES: Final = "sites"
_ROUNDS_MAX: Final = 3
"""Where Caddy listens is known when it runs, and it runs when there are sites."""

_log = log.get("streams")


class StreamKeeper:
    """:meth:`run` it as a task. Single owner, one event loop."""

    def __init__(
        self,
        state: Path,
        run: Path,
        networks: Callable[[], Collection[Network]],
        starting: Callable[[], bool],
        config: Callable[[], StreamConfig],
        resolve_name: Callable[[str], Sequence[str]],
        doors: Doors,
        *,
        nest: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``starting``: networks that this machine is in are not there yet. ``nest``: of the rootless engine."""
        self.asked: dict[str, Asked] = {}
        """What was asked for by command, by its place. Whoever changes it calls :meth:`settle`."""
        self._state = state
        self._run = run
        self._networks = networks
        self._starting = starting
        self._config = config
        self._nest = nest
        self._clock = clock
        self._ready_by = clock() + READY_WITHIN_S
        self._domains = Domains(doors.resolve, self._own_ips, self.wake, domains_served(Settings(state, run).storage))
        self._process = ProcessKeeper(run, nest, doors, resolve_name, self._judge, self.wake)
        self._web = WebKeeper(peer_lookup(run / SITES), doors, self.wake)
        self._found = Streams()
        self._streams: tuple[Stream, ...] = ()
        self._said: dict[str, tuple[State, str]] = {}
        self._failure: WarrenError | None = None
        self._running = False
        self._wake = asyncio.Event()
        self._wanted, self._done = 0, 0
        self._settled = asyncio.Condition()

    # From outside

    def wake(self) -> None:
        """Something may have changed: look soon."""
        self._wake.set()

    @property
    def streams(self) -> tuple[Stream, ...]:
        """How it stands, as of the last time that somebody looked."""
        return self._streams

    async def refresh(self) -> None:
        """Have :attr:`streams` be of now, as far as the process answers, and soon."""
        if self._running:
            self._process.ask()
            with contextlib.suppress(WarrenError, TimeoutError):
                async with asyncio.timeout(REFRESH_WITHIN_S):
                    await self.settle()

    async def settle(self) -> None:
        """Return when what is wanted now is carried out. Raises OperationFailed or Unreachable when it cannot be."""
        self._wanted += 1
        mine = self._wanted
        self._wake.set()
        try:
            async with asyncio.timeout(SETTLE_WITHIN_S), self._settled:
                await self._settled.wait_for(lambda: self._done >= mine)
        except TimeoutError:
            raise Unreachable("the stream process does not answer; the agent's log says more") from None
        if self._failure is not None:
            raise OperationFailed(str(self._failure))

    def item(self, asked: Asked) -> Item:
        """What would come of it."""
        return asked_item(asked, self._views(), Orders(self._found.orders), os.geteuid())

    def listener_at(self, item: Item) -> str:
        """Which other item listens already where ``item`` would, as people call it; empty: none."""
        return listener_at(self._found.items, item)

    async def run(self) -> None:
        """Until it is cancelled; what runs goes on then, until :meth:`close`."""
        self._running = True
        try:
            while True:
                mine = self._wanted
                self._wake.clear()
                await self._turn()
                async with self._settled:
                    self._done = mine
                    self._settled.notify_all()
                await asyncio.sleep(PAUSE_S)
                again = self._failure is not None or self._web.problem or self._waits()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if again else None):
                        await self._wake.wait()
        finally:
            self._running = False
            await self._domains.close()

    async def close(self) -> None:
        """End the stream process and Caddy; :meth:`run` is over by now."""
        await self._process.end()
        await self._web.keep(self._settings(), ())

    async def let_go(self) -> None:
        """Leave them as they are; :meth:`run` is over by now."""
        await self._process.let_go()
        await self._web.let_go()

    # One turn

    async def _turn(self) -> None:
        if self._waits():
            return
        try:
            await self._reach()
        except WarrenError as error:
            if str(error) != str(self._failure):
                _log.warning("%s", error)
            self._failure = error
        else:
            self._failure = None
        self._tell()

    def _waits(self) -> bool:
        """Whether something survives of the agent before, and it is not known yet what of it is still wanted."""
        survives = self._process.survives or (not self._process.holds and self._settings().generations.exists())
        if not survives or self._clock() >= self._ready_by:
            return False
        return self._starting() or any(not network.settled for network in self._networks())

    async def _reach(self) -> None:
        views = self._views()
        await self._web.find(self._settings())
        for _ in range(_ROUNDS_MAX):
            around = self._around()
            self._found = streams(views, self._wishes(), around, self._found.orders)
            self._domains.keep(self._found.domains)
            if self._found.sites:
                (self._run / SITES).mkdir(mode=0o700, exist_ok=True)
            await self._process.reach(self._found.config)
            await self._web.keep(self._settings(), self._found.sites)
            if self._around() == around:
                break

    def _views(self) -> list[NetworkView]:
        found = []
        for network, label in self._labels():
            directory = network.directory
            if directory is not None:
                port = 0 if self._nest is None else transparent_port(network.network)
                found.append(NetworkView(label, directory, network.nearness, network.interface, port))
        return sorted(found, key=lambda view: view.label)

    def _labels(self) -> Iterator[tuple[Network, str]]:
        """Each network with what tells it from the others."""
        networks = list(self._networks())
        names = Counter(network.name for network in networks)
        for network in networks:
            yield network, network.name if names[network.name] == 1 else f"{network.name}-{network.network.short}"

    def _judge(self, address: IPAddress, protocol: Protocol, port: int) -> tuple[str, str] | None:
        return objection(self._views(), address, protocol, port)

    def _wishes(self) -> Wishes:
        return Wishes(self._config(), tuple(self.asked.values()), os.geteuid())

    def _around(self) -> Surroundings:
        return Surroundings(
            run=self._run / SITES,
            gateway=self._config().gateway,
            known_as=self._config().known_as,
            domains=self._domains.answers,
            ports=self._web.ports,
            caddy_problem=self._web.problem,
            problems=self._web.problems,
        )

    def _settings(self) -> Settings:
        gateway = self._config().gateway or Gateway()
        return Settings(self._state, self._run, gateway.acme_directory, gateway.acme_email, gateway.acme_ca)

    def _own_ips(self) -> set[IPAddress]:
        return {ip for network in self._networks() for ip in network.own_ips()}

    def _tell(self) -> None:
        items = self._found.items
        self._streams = stream_values(items, self._process.status)
        bad, good = news(self._said, self._streams)
        for line in bad:
            _log.warning("%s", line)
        for line in good:
            _log.info("%s", line)
        self._said = {stream.id: (stream.state, stream.reason) for stream in self._streams}
        for network, label in self._labels():
            network.tell_tasks(tasks(items, self._streams, label))
