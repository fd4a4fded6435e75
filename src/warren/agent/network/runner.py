"""One network of this node: keeps host, engine and coordinator in agreement with the documents.

All work is done in one task, a turn after the other (:mod:`warren.agent.network.turns`). Whatever happens elsewhere (a
document arrives, a link goes down, the data plane ends, a command) only leaves a note and wakes that task.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from warren.agent.network.ground import Enrolment
from warren.agent.network.parts import Parts
from warren.agent.network.situation import Situation
from warren.agent.network.turns import Turns
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.agent.world import Link
from warren.api.node_events import Event, SignalReceived
from warren.errors import OperationFailed
from warren.identity.signing import VerifyKey

TURN_PAUSE_MAX_S: Final = 1.0
REFRESH_WITHIN_S: Final = 2.0


class NetworkRunner:
    """:meth:`run` it as a task; it ends after :meth:`stop`, or when an enrolment was refused."""

    def __init__(
        self, network: VerifyKey, shared: Shared, state: NetworkState, enrolment: Enrolment | None = None
    ) -> None:
        self.network = network
        self.state = state
        self.stopping = asyncio.Event()
        """:meth:`run` is to end, and not to be run again."""
        self.turned: Callable[[], None] = _nothing
        """Called after each turn."""
        self._shared = shared
        self._wake = asyncio.Event()
        self._turned = asyncio.Event()
        self._parts = parts = Parts(network, shared, state, enrolment, self._wake.set)
        self._coordination = parts.ground.coordination
        self.situation = Situation(parts)
        self._turns = Turns(parts, self.situation, refused=self.stopping.set)
        self.joined = self._turns.joined
        """The node is a member and its interface is up; or WarrenError, why it will not be one."""

    @property
    def name(self) -> str:
        """The network's name."""
        return self.situation.name

    # From outside

    async def refresh(self) -> None:
        """Returns when a turn has asked the engine, so that the situation is of now; or soon, when that takes long."""
        self._parts.connecting.peering.ask_now()
        self._turned.clear()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_WITHIN_S):
                await self._turned.wait()

    def stop(self) -> None:
        """End :meth:`run`; the host stays as it is until :meth:`remove`."""
        self.stopping.set()
        self._wake.set()

    def network_changed(self) -> None:
        """Links, addresses or routes of the host may have changed."""
        self._parts.due.host = True
        self._coordination.network_changed()
        self._parts.connecting.reach.network_changed()
        self._wake.set()

    def filter_changed(self) -> None:
        """Somebody may have taken the policy's rules away."""
        self._parts.due.host = True
        self._wake.set()

    def config_changed(self) -> None:
        """The local config is another one."""
        self._parts.due.host = self._parts.due.names = True
        self._parts.reaching.config_changed()
        self._wake.set()

    def note(self, event: Event) -> None:
        """Something came from the link; the next turn deals with it, but for signals, which are in a hurry."""
        if isinstance(event, SignalReceived):
            self._parts.connecting.reach.signal_received(event.node, event.data)
            return
        self._coordination.note(event)
        self._wake.set()

    def use_link(self, link: Link) -> None:
        """What is said to the coordinator goes by ``link`` from now on; what comes is to be given to :meth:`note`."""
        self._coordination.link = link

    async def run(self) -> None:
        """Keep the network until :meth:`stop`, or until an enrolment is refused, of which ``joined`` then tells."""
        link = self._shared.world.open_link(
            network=self.network,
            node=self._parts.ground.key,
            coordinators=self._coordination.coordinators,
            since=lambda: self._coordination.documents.revision,
            enrol=self._parts.enrol,
            proxy=self._shared.config.proxy,
        )
        async with link:
            self.use_link(link)
            reader = asyncio.create_task(self._read(link), name=f"events of {self.name}")
            try:
                while not self.stopping.is_set():
                    if reader.done():
                        reader.result()  # raises what ended it, if that was an error
                    self._wake.clear()
                    began_s = time.process_time()
                    pause = await self.turn()
                    # Many changes at once are one turn's work: turns may take half of a core at most.
                    await asyncio.sleep(min(TURN_PAUSE_MAX_S, time.process_time() - began_s))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
            finally:
                self._coordination.link = None
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                await self.let_go()

    async def turn(self) -> float:
        """Take one turn; returns the seconds until something is due by time alone."""
        pause = await self._turns.take()
        self._turned.set()
        self.turned()
        return pause

    async def _read(self, link: Link) -> None:
        async for event in link.events():
            self.note(event)
            await self._coordination.room()

    async def leave(self) -> None:
        """Give the membership up. Raises Unreachable or OperationFailed; the node is then still a member."""
        if self._coordination.link is None:
            raise OperationFailed(f"{self.name} is not running; try again")
        await self._coordination.link.leave()
        await self._turns.end_connections()

    async def let_go(self) -> None:
        """Stop looking after the data plane; it goes on."""
        await self._parts.reaching.relaying.close()
        await self._turns.close()
        await self._parts.connecting.close()
        await self._parts.ground.plane.let_go()

    async def remove(self) -> list[str]:
        """Take away what was made in the host; returns what failed, one sentence each."""
        await self._parts.connecting.close()
        failures = await self._parts.reaching.remove()
        self._shared.release(self.network)
        return failures


def _nothing() -> None:
    pass
