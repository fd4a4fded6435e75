"""A stream process that runs and does not answer: it is stopped by a debugger, or the machine has no memory left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.agent.stream_fakes import FakeProcess, view
from tests.unit.agent.test_streams import WEB, FakeNetwork, World, running
from warren.l4.config import Status


def test_what_is_known_is_told_soon_when_the_process_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.agent.streams.REFRESH_WITHIN_S", 0.05)

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
