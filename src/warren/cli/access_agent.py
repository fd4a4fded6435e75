"""How commands find the agent of this machine: its control socket in the directory of ``--run`` or WARREN_RUN, by
default where an agent of the same user has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from pathlib import Path
    from socket import socket as Socket  # noqa: N812

    from warren.api.varlink_agent import AgentClient
    from warren.proto.control.local import AgentStatus

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

WITHIN_S: Final = 10.0
"""The agent answers in milliseconds, also when no coordinator does."""


def run_option(function: F) -> F:
    """``--run DIR``."""
    option = click.option(
        "--run",
        metavar="DIR",
        help="Where the agent's control socket is. [default: as `warren up` of this user has it]",
    )
    return option(function)


def ask(run: str | None, question: Callable[[AgentClient], Awaitable[T]], *, within_s: float = WITHIN_S) -> T:
    """Run ``question`` with a connection to the agent. Raises Unreachable when none runs, or it does not answer."""
    import asyncio

    from warren.agent.places import places
    from warren.api.varlink_agent import agent_at
    from warren.errors import Unreachable

    socket = places(run=run).socket
    try:
        socket.lstat()
    except FileNotFoundError:
        other = "; root's is asked with sudo" if run is None and _is_roots(socket) else ""
        raise Unreachable(f"no agent runs here, there is no {socket}; `warren up` starts one{other}") from None
    except OSError:
        pass  # connecting says more

    async def session() -> T:
        try:
            async with asyncio.timeout(within_s), agent_at(socket) as agent:
                return await question(agent)
        except TimeoutError:
            raise Unreachable(f"the agent did not answer within {within_s:g} s: look into its log") from None

    return asyncio.run(session())


def _is_roots(socket: Path) -> bool:
    """Whether root runs an agent, and this user asked for an own one."""
    from warren.agent.places import RUN

    return socket.parent != RUN and RUN.exists()


def overlay_socket(run: str | None, family: int, kind: int, protocol: int = 0) -> Socket | None:
    """A blocking socket of the overlay of a rootless node; None when there is no such node: then the host's own reach
    the overlay. Raises OperationFailed.
    """
    from warren.agent.places import places
    from warren.errors import Unreachable

    nest = places(run=run).nest
    if not nest.exists():
        return None
    from warren.engine.rootless.now import open_now

    try:
        return open_now(nest, family, kind, protocol)
    except Unreachable:
        return None  # left by an agent that was killed


def status(run: str | None, *, within_s: float = WITHIN_S) -> AgentStatus:
    """All that the agent knows. Raises Unreachable when it does not answer."""
    return ask(run, lambda agent: agent.status(), within_s=within_s)
