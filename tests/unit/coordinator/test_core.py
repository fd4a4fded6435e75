"""The queue of writers: one commit for many, failures that stay alone, answers only after the commit."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.coordinators import Clock, seeded
from warren.coordinator import core as core_module
from warren.coordinator.core import BATCH_MAX, Core
from warren.coordinator.problems import Problem, unavailable
from warren.coordinator.rows import EventRow, FactRow
from warren.coordinator.service import Options
from warren.coordinator.store_memory import MemoryStore
from warren.coordinator.work import Work


def make_core() -> Core:
    return Core(MemoryStore(), urls=(), wall_clock=Clock(), random=seeded(1), options=Options())


async def put(work: Work, name: str) -> str:
    await work.put(FactRow(name=name, value=b""))
    work.event("test", "fact.put", None, name)
    return name


async def facts(core: Core) -> set[str]:
    async with core.read() as work:
        return {row.name for row in await work.find(FactRow)}


def test_use_cases_that_wait_together_share_commits() -> None:
    async def main() -> None:
        core = make_core()
        names = await asyncio.gather(*(core.write(lambda work, i=i: put(work, f"{i}")) for i in range(100)))  # type: ignore[misc]
        assert names == [f"{i}" for i in range(100)]
        assert core.metrics.commits <= 2 + 100 // BATCH_MAX
        async with core.read() as work:
            assert [row.sequence for row in await work.find(EventRow, order="sequence")] == list(range(1, 101))
        await core.close()

    asyncio.run(main())


@pytest.mark.parametrize("writes_first", [True, False])
def test_one_that_fails_takes_nobody_with_it_and_leaves_nothing(writes_first: bool) -> None:
    async def main() -> None:
        core = make_core()

        async def failing(work: Work) -> None:
            if writes_first:
                await put(work, "half")
            else:
                work.event("test", "never", None, "")
            raise Problem("invalid", "on purpose")

        jobs = [core.write(lambda work: put(work, "a")), core.write(failing), core.write(lambda work: put(work, "b"))]
        first, second, third = await asyncio.gather(*jobs, return_exceptions=True)
        assert (first, third) == ("a", "b")
        assert isinstance(second, Problem)
        assert await facts(core) == {"a", "b"}
        async with core.read() as work:
            assert {row.action for row in await work.find(EventRow)} == {"fact.put"}
        await core.close()

    asyncio.run(main())


def test_a_bug_in_one_is_the_answer_to_that_one_only() -> None:
    async def main() -> None:
        core = make_core()

        async def broken(work: Work) -> None:
            await put(work, "half")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await core.write(broken)
        assert await core.write(lambda work: put(work, "a")) == "a"
        assert await facts(core) == {"a"}
        await core.close()

    asyncio.run(main())


def test_when_the_database_fails_all_who_wait_are_told_and_nothing_is_written() -> None:
    async def main() -> None:
        core = make_core()

        async def fails(work: Work) -> None:
            await put(work, "half")
            raise unavailable("the disk is full")

        outcomes = await asyncio.gather(
            core.write(lambda work: put(work, "a")), core.write(fails), return_exceptions=True
        )
        assert [getattr(outcome, "kind", None) for outcome in outcomes] == ["unavailable"] * 2
        assert await facts(core) == set()
        assert await core.write(lambda work: put(work, "b")) == "b"
        await core.close()

    asyncio.run(main())


def test_who_gave_up_waiting_does_not_hold_up_the_others() -> None:
    async def main() -> None:
        core = make_core()
        given_up = asyncio.create_task(core.write(lambda work: put(work, "a")))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await core.write(lambda work: put(work, "b")) == "b"
        assert given_up.cancelled()
        await core.close()

    asyncio.run(main())


def test_a_storm_beyond_the_bound_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_module, "WAITING_MAX", 10)

    async def main() -> None:
        core = make_core()
        outcomes = await asyncio.gather(
            *(core.write(lambda work: put(work, "x")) for _ in range(15)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
        assert [(problem.kind, problem.retry_after_s) for problem in refused] == [("limit", 10.0)] * 5
        await core.close()
        with pytest.raises(Problem, match="stopping"):
            await core.write(lambda work: put(work, "late"))

    asyncio.run(main())
