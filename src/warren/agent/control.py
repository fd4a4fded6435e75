"""The control socket: what ``warren`` on this machine may ask of the agent (``org.warren.Agent``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from warren import __version__
from warren.agent.agent import Agent
from warren.api.varlink_agent import (
    METHODS,
    ExplainAnswer,
    ExplainRequest,
    ForwardAnswer,
    ForwardRequest,
    ForwardsAnswer,
    JoinAnswer,
    JoinRequest,
    LeaveRequest,
    Nothing,
    ResolveAnswer,
    ResolveRequest,
    StatusAnswer,
    UnforwardRequest,
    description,
)
from warren.api.varlink_server import Interface, Method, VarlinkServer
from warren.errors import UsageError
from warren.proto.control.local import VARLINK_INTERFACE

_LAST_WORDS_S: Final = 0.05
"""For the answer to ``Stop`` to leave before the socket is closed."""


@asynccontextmanager
async def serve(agent: Agent, path: Path) -> AsyncIterator[None]:
    """Answer on the socket ``path`` while the block runs. Raises OperationFailed when it cannot be made."""
    handlers = _Handlers(agent)
    held = {"Forward": handlers.hold_forward}
    methods = {
        name: Method(request, getattr(handlers, name.lower()), held.get(name)) for name, (request, _) in METHODS.items()
    }
    server = VarlinkServer(path, [Interface(VARLINK_INTERFACE, description(), methods)], version=__version__)
    await server.start()
    try:
        yield
    finally:
        await server.close()


class _Handlers:
    """One for each method, by its name in lower case."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def status(self, _: Nothing) -> StatusAnswer:
        return StatusAnswer(await self._agent.status())

    async def join(self, request: JoinRequest) -> JoinAnswer:
        return JoinAnswer(await self._agent.join(request.ticket, request.name))

    async def leave(self, request: LeaveRequest) -> Nothing:
        await self._agent.leave(request.network)
        return Nothing()

    async def resolve(self, request: ResolveRequest) -> ResolveAnswer:
        return ResolveAnswer(self._agent.resolve(request.name))

    async def explain(self, request: ExplainRequest) -> ExplainAnswer:
        return ExplainAnswer(await self._agent.explain(request.name))

    async def forward(self, request: ForwardRequest) -> ForwardAnswer:
        if not request.keep:
            raise UsageError("a forward that is not kept lasts as long as its call, which has to be made with `more`")
        return ForwardAnswer(await self._agent.forwards.keep(request.listen, request.target))

    @asynccontextmanager
    async def hold_forward(self, request: ForwardRequest) -> AsyncIterator[tuple[ForwardAnswer, asyncio.Event]]:
        if request.keep:
            raise UsageError("a forward that is kept is made by one call without `more`")
        async with self._agent.forwards.hold(request.listen, request.target) as (stream, ended):
            yield ForwardAnswer(stream), ended

    async def forwards(self, _: Nothing) -> ForwardsAnswer:
        return ForwardsAnswer(await self._agent.forwards.all())

    async def unforward(self, request: UnforwardRequest) -> Nothing:
        await self._agent.forwards.remove(request.place)
        return Nothing()

    async def reload(self, _: Nothing) -> Nothing:
        self._agent.reload()
        return Nothing()

    async def stop(self, _: Nothing) -> Nothing:
        asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._agent.stop)
        return Nothing()
