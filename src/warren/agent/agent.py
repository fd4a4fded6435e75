"""The agent of one machine: its networks, each a task, and what is common to them."""

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
from warren.agent import naming
from warren.agent.candidates import interfaces
from warren.agent.forward_store import ForwardStore
from warren.agent.forwards import Forwards
from warren.agent.network import NetworkRunner
from warren.agent.places import Places
from warren.agent.shared import Shared
from warren.agent.state import NetworkState, networks
from warren.agent.stream_config import StreamConfig
from warren.agent.stream_doors import Doors
from warren.agent.streams import StreamKeeper
from warren.api.node import EnrolRequest
from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError
from warren.identity.signing import VerifyKey
from warren.linux.netlink import Netlink
from warren.model.documents import Ticket
from warren.model.tickets import read_ticket
from warren.proto.control.local import AgentStatus, Explanation, Joined

JOIN_WITHIN_S: Final = 30.0
"""How long joining may take before the ticket's bearer is told that nobody answered."""
HEARD_WITHIN_S: Final = 5.0
"""How long a network that this machine is in already may take to say whether it needs the ticket."""
NETWORKS_MAX: Final = 64
_AGAIN_S: Final = 5.0
_NAT64_EVERY_S: Final = 3600.0
_SETTLE_S: Final = 0.05  # changes of the host come in bunches

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
        self._runners: dict[VerifyKey, NetworkRunner] = {}
        self._tasks: dict[VerifyKey, asyncio.Task[None]] = {}
        self._started = datetime.fromtimestamp(shared.world.wall_clock(), UTC)
        self._moved = asyncio.Event()
        where = Places(shared.state, run or shared.state)
        self.streams = StreamKeeper(
            where.state,
            where.run,
            networks=self._runners.values,
            starting=lambda: any(network not in self._runners for network in self.known()),
            config=self._stream_config,
            resolve_name=self.resolve,
            doors=doors or Doors(),
            nest=where.nest if shared.world.choice.engine == "rootless" else None,
        )
        self.forwards = Forwards(self.streams, ForwardStore(shared.state), self._stream_config)

    def _stream_config(self) -> StreamConfig:
        return self._shared.config.streams

    def known(self) -> tuple[VerifyKey, ...]:
        """The networks that this machine is in, as its state directory has it."""
        return networks(self._shared.state)

    async def run(self) -> None:
        """Keep all networks until :meth:`stop`, then remove what was made in the host.

        Raises OperationFailed when something of it could not be removed.
        """
        helpers = [
            *(asyncio.create_task(self._watch(stack), name="changes of the host") for stack in self._stacks()),
            asyncio.create_task(self._look_for_nat64(), name="NAT64"),
        ]
        self.forwards.load()
        carrying = asyncio.create_task(self.streams.run(), name="streams")
        try:
            helpers += [asyncio.create_task(self._begin(network), name="start") for network in self.known()]
            await self.stopping.wait()
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)
            await self._end_streams()
            await self._take_down()
        finally:
            for task in (carrying, *helpers, *self._tasks.values()):
                task.cancel()
            await asyncio.gather(carrying, *helpers, *self._tasks.values(), return_exceptions=True)
            await self.streams.let_go()

    def stop(self) -> None:
        self.stopping.set()

    def reload(self) -> None:
        """Read the local config again. Raises UsageError or OperationFailed; the one before then stays in force."""
        before, self._shared.config = self._shared.config, self._load_config()
        for runner in self._runners.values():
            runner.config_changed()
        self.streams.wake()
        if self._shared.config.engine != before.engine:
            running = self._shared.world.choice.engine
            _log.warning("the engine stays %s until the agent is stopped and started again", running)
        _log.info("the config was read again")

    def network_changed(self) -> None:
        """The network of the host, or the one that tunnels end in, may be another now."""
        for runner in self._runners.values():
            runner.network_changed()
        self.streams.wake()

    def _state(self, network: VerifyKey) -> NetworkState:
        state = NetworkState(self._shared.state, network)
        for warning in state.warnings:
            _log.warning("%s", warning)
        return state

    async def _begin(self, network: VerifyKey) -> None:
        """Start a network that this machine is in; what cannot be read now is tried again, the others go on."""
        said = ""
        while network not in self._runners and not self.stopping.is_set():
            try:
                self._start(network, NetworkRunner(network, self._shared, self._state(network)))
            except WarrenError as error:
                if str(error) != said:
                    _log.error("network %s cannot be started: %s", network.short, error)
                said = str(error)
                await asyncio.sleep(_AGAIN_S)

    def _start(self, network: VerifyKey, runner: NetworkRunner) -> None:
        self._runners[network] = runner
        runner.turned = self.streams.wake
        self._tasks[network] = asyncio.create_task(self._keep(runner), name=f"network {runner.name}")

    async def _keep(self, runner: NetworkRunner) -> None:
        """A network that fails by a bug is told, and tried again; the others go on."""
        while not runner.stopping.is_set():
            try:
                await runner.run()
                return
            except WarrenError as error:
                _log.error("%s: %s", runner.name, error)
            except Exception as error:  # noqa: BLE001 - the last door of a task
                _log.error("%s: this is a bug in Warren (%s: %s)", runner.name, type(error).__name__, error)
                if log.debugging():
                    _log.exception("%s", runner.name)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await runner.stopping.wait()

    async def _end_streams(self) -> None:
        try:
            await self.streams.close()
        except WarrenError as error:
            _log.error("%s", error)

    async def _take_down(self) -> None:
        failures = []
        for network, runner in self._runners.items():
            runner.stop()
            await asyncio.gather(self._tasks[network], return_exceptions=True)
            failures += await runner.remove()
            _log.info("%s is down", runner.name)
        for failure in failures[:-1]:
            _log.error("%s", failure)
        if failures:
            raise OperationFailed(failures[-1])

    # Joining and leaving

    async def join(self, text: str, name: str | None) -> Joined:
        """Become a member by the ticket ``text``; a network that this machine is in already stays as it is.

        Raises UsageError for what is no ticket, OperationFailed when it is refused, Unreachable when no coordinator
        answers. Nothing is then left of it but the node's key, so that trying again is the same as going on.
        """
        wall_s = self._shared.world.wall_clock()
        # By whose clock it has expired is the coordinator's to say: this host's may be far off.
        ticket = read_ticket(text, 0.0).document
        network = VerifyKey(ticket.network)
        runner = await self._present(network)
        if runner is None:
            if len(self._runners) >= NETWORKS_MAX:
                raise OperationFailed(f"this node is in {NETWORKS_MAX} networks already; leave one first")
            runner = self._enrolling(network, ticket, name or naming.node_name(platform.node()))
            self._start(network, runner)
        elif runner.needs_ticket:
            await self._drop(network, runner)
            if runner.revoked:
                runner.state.remove()
                self._shared.keys.forget(network)
            runner = self._enrolling(network, ticket, name or naming.node_name(platform.node()))
            self._start(network, runner)
        return await self._joined(network, runner, ticket, wall_s)

    async def _present(self, network: VerifyKey) -> NetworkRunner | None:
        """The network that this machine is in already, as soon as it shows whether it still is, or after a moment."""
        if network not in self._runners and network in self.known():
            self._start(network, NetworkRunner(network, self._shared, self._state(network)))
        runner = self._runners.get(network)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_WITHIN_S):
                while runner is not None and not (runner.enrolling or runner.heard):
                    await runner.refresh()
                    await asyncio.sleep(_SETTLE_S)
        return runner

    def _enrolling(self, network: VerifyKey, ticket: Ticket, name: str) -> NetworkRunner:
        try:
            enrol = EnrolRequest(ticket.secret, _checked(name))
        except ValueError as error:
            raise UsageError(str(error)) from None
        return NetworkRunner(
            network,
            self._shared,
            self._state(network),
            name=ticket.name,
            coordinators=ticket.coordinators,
            enrol=enrol,
        )

    async def _joined(self, network: VerifyKey, runner: NetworkRunner, ticket: Ticket, wall_s: float) -> Joined:
        try:
            async with asyncio.timeout(JOIN_WITHIN_S):
                return await asyncio.shield(runner.joined)
        except TimeoutError:
            why = runner.why_not_joined
            expired = "; by this machine's clock the ticket has expired" if ticket.not_after <= wall_s else ""
            if not runner.enrolling:
                raise OperationFailed(f"{runner.name}: {why}") from None
            await self._give_up(network, runner)
            raise Unreachable(f"{runner.name} could not be joined: {why}{expired}") from None
        except WarrenError:
            await self._give_up(network, runner)
            raise

    async def _give_up(self, network: VerifyKey, runner: NetworkRunner) -> None:
        """An enrolment came to nothing. What this machine had of that network before goes on."""
        await self._drop(network, runner)
        if network not in self._runners and network in self.known():
            self._start(network, NetworkRunner(network, self._shared, self._state(network)))

    async def _drop(self, network: VerifyKey, runner: NetworkRunner) -> None:
        if self._runners.get(network) is not runner:
            return  # another task was first
        del self._runners[network]
        self.streams.wake()
        runner.stop()
        await asyncio.gather(self._tasks.pop(network), return_exceptions=True)
        for failure in await runner.remove():
            _log.error("%s", failure)

    async def leave(self, name: str) -> None:
        """Give up the membership in the network called ``name`` (or known by that id), and forget all about it.

        Raises OperationFailed for an unknown name, UsageError for one of two networks, Unreachable when no coordinator
        confirms.
        """
        network, runner = self._find(name)
        if not runner.needs_ticket:
            await runner.leave()
        await self._drop(network, runner)
        runner.state.remove()
        self._shared.keys.forget(network)
        _log.info("%s: left", runner.name)

    def _find(self, name: str) -> tuple[VerifyKey, NetworkRunner]:
        found = [(key, runner) for key, runner in self._runners.items() if name in {runner.name, str(key)}]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"several networks are called {name}; say the id of one, as `warren status --json` has it")
        known = ", ".join(sorted(runner.name for runner in self._runners.values())) or "none"
        raise OperationFailed(f"this machine is not in a network called {name}; it is in: {known}")

    # What is common

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

    async def _look_for_nat64(self) -> None:
        """A host without IPv4 reaches those with IPv4 only through its network's NAT64."""
        while True:
            self._moved.clear()
            with contextlib.suppress(WarrenError):
                underlay = (await self._shared.surroundings()).underlay()
                found = await self._shared.world.find_nat64() if underlay.has6 and not underlay.has4 else None
                if found != self._shared.nat64:
                    self._shared.nat64 = found
                    for runner in self._runners.values():
                        runner.network_changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_NAT64_EVERY_S):
                    await self._moved.wait()

    async def status(self) -> AgentStatus:
        """Raises OperationFailed when the host cannot be looked at."""
        await asyncio.gather(*(runner.refresh() for runner in self._runners.values()), self.streams.refresh())
        return AgentStatus(
            version=__version__,
            pid=os.getpid(),
            started=self._started,
            host=platform.node(),
            engine=self._shared.world.choice.engine,
            engine_why=self._shared.world.choice.why,
            interfaces=interfaces(await self._shared.surroundings()),
            networks=tuple(runner.status() for runner in self._runners.values()),
            streams=self.streams.streams,
        )

    async def explain(self, name: str) -> Explanation:
        """How it stands with the member called ``name``, as :meth:`resolve` reads names, and raises errors."""
        self.resolve(name)
        await asyncio.gather(*(runner.refresh() for runner in self._runners.values()))
        found = [one for runner in self._runners.values() if (one := runner.explain(name)) is not None]
        if not found:
            raise OperationFailed(f"{name} is this machine itself")
        return found[0]

    def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of the member or service called ``name``: its plain name, or NAME.NETWORK, with the suffix or
        without; a service may also be called NAME.svc, and must be where a member has its name.

        Raises OperationFailed when nobody is meant, UsageError when more than one is.
        """
        found = {
            runner.name: addresses for runner in self._runners.values() if (addresses := runner.addresses_of(name))
        }
        if len(found) > 1:
            raise UsageError(f"{name} is a name in {' and '.join(sorted(found))}; say {name}.{min(found)}")
        if not found:
            raise OperationFailed(f"no member is called {name}; `warren status` lists them")
        return next(iter(found.values()))


def _checked(name: str) -> str:
    import re

    from warren.model.parts import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"{name!r} is no name for a node: say 1 to 63 of a-z, 0-9 and hyphens, as in a host name")
    return name
