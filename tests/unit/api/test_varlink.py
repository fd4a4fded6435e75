"""The client's side of calls over a Unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.api.varlink_echo import (
    NAME,
    Number,
    Text,
    serving,
)
from warren.api.varlink import VarlinkClient
from warren.api.varlink_agent import Nothing
from warren.api.varlink_server import Interface, Method
from warren.errors import OperationFailed, Unreachable


def test_nobody_there_is_unreachable(path: Path) -> None:
    with pytest.raises(Unreachable, match="is it running"):
        asyncio.run(VarlinkClient.connect(path, "the agent"))


def test_a_path_too_long_for_a_socket_is_unreachable() -> None:
    with pytest.raises(Unreachable):
        asyncio.run(VarlinkClient.connect(Path("/" + "x" * 200), "the agent"))


def test_an_answer_that_does_not_come_is_unreachable(path: Path) -> None:
    async def run() -> None:
        async def wait(_: Nothing) -> None:
            await asyncio.Event().wait()

        async with (
            serving(path, Interface(NAME, "", {"Wait": Method(Nothing, wait)})),
            await VarlinkClient.connect(path, "the agent") as client,
        ):
            with pytest.raises(Unreachable, match="did not answer within"):
                await client.call(f"{NAME}.Wait", Nothing(), Nothing, within_s=0.05)

    asyncio.run(run())


def test_an_answer_of_another_version_is_named_as_such(path: Path) -> None:
    async def run() -> None:
        async with serving(path), await VarlinkClient.connect(path, "the agent") as client:
            with pytest.raises(OperationFailed, match="restart it if Warren was updated"):
                await client.call(f"{NAME}.Echo", Text("x"), Number)
            with pytest.raises(OperationFailed, match="MethodNotFound"):
                await client.call(f"{NAME}.Sing", Nothing(), Nothing)

    asyncio.run(run())
