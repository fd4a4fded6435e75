"""A stream process that runs and does not answer: it is stopped by a debugger, or the machine has no memory left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.agent.streams.fakes import FakeProcess, view
from tests.unit.agent.streams.keeper_world import WEB, FakeNetwork, World, running
from warren.errors import Unreachable
from warren.l4.config import Status


def test_what_is_known_is_told_soon_when_the_process_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.agent.streams.keeper.REFRESH_WITHIN_S", 0.05)

    async def hang(_: FakeProcess) -> Status:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view(WEB)))) as world:
            await world.keeper.settle()
            known = world.keeper.streams
            assert known
            monkeypatch.setattr(FakeProcess, "status", hang)
            async with asyncio.timeout(10):
                await world.keeper.refresh()
            assert world.keeper.streams == known

    asyncio.run(run())


@pytest.mark.parametrize("answers", [1, 0])
def test_a_process_that_never_answers_is_ended_and_followed_by_another_and_a_slow_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    monkeypatch.setattr("warren.agent.streams.process.LOOK_S", 0.0)
    monkeypatch.setattr("warren.agent.streams.process.AGAIN_S", 0.0)
    status = FakeProcess.status
    enough = asyncio.Event()
    looks = 0

    async def seldom(process: FakeProcess) -> Status:
        nonlocal looks
        looks += 1
        if looks > 10:
            enough.set()
            return await status(process)
        if answers and looks % 2:
            return await status(process)
        raise Unreachable("the stream process does not answer")

    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view(WEB)))) as world:
            await world.keeper.settle()
            monkeypatch.setattr(FakeProcess, "status", seldom)
            async with asyncio.timeout(10):
                await enough.wait()
            assert (len(world.processes) > 1) == (not answers)
            assert world.processes[0].closed == (not answers)

    asyncio.run(run())
