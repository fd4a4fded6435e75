"""The store in SQLite, and what may be wrong with its file."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.support.store_conformance import DurableStoreConformance
from warren.coordinator import store_sqlite
from warren.coordinator.migrations.run import VERSION_TABLE
from warren.coordinator.problems import Problem
from warren.coordinator.rows import FactRow
from warren.coordinator.schema import METADATA
from warren.coordinator.store import Store, open_store
from warren.errors import OperationFailed, UsageError


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{path}")
    try:
        yield store
    finally:
        await store.close()


class TestSqliteStore(DurableStoreConformance):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path}/state/coordinator.db"

    @asynccontextmanager
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with opened(Path(url.removeprefix("sqlite:///"))) as store:
            yield store

    def differences(self, url: str) -> list[object]:
        async def nothing(_: Store) -> None:
            pass

        self.run(url, nothing)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            found = compare_metadata(MigrationContext.configure(connection, opts=options), METADATA)
        engine.dispose()
        return list(found)


def fill(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store, store.write() as tx:
            await tx.put(*(FactRow(name=f"{i}", value=bytes(2000)) for i in range(50)))

    asyncio.run(main())


def refusal(path: Path) -> str:
    async def main() -> None:
        async with opened(path):
            pass

    with pytest.raises(OperationFailed) as failed:
        asyncio.run(main())
    return str(failed.value)


def test_the_file_and_its_journals_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "coordinator.db"
    before = os.umask(0)
    try:

        async def main() -> set[int]:
            async with opened(path) as store, store.write() as tx:
                await tx.put(FactRow(name="x", value=b""))
                return {file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

        assert asyncio.run(main()) == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_a_file_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    fill(path)
    path.chmod(0o640)
    assert "others may read it (mode 0640)" in refusal(path)
    assert "chmod 600" in refusal(path)


def zeroed(data: bytearray, seed: random.Random) -> None:
    data[:100] = bytes(100)


def truncated(data: bytearray, seed: random.Random) -> None:
    del data[len(data) // 2 :]


def garbled(data: bytearray, seed: random.Random) -> None:
    for i in range(4096, len(data), 4096):
        data[i : i + 64] = seed.randbytes(64)


def emptied(data: bytearray, seed: random.Random) -> None:
    data.clear()


def another(data: bytearray, seed: random.Random) -> None:
    data[:] = b"#!/bin/sh\n" + bytes(5000)


@pytest.mark.parametrize("damage", [zeroed, truncated, emptied, garbled, another], ids=lambda f: f.__name__)
def test_a_damaged_file_is_named_with_what_to_do(
    tmp_path: Path, damage: Callable[[bytearray, random.Random], None]
) -> None:
    path = tmp_path / "coordinator.db"
    fill(path)
    data = bytearray(path.read_bytes())
    damage(data, random.Random(1))
    path.write_bytes(data)
    sentence = refusal(path)
    assert str(path) in sentence
    assert "is damaged" in sentence
    assert "backup" in sentence
    assert path.read_bytes() == data  # what can be saved of it stays


def test_a_database_of_a_newer_warren_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    fill(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE schema_version SET version_num = '9999'")
        database.commit()
    assert "newer Warren (schema 9999)" in refusal(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be opened: " in refusal(tmp_path / "file" / "coordinator.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x", "mysql://x", "x"])
def test_what_is_no_place_for_a_database_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///PATH"):
        asyncio.run(open_store(url))


def test_a_locked_database_is_unavailable_and_works_again_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_sqlite, "BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "coordinator.db"
    fill(path)

    async def main() -> None:
        async with opened(path) as store:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                with pytest.raises(Problem) as refused:
                    async with store.write() as tx:
                        await tx.put(FactRow(name="x", value=b""))
                assert (refused.value.kind, refused.value.retry_after_s) == ("unavailable", 5.0)
                assert "locked" in refused.value.detail
                async with store.read() as tx:
                    assert await tx.get(FactRow, "1") is not None
            async with store.write() as tx:
                await tx.put(FactRow(name="x", value=b""))

    asyncio.run(main())


def test_a_full_disk_is_unavailable_and_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.db"
    fill(path)

    async def main() -> None:
        async with opened(path) as store:
            await limit_pages(store, 40)

            async def write_much() -> None:
                async with store.write() as tx:
                    await tx.put(FactRow(name="a", value=b"1"))
                    await tx.put(*(FactRow(name=f"big{i}", value=bytes(4000)) for i in range(200)))

            with pytest.raises(Problem) as refused:
                await write_much()
            assert refused.value.kind == "unavailable"
            assert "full" in refused.value.detail
            async with store.read() as tx:
                assert await tx.get(FactRow, "a") is None
                assert await tx.count(FactRow) == 50
            await limit_pages(store, 1_000_000)
            async with store.write() as tx:
                await tx.put(FactRow(name="a", value=b"1"))

    async def limit_pages(store: Store, pages: int) -> None:
        assert isinstance(store, store_sqlite.SqliteStore)
        with store._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    asyncio.run(main())


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "coordinator.db") as store:
            assert isinstance(store, store_sqlite.SqliteStore)
            with store._engine.connect() as connection:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1

    asyncio.run(main())


def test_a_long_transaction_lets_others_have_their_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(tmp_path / "coordinator.db") as store:
            turns, done = 0, False

            async def other() -> None:
                nonlocal turns
                while not done:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.create_task(other())
            async with store.write() as tx:
                begun = turns
                for i in range(store_sqlite.STATEMENTS_AT_ONCE * 10):
                    await tx.put(FactRow(name=f"{i}", value=b""))
                assert turns - begun >= 10
            done = True
            await task

    asyncio.run(main())
