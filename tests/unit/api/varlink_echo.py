"""A service that answers what it is asked, and calls of it byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from warren.api.varlink_agent import Nothing
from warren.api.varlink_server import Interface, Method, VarlinkServer
from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError


class Text(msgspec.Struct, frozen=True):
    text: str


class Number(msgspec.Struct, frozen=True):
    number: int


ERRORS: list[type[WarrenError]] = [OperationFailed, UsageError, Unreachable]
NAME = "org.example.Echo"


async def echo(text: Text) -> Text:
    return text


async def fail(number: Number) -> None:
    raise ERRORS[number.number]("what, why, what to do")


async def break_down(_: Nothing) -> None:
    raise KeyError("a bug")


async def nothing(_: Nothing) -> None:
    return None


ECHO = Interface(
    NAME,
    "interface org.example.Echo\n",
    {
        "Echo": Method(Text, echo),
        "Fail": Method(Number, fail),
        "Break": Method(Nothing, break_down),
        "Nothing": Method(Nothing, nothing),
    },
)


@asynccontextmanager
async def serving(path: Path, *interfaces: Interface, owner: int | None = None) -> AsyncIterator[VarlinkServer]:
    server = VarlinkServer(path, interfaces or (ECHO,), version="1.2", owner=owner)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def raw(path: Path, *sent: bytes) -> list[object]:
    """What the server answers to these bytes, up to where it closes or the client has nothing more to say."""
    reader, writer = await asyncio.open_unix_connection(path)
    for part in sent:
        writer.write(part)
    writer.write_eof()
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return [json.loads(part) for part in received.split(b"\0")[:-1]]


def call(method: str, **more: object) -> bytes:
    return json.dumps({"method": method, **more}).encode() + b"\0"
