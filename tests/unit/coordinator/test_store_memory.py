"""The store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.store_conformance import StoreConformance
from warren.coordinator.rows import FactRow
from warren.coordinator.store import Store, open_store


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def url(self) -> str:
        return "memory:"

    @asynccontextmanager
    async def store(self, url: str) -> AsyncIterator[Store]:
        store = await open_store(url)
        yield store
        await store.close()


def test_a_transaction_that_reads_does_not_write() -> None:
    async def main() -> None:
        store = await open_store("memory:")
        async with store.read() as tx:
            with pytest.raises(TypeError, match="only reads"):
                await tx.put(FactRow(name="x", value=b""))

    asyncio.run(main())
