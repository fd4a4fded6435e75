"""Whether a target can be connected to, with checks that the test answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.l4_ends import LIMIT_S, until
from warren.l4.health import Health
from warren.l4.kinds import Refused


class Target:
    def __init__(self) -> None:
        self.alive = True
        self.checks = 0
        self.changes: list[bool] = []
        self.health: Health | None = None

    async def check(self) -> None:
        self.checks += 1
        if not self.alive:
            raise Refused("connect", "it refuses")

    async def changed(self) -> None:
        assert self.health is not None
        self.changes.append(self.health.healthy)


def run(main: Callable[[Target], Awaitable[None]], every_s: float, *, alive: bool = True) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            target = Target()
            target.alive = alive
            target.health = Health(target.check, every_s, target.changed)
            try:
                await main(target)
            finally:
                await target.health.close()

    asyncio.run(limited())


def test_it_is_not_healthy_before_the_first_check_has_said_so() -> None:
    async def main(target: Target) -> None:
        assert target.health is not None
        assert not target.health.healthy
        await target.health.checked.wait()
        assert target.health.healthy
        assert target.changes == [True]

    run(main, 10)


def test_it_is_checked_again_and_again_and_changes_are_told_once() -> None:
    async def main(target: Target) -> None:
        await until(lambda: target.checks >= 3)
        assert target.changes == [True]
        target.alive = False
        await until(lambda: target.changes == [True, False])
        assert target.health is not None
        assert target.health.reason == "it refuses"
        target.alive = True
        await until(lambda: target.changes == [True, False, True])
        assert target.health.reason == ""

    run(main, 0.01)


def test_a_stream_that_could_not_be_opened_makes_it_unhealthy_at_once_until_a_check_succeeds() -> None:
    async def main(target: Target) -> None:
        assert target.health is not None
        await target.health.checked.wait()
        target.health.failed("no stream came through")
        assert not target.health.healthy
        await until(lambda: target.changes == [True, False, True])
        assert target.checks == 2

    run(main, 3600)


def test_a_target_that_stays_dead_is_told_once() -> None:
    async def main(target: Target) -> None:
        assert target.health is not None
        await until(lambda: target.checks >= 5)
        target.health.failed("still dead")
        assert target.health.reason == "it refuses"
        assert target.changes == []

    run(main, 0.01, alive=False)
