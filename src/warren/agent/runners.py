"""The networks that one machine is in, each kept by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from warren import log
from warren.agent.network.runner import NetworkRunner
from warren.agent.shared import Shared
from warren.agent.state import NetworkState, networks
from warren.errors import OperationFailed, UsageError, WarrenError
from warren.identity.signing import VerifyKey

_AGAIN_S: Final = 5.0

_log = log.get("agent")


class Runners:
    """Single owner, one event loop. After :meth:`take_down` nothing of it is left in the host."""

    def __init__(self, shared: Shared, stopping: asyncio.Event, turned: Callable[[], None]) -> None:
        """``stopping``: nothing is begun any more. ``turned`` is called when something of a network is another."""
        self._shared = shared
        self._stopping = stopping
        self._turned = turned
        self._runners: dict[VerifyKey, NetworkRunner] = {}
        self._tasks: dict[VerifyKey, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[NetworkRunner]:
        return iter(self._runners.values())

    def __len__(self) -> int:
        return len(self._runners)

    def __contains__(self, network: VerifyKey) -> bool:
        return network in self._runners

    def get(self, network: VerifyKey) -> NetworkRunner | None:
        return self._runners.get(network)

    def known(self) -> tuple[VerifyKey, ...]:
        """The networks that this machine is in, as its state directory has it."""
        return networks(self._shared.state)

    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        return tuple(self._tasks.values())

    def find(self, name: str) -> tuple[VerifyKey, NetworkRunner]:
        """The one called ``name`` or known by that id. Raises OperationFailed for none, UsageError for two."""
        found = [(key, runner) for key, runner in self._runners.items() if name in {runner.name, str(key)}]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"several networks are called {name}; say the id of one, as `warren status --json` has it")
        known = ", ".join(sorted(runner.name for runner in self._runners.values())) or "none"
        raise OperationFailed(f"this machine is not in a network called {name}; it is in: {known}")

    def state(self, network: VerifyKey) -> NetworkState:
        """What is on the disk of it; what is damaged there is told."""
        state = NetworkState(self._shared.state, network)
        for warning in state.warnings:
            _log.warning("%s", warning)
        return state

    def resume(self, network: VerifyKey) -> None:
        """Start the network if this machine is in it. Raises OperationFailed when its state cannot be read."""
        if network not in self._runners and network in self.known():
            self.start(network, NetworkRunner(network, self._shared, self.state(network)))

    async def begin(self, network: VerifyKey) -> None:
        """Start a network that this machine is in; what cannot be read now is tried again, the others go on."""
        said = ""
        while network not in self._runners and not self._stopping.is_set():
            try:
                self.start(network, NetworkRunner(network, self._shared, self.state(network)))
            except WarrenError as error:
                if str(error) != said:
                    _log.error("network %s cannot be started: %s", network.short, error)
                said = str(error)
                await asyncio.sleep(_AGAIN_S)

    def start(self, network: VerifyKey, runner: NetworkRunner) -> None:
        """Keep it from now on, in place of whatever was kept of that network."""
        self._runners[network] = runner
        runner.turned = self._turned
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

    async def drop(self, network: VerifyKey, runner: NetworkRunner) -> None:
        """Keep it no more, and remove what it made in the host."""
        if self._runners.get(network) is not runner:
            return  # another task was first
        del self._runners[network]
        self._turned()
        runner.stop()
        await asyncio.gather(self._tasks.pop(network), return_exceptions=True)
        for failure in await runner.remove():
            _log.error("%s", failure)

    async def take_down(self) -> None:
        """End all, and remove what they made in the host. Raises OperationFailed when something could not be."""
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
