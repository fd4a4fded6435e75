"""The store in PostgreSQL, and what replicas tell each other through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.postgres import PostgresServer, postgres_server
from tests.support.store_conformance import DurableStoreConformance
from warren.coordinator import store_postgres
from warren.coordinator.migrations.run import VERSION_TABLE
from warren.coordinator.problems import Problem
from warren.coordinator.rows import FactRow
from warren.coordinator.schema import METADATA
from warren.coordinator.store import NOTICE_CHARACTERS_MAX, Store, open_store
from warren.errors import OperationFailed, UsageError


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.database()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


class TestPostgresStore(DurableStoreConformance):
    @pytest.fixture
    def url(self, server: PostgresServer) -> str:
        return server.database()

    @asynccontextmanager
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with opened(url) as store:
            yield store

    def differences(self, url: str) -> list[object]:
        def compare(connection: sa.Connection) -> list[object]:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

        async def main() -> list[object]:
            async with opened(url):
                pass
            engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
            async with engine.connect() as connection:
                found = await connection.run_sync(compare)
            await engine.dispose()
            return found

        return asyncio.run(main())


class Ear:
    def __init__(self) -> None:
        self.heard: asyncio.Queue[str | None] = asyncio.Queue()

    def __call__(self, notice: str | None) -> None:
        self.heard.put_nowait(notice)

    async def next(self) -> str | None:
        return await asyncio.wait_for(self.heard.get(), 20)


def test_a_notice_goes_to_the_other_replicas_with_the_commit(url: str) -> None:
    async def main() -> None:
        async with opened(url) as one, opened(url) as other:
            ear = Ear()
            await other.listen(ear)
            assert await ear.next() is None  # it listens now; what was before is to be looked for

            async def fail() -> None:
                async with one.write() as tx:
                    await tx.notify("never said")
                    raise RuntimeError("on purpose")

            with pytest.raises(RuntimeError, match="on purpose"):
                await fail()
            async with one.write() as tx:
                await tx.put(FactRow(name="x", value=b"1"))
                await tx.notify("changed")
            await one.notify("x" * NOTICE_CHARACTERS_MAX)
            assert await ear.next() == "changed"
            async with other.read() as tx:
                assert await tx.get(FactRow, "x") is not None
            assert await ear.next() == "x" * NOTICE_CHARACTERS_MAX

    asyncio.run(main())


def test_a_listener_that_was_cut_off_listens_again_and_says_so(
    url: str, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_postgres, "LISTEN_AGAIN_S", (0.01, 0.1))

    async def main() -> None:
        async with opened(url) as store:
            ear = Ear()
            await store.listen(ear)
            assert await ear.next() is None
            await asyncio.to_thread(server.cut_connections)
            assert await ear.next() is None
            await store.notify("again")
            assert await ear.next() == "again"

    asyncio.run(main())


def test_a_server_that_goes_away_is_unavailable_and_used_again_when_it_is_back(
    url: str, server: PostgresServer
) -> None:
    async def main() -> None:
        async with opened(url) as store:
            async with store.write() as tx:
                await tx.put(FactRow(name="x", value=b"1"))
            server.stop()
            for transaction in (store.read, store.write):
                with pytest.raises(Problem) as refused:
                    async with transaction() as tx:
                        await tx.get(FactRow, "x")
                assert (refused.value.kind, refused.value.retry_after_s) == ("unavailable", 5.0)
            server.start()
            async with store.read() as tx:
                assert await tx.get(FactRow, "x") is not None

    asyncio.run(main())


def test_a_replica_that_hangs_with_the_lock_holds_the_others_up_for_a_bounded_time(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_postgres, "LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(store_postgres, "IDLE_TIMEOUT_S", 0.5)

    async def main() -> None:
        async def hang() -> None:
            async with hanging.write() as tx:
                await tx.put(FactRow(name="x", value=b"1"))
                stuck.set()
                await go_on.wait()

        async def write() -> None:
            async with other.write() as tx:
                await tx.put(FactRow(name="y", value=b"1"))

        stuck, go_on = asyncio.Event(), asyncio.Event()
        async with opened(url) as hanging, opened(url) as other:
            task = asyncio.create_task(hang())
            await stuck.wait()
            with pytest.raises(Problem) as refused:
                await write()
            assert (refused.value.kind, refused.value.retry_after_s) == ("unavailable", 5.0)
            for _ in range(100):  # until the server has cut the hanging one off
                try:
                    await write()
                    break
                except Problem:
                    continue
            go_on.set()
            with pytest.raises(Problem):
                await task
            async with other.read() as tx:
                assert await tx.get(FactRow, "x") is None
                assert await tx.get(FactRow, "y") is not None

    asyncio.run(main())


def test_a_server_that_is_not_there_is_named_without_the_password(server: PostgresServer) -> None:
    with pytest.raises(OperationFailed) as failed:
        asyncio.run(open_store("postgresql://warren:hunter2@/warren?host=/nonexistent"))
    assert "see that it runs" in str(failed.value)
    assert "hunter2" not in str(failed.value)


def test_a_url_that_does_not_parse_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="does not parse"):
        asyncio.run(open_store("postgresql://host:port:port/x"))
