"""``org.warren.Agent``: what an agent is asked on its control socket, in one place for both ends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from warren.api.varlink import VarlinkClient
from warren.api.varlink_idl import describe
from warren.proto.control.local import VARLINK_INTERFACE, AgentStatus, Explanation, Joined, Stream

JOIN_WITHIN_S: Final = 120.0
"""A coordinator may be slow, or the third of three addresses."""


class Nothing(msgspec.Struct, frozen=True):
    """No parameters, or an answer that says only that it is done."""


class StatusAnswer(msgspec.Struct, frozen=True):
    """Everything that there is to know."""

    status: AgentStatus


class JoinRequest(msgspec.Struct, frozen=True):
    """``ticket`` is a secret."""

    ticket: str
    name: str | None = None

    def __repr__(self) -> str:
        return f"JoinRequest(name={self.name!r}, …)"


class JoinAnswer(msgspec.Struct, frozen=True):
    """What the node is in its new network."""

    joined: Joined


class LeaveRequest(msgspec.Struct, frozen=True):
    """``network``: its name or key."""

    network: str


class ResolveRequest(msgspec.Struct, frozen=True):
    """``name``: of a member, with or without its domain."""

    name: str


class ResolveAnswer(msgspec.Struct, frozen=True):
    """Overlay addresses, the best first."""

    addresses: tuple[str, ...]


class ExplainRequest(msgspec.Struct, frozen=True):
    """``name``: of a member, with or without its domain."""

    name: str


class ExplainAnswer(msgspec.Struct, frozen=True):
    """How it stands with it."""

    explanation: Explanation


class ForwardRequest(msgspec.Struct, frozen=True):
    """``listen``: ``[ADDR:]PORT``. ``target``: ``TARGET:PORT[/udp]``; null: a SOCKS5 server. Without ``keep`` it is to
    be called with ``more``, and lasts as long as its caller stays.
    """

    listen: str
    target: str | None = None
    keep: bool = False


class ForwardAnswer(msgspec.Struct, frozen=True):
    """What was made."""

    stream: Stream


class ForwardsAnswer(msgspec.Struct, frozen=True):
    """Those of agent.toml, and those by command."""

    streams: tuple[Stream, ...]


class UnforwardRequest(msgspec.Struct, frozen=True):
    """``place``: where it listens, ``[ADDR:]PORT[/udp]``."""

    place: str


METHODS: Final[dict[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]]] = {
    "Status": (Nothing, StatusAnswer),
    "Join": (JoinRequest, JoinAnswer),
    "Leave": (LeaveRequest, Nothing),
    "Resolve": (ResolveRequest, ResolveAnswer),
    "Explain": (ExplainRequest, ExplainAnswer),
    "Forward": (ForwardRequest, ForwardAnswer),
    "Forwards": (Nothing, ForwardsAnswer),
    "Unforward": (UnforwardRequest, Nothing),
    "Reload": (Nothing, Nothing),
    "Stop": (Nothing, Nothing),
}
"""Each with the structs of its parameters and of its answer."""


def description() -> str:
    """The interface in Varlink's definition language."""
    return describe(VARLINK_INTERFACE, METHODS)


class AgentClient:
    """The agent of this host, by :func:`agent_at`. Raises what the agent raised, and Unreachable when it is gone."""

    def __init__(self, client: VarlinkClient) -> None:
        self._client = client

    async def status(self) -> AgentStatus:
        return (await self._client.call(_name("Status"), Nothing(), StatusAnswer)).status

    async def join(self, ticket: str, name: str | None = None) -> Joined:
        request = JoinRequest(ticket, name)
        return (await self._client.call(_name("Join"), request, JoinAnswer, within_s=JOIN_WITHIN_S)).joined

    async def leave(self, network: str) -> None:
        await self._client.call(_name("Leave"), LeaveRequest(network), Nothing)

    async def resolve(self, name: str) -> tuple[str, ...]:
        return (await self._client.call(_name("Resolve"), ResolveRequest(name), ResolveAnswer)).addresses

    async def explain(self, name: str) -> Explanation:
        return (await self._client.call(_name("Explain"), ExplainRequest(name), ExplainAnswer)).explanation

    async def forward(self, listen: str, target: str | None) -> Stream:
        """Make a forward that is kept; ``target`` None: a SOCKS5 server."""
        request = ForwardRequest(listen, target, keep=True)
        return (await self._client.call(_name("Forward"), request, ForwardAnswer)).stream

    async def hold_forward(self, listen: str, target: str | None) -> AsyncGenerator[Stream, None]:
        """Make a forward that lasts as long as this is iterated: yields it once, and ends when it was removed."""
        async with contextlib.aclosing(
            self._client.hold(_name("Forward"), ForwardRequest(listen, target), ForwardAnswer)
        ) as answers:
            async for answer in answers:
                yield answer.stream

    async def forwards(self) -> tuple[Stream, ...]:
        return (await self._client.call(_name("Forwards"), Nothing(), ForwardsAnswer)).streams

    async def unforward(self, place: str) -> None:
        await self._client.call(_name("Unforward"), UnforwardRequest(place), Nothing)

    async def reload(self) -> None:
        await self._client.call(_name("Reload"), Nothing(), Nothing)

    async def stop(self) -> None:
        await self._client.call(_name("Stop"), Nothing(), Nothing)


@asynccontextmanager
async def agent_at(path: Path) -> AsyncIterator[AgentClient]:
    """A connection to the agent whose control socket is ``path``. Raises Unreachable, OperationFailed."""
    async with await VarlinkClient.connect(path, "the agent") as client:
        yield AgentClient(client)


def _name(method: str) -> str:
    return f"{VARLINK_INTERFACE}.{method}"
