"""How a machine becomes a member of a network by a ticket, and leaves it again."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import re
from typing import Final

from warren import log
from warren.agent import naming
from warren.agent.network.ground import Enrolment
from warren.agent.network.runner import NetworkRunner
from warren.agent.runners import Runners
from warren.agent.shared import Shared
from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError
from warren.identity.signing import VerifyKey
from warren.model.documents import Ticket
from warren.model.parts import NAME_PATTERN
from warren.model.tickets import read_ticket
from warren.proto.control.client import EnrolRequest
from warren.proto.control.local import Joined

JOIN_WITHIN_S: Final = 30.0
"""How long joining may take before the ticket's bearer is told that nobody answered."""
HEARD_WITHIN_S: Final = 5.0
"""How long a network that this machine is in already may take to say whether it needs the ticket."""
NETWORKS_MAX: Final = 64
_LOOK_EVERY_S: Final = 0.05

_log = log.get("agent")


class Joining:
    """Starts and ends networks among the ``runners``."""

    def __init__(self, shared: Shared, runners: Runners) -> None:
        self._shared = shared
        self._runners = runners

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
        if runner is not None and runner.situation.needs_ticket:
            await self._runners.drop(network, runner)
            if runner.situation.revoked:
                runner.state.remove()
                self._shared.keys.forget(network)
            runner = None
        if runner is None:
            if len(self._runners) >= NETWORKS_MAX:
                raise OperationFailed(f"this node is in {NETWORKS_MAX} networks already; leave one first")
            runner = self._enrolling(network, ticket, name or naming.node_name(platform.node()))
            self._runners.start(network, runner)
        return await self._joined(network, runner, ticket, wall_s)

    async def _present(self, network: VerifyKey) -> NetworkRunner | None:
        """The network that this machine is in already, as soon as it shows whether it still is, or after a moment."""
        self._runners.resume(network)
        runner = self._runners.get(network)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARD_WITHIN_S):
                while runner is not None and not (runner.situation.enrolling or runner.situation.heard):
                    await runner.refresh()
                    await asyncio.sleep(_LOOK_EVERY_S)
        return runner

    def _enrolling(self, network: VerifyKey, ticket: Ticket, name: str) -> NetworkRunner:
        try:
            request = EnrolRequest(ticket.secret, _checked(name))
        except ValueError as error:
            raise UsageError(str(error)) from None
        enrolment = Enrolment(ticket.name, ticket.coordinators, request)
        return NetworkRunner(network, self._shared, self._runners.state(network), enrolment)

    async def _joined(self, network: VerifyKey, runner: NetworkRunner, ticket: Ticket, wall_s: float) -> Joined:
        try:
            async with asyncio.timeout(JOIN_WITHIN_S):
                return await asyncio.shield(runner.joined)
        except TimeoutError:
            why = runner.situation.why_not_joined
            expired = "; by this machine's clock the ticket has expired" if ticket.not_after <= wall_s else ""
            if not runner.situation.enrolling:
                raise OperationFailed(f"{runner.name}: {why}") from None
            await self._give_up(network, runner)
            raise Unreachable(f"{runner.name} could not be joined: {why}{expired}") from None
        except WarrenError:
            await self._give_up(network, runner)
            raise

    async def _give_up(self, network: VerifyKey, runner: NetworkRunner) -> None:
        """An enrolment came to nothing. What this machine had of that network before goes on."""
        await self._runners.drop(network, runner)
        self._runners.resume(network)

    async def leave(self, name: str) -> None:
        """Give up the membership in the network called ``name`` (or known by that id), and forget all about it.

        Raises OperationFailed for an unknown name, UsageError for one of two networks, Unreachable when no coordinator
        confirms.
        """
        network, runner = self._runners.find(name)
        if not runner.situation.needs_ticket:
            await runner.leave()
        await self._runners.drop(network, runner)
        runner.state.remove()
        self._shared.keys.forget(network)
        _log.info("%s: left", runner.name)


def _checked(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"{name!r} is no name for a node: say 1 to 63 of a-z, 0-9 and hyphens, as in a host name")
    return name
