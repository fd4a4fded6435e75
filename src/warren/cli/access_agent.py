"""How commands find the agent of this machine: its Varlink socket in the directory of ``--run`` or WARREN_RUN."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from warren.api.varlink import VarlinkClient
    from warren.proto.control.local import AgentStatus

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "WARREN_RUN"
_DIRECTORY: Final = "/run/warren"
_SOCKET: Final = "agent.sock"
_WITHIN_S: Final = 10.0


def run_option(function: F) -> F:
    """``--run DIR``."""
    option = click.option(
        "--run",
        metavar="DIR",
        envvar=VARIABLE,
        default=_DIRECTORY,
        show_default=True,
        help="Where the agent has its control socket.",
    )
    return option(function)


def call(run: str | None, question: Callable[[VarlinkClient], Awaitable[T]]) -> T:
    """Run ``question`` with a connection to the agent. Raises Unreachable when none answers."""
    import asyncio

    from warren.api.varlink import VarlinkClient

    async def session() -> T:
        path = Path(run or os.environ.get(VARIABLE) or _DIRECTORY) / _SOCKET
        async with await VarlinkClient.connect(path, "the agent") as client:
            return await question(client)

    return asyncio.run(session())


def status(run: str | None, *, within_s: float = _WITHIN_S) -> AgentStatus:
    """All that the agent knows. Raises Unreachable when none answers."""
    return call(run, lambda client: ask_status(client, within_s=within_s))


async def ask_status(client: VarlinkClient, *, within_s: float = _WITHIN_S) -> AgentStatus:
    """The same, over a connection that is there."""
    from warren.proto.control.local import VARLINK_INTERFACE, AgentStatus

    answer = await client.call(f"{VARLINK_INTERFACE}.Status", {}, dict[str, AgentStatus], within_s=within_s)
    return answer["status"]


async def resolve(client: VarlinkClient, name: str) -> tuple[str, ...]:
    """The overlay addresses of a member by its short or full name."""
    from warren.proto.control.local import VARLINK_INTERFACE

    answer = await client.call(
        f"{VARLINK_INTERFACE}.Resolve", {"name": name}, dict[str, tuple[str, ...]], within_s=_WITHIN_S
    )
    return answer["addresses"]
