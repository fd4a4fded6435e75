"""The agent of one machine: its networks, its streams, and what is common to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from warren import __version__, log
from warren.agent import config as configs
from warren.agent.candidates import interfaces
from warren.agent.joining import Joining
from warren.agent.places import Places
from warren.agent.runners import Runners
from warren.agent.shared import Shared
from warren.agent.streams.config import StreamConfig
from warren.agent.streams.doors import Doors
from warren.agent.streams.forward_commands import Forwards
from warren.agent.streams.forward_store import ForwardStore
from warren.agent.streams.keeper import StreamKeeper
from warren.errors import OperationFailed, UsageError, WarrenError
from warren.identity.signing import VerifyKey
from warren.linux.netlink import Netlink
from warren.proto.control.local import AgentStatus, Explanation, Joined

_AGAIN_S: Final = 5.0
_NAT64_EVERY_S: Final = 3600.0
_SETTLE_S: Final = 0.05  # changes of the host come in bunches
_FILTER_PAUSE_S: Final = 1.0  # some programs change rules all the time

_log = log.get("agent")


class Agent:
    """:meth:`run` it once. Methods may be called from any task of the same event loop."""

    def __init__(
        self,
        shared: Shared,
        *,
        run: Path | None = None,
        load_config: Callable[[], configs.AgentConfig] | None = None,
        doors: Doors | None = None,
    ) -> None:
        """``run``: the directory of sockets; None: the one of the state is that, too."""
        self.stopping = asyncio.Event()
        self._shared = shared
        self._load_config = load_config or (lambda: configs.load(configs.locate(shared.state)))
        self._runners = Runners(shared, self.stopping, self._wake_streams)
        self._joining = Joining(shared, self._runners)
        self._started = datetime.fromtimestamp(shared.world.wall_clock(), UTC)
        self._moved = asyncio.Event()
        where = Places(shared.state, run or shared.state)
        self.streams = StreamKeeper(
            where.state,
            where.run,
            networks=lambda: tuple(runner.situation for runner in self._runners),
            starting=lambda: any(network not in self._runners for network in self.known()),
            config=self._stream_config,
            resolve_name=self.resolve,
            doors=doors or Doors(),
            nest=where.nest if shared.world.choice.engine == "rootless" else None,
        )
        self.forwards = Forwards(self.streams, ForwardStore(shared.state), self._stream_config)

    def _wake_streams(self) -> None:
        self.streams.wake()

    def _stream_config(self) -> StreamConfig:
        return self._shared.config.streams

    def known(self) -> tuple[VerifyKey, ...]:
        """The networks that this machine is in, as its state directory has it."""
        return self._runners.known()

    async def run(self) -> None:
        """Keep all networks until :meth:`stop`, then remove what was made in the host.

        Raises OperationFailed when something of it could not be removed.
        """
        helpers = [
            *(asyncio.create_task(self._watch(stack), name="changes of the host") for stack in self._stacks()),
            asyncio.create_task(self._watch_filter(), name="changes of the packet filter"),
            asyncio.create_task(self._look_for_nat64(), name="NAT64"),
        ]
        self.forwards.load()
        carrying = asyncio.create_task(self.streams.run(), name="streams")
        try:
            helpers += [asyncio.create_task(self._runners.begin(network), name="start") for network in self.known()]
            await self.stopping.wait()
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
            await self._end_streams()
            await self._runners.take_down()
        finally:
            for task in (carrying, *helpers, *self._runners.tasks()):
                task.cancel()
            await asyncio.gather(carrying, *helpers, *self._runners.tasks(), return_exceptions=True)
            await self.streams.let_go()

    def stop(self) -> None:
        self.stopping.set()

    def reload(self) -> None:
        """Read the local config again. Raises UsageError or OperationFailed; the one before then stays in force."""
        before, self._shared.config = self._shared.config, self._load_config()
        for runner in self._runners:
            runner.config_changed()
        self.streams.wake()
        if self._shared.config.engine != before.engine:
            running = self._shared.world.choice.engine
            _log.warning("the engine stays %s until the agent is stopped and started again", running)
        _log.info("the config was read again")

    def network_changed(self) -> None:
        """The network of the host, or the one that tunnels end in, may be another now."""
        for runner in self._runners:
            runner.network_changed()
        self.streams.wake()

    async def _end_streams(self) -> None:
        try:
            await self.streams.close()
        except WarrenError as error:
            _log.error("%s", error)

    async def join(self, text: str, name: str | None) -> Joined:
        """Become a member by the ticket ``text``, called ``name``, and raise what :meth:`.Joining.join` does."""
        return await self._joining.join(text, name)

    async def leave(self, name: str) -> None:
        """Give up the membership in the network called ``name``, and raise what :meth:`.Joining.leave` does."""
        await self._joining.leave(name)

    def _stacks(self) -> tuple[Netlink, ...]:
        """The host's network, and the one that the tunnel interfaces are in where that is another."""
        world = self._shared.world
        return (world.netlink,) if world.inside is world.netlink else (world.netlink, world.inside)

    async def _watch(self, stack: Netlink) -> None:
        while True:
            try:
                async for _ in stack.changes():
                    await asyncio.sleep(_SETTLE_S)
                    self._moved.set()
                    self.network_changed()
            except (OSError, WarrenError) as error:
                _log.warning("changes of the network cannot be watched: %s", error)
            await asyncio.sleep(_AGAIN_S)

    async def _watch_filter(self) -> None:
        """What another program flushes is put back before much has passed."""
        removals = self._shared.world.filter_removals
        while removals is not None:
            try:
                async for _ in removals():
                    for runner in self._runners:
                        runner.filter_changed()
                    await asyncio.sleep(_FILTER_PAUSE_S)
            except OSError as error:
                _log.warning("changes of the packet filter cannot be watched: %s", error)
            await asyncio.sleep(_AGAIN_S)

    async def _look_for_nat64(self) -> None:
        """A host without IPv4 reaches those with IPv4 only through its network's NAT64."""
        while True:
            self._moved.clear()
            with contextlib.suppress(WarrenError):
                underlay = (await self._shared.surroundings()).underlay()
                found = await self._shared.world.find_nat64() if underlay.has6 and not underlay.has4 else None
                if found != self._shared.nat64:
                    self._shared.nat64 = found
                    for runner in self._runners:
                        runner.network_changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NAT64_EVERY_S):
                    await self._moved.wait()

    async def status(self) -> AgentStatus:
        """Raises OperationFailed when the host cannot be looked at."""
        await asyncio.gather(*(runner.refresh() for runner in self._runners), self.streams.refresh())
        return AgentStatus(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            host=platform.node(),
            engine=self._shared.world.choice.engine,
            engine_why=self._shared.world.choice.why,
            interfaces=interfaces(await self._shared.surroundings()),
            networks=tuple(runner.situation.status() for runner in self._runners),
            streams=self.streams.streams,
        )

    async def explain(self, name: str) -> Explanation:
        """How it stands with the member called ``name``, as :meth:`resolve` reads names, and raises errors."""
        self.resolve(name)
        await asyncio.gather(*(runner.refresh() for runner in self._runners))
        found = [one for runner in self._runners if (one := runner.situation.explain(name)) is not None]
        if not found:
            raise OperationFailed(f"{name} is this machine itself; `warren status` lists the others")
        return found[0]

    def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of the member or service called ``name``: its plain name, or NAME.NETWORK, with the suffix or
        without; a service may also be called NAME.svc, and must be where a member has its name.

        Raises OperationFailed when nobody is meant, UsageError when more than one is.
        """
        situations = [runner.situation for runner in self._runners]
        found = {one.name: addresses for one in situations if (addresses := one.addresses_of(name))}
        if len(found) > 1:
            raise UsageError(f"{name} is a name in {' and '.join(sorted(found))}; say {name}.{min(found)}")
        if not found:
            raise OperationFailed(f"no member is called {name}; `warren status` lists them")
        return next(iter(found.values()))
