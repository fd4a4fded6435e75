"""Who is woken, and when: at once after one change, together after a storm of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from warren.coordinator import wakes
from warren.coordinator.problems import Problem
from warren.coordinator.wakes import Wake
from warren.coordinator.web import hub as hub_module
from warren.coordinator.web.hub import Hub
from warren.coordinator.web.metrics import Metrics

NETWORK, OTHER = b"n" * 32, b"o" * 32
TURNS = 20
"""Of the event loop: plenty for whatever is to happen without waiting."""


class Session:
    """What the hub wants of one."""

    def __init__(self, network: bytes, node: bytes) -> None:
        self.network = network
        self.node = node
        self.id = node.hex()
        self.woken: list[int | None] = []
        self.refused: list[str] = []

    def wake(self, revision: int | None) -> None:
        self.woken.append(revision)

    def refuse(self, problem: Problem) -> None:
        self.refused.append(problem.kind)


class Play:
    """A hub that listens, two sessions of one network and one of another."""

    def __init__(self) -> None:
        self.news = wakes.Hub()
        self.hub = Hub(cast("Any", SimpleNamespace(watch=self.news.watch)), Metrics())
        self.sessions = [Session(NETWORK, b"a"), Session(NETWORK, b"b"), Session(OTHER, b"c")]
        for session in self.sessions:
            self.hub.join(cast("Any", session))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.hub.run())
        await turns()
        for session in self.sessions:
            session.woken.clear()  # everybody is woken when the hub begins to listen
        return self

    async def __aexit__(self, *_: object) -> None:
        self.news.close()
        await self._task

    async def say(self, *news: Wake) -> None:
        for one in news:
            self.news.publish(one)
            await turns()

    @property
    def woken(self) -> list[list[int | None]]:
        return [session.woken for session in self.sessions]


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def test_the_first_change_is_told_at_once_and_those_right_after_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WAKE_SPACING_S", 3600.0)

    async def play() -> None:
        async with Play() as it:
            await it.say(Wake(NETWORK, 5), Wake(NETWORK, 6), Wake(OTHER, 9))
            assert it.woken == [[5], [5], [9]]

    asyncio.run(play())


def test_the_end_of_a_session_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WAKE_SPACING_S", 3600.0)

    async def play() -> None:
        async with Play() as it:
            await it.say(Wake(NETWORK, 5), Wake(NETWORK, node=b"a", ended=Problem("revoked")))
            assert it.sessions[0].refused == ["revoked"]

    asyncio.run(play())


def test_after_a_storm_everybody_has_heard_of_the_last_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WAKE_SPACING_S", 0.001)

    async def play() -> None:
        async with Play() as it:
            for revision in range(1, 51):
                it.news.publish(Wake(NETWORK, revision))
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                while it.sessions[1].woken[-1:] != [50]:
                    await turns()
            assert it.sessions[0].woken[0] == 1
            assert it.sessions[0].woken[-1] == 50
            assert len(it.sessions[0].woken) < 25

    asyncio.run(play())


def test_nothing_is_told_once_the_hub_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WAKE_SPACING_S", 0.001)

    async def play() -> None:
        async with Play() as it:
            await it.say(Wake(NETWORK, 5), Wake(NETWORK, 6))
        before = [list(one) for one in it.woken]
        await turns()
        assert it.woken == before

    asyncio.run(play())
