"""What every store of the coordinator promises; run over the one in memory, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from warren.coordinator.conditions import above, at_most, differs, equal
from warren.coordinator.problems import Problem
from warren.coordinator.rows import ROWS, DocumentRow, EventRow, FactRow, InviteRow, MemberRow, NetworkRow, TokenRow
from warren.coordinator.store import Store

NETWORK = bytes(range(32))
STRANGER = bytes(32)


def network_row(key: bytes = NETWORK, name: str = "home") -> NetworkRow:
    return NetworkRow(
        key=key,
        name=name,
        seed=bytes(32),
        prefix6="fd00::/48",
        prefix4=None,
        suffix="internal",
        lease_s=3600,
        version=1,
        revision=2**40,
        horizon=0,
        next_slot=1,
        tests=b"[]",
        created=1_700_000_000.25,
    )


def document_row(subject: bytes, revision: int, envelope: bytes = b"x") -> DocumentRow:
    return DocumentRow(
        network=NETWORK,
        kind="membership",
        subject=subject,
        version=2**63 - 1,
        revision=revision,
        changed=1.0,
        envelope=envelope,
    )


def member_row(node: bytes, name: str, slot: int) -> MemberRow:
    return MemberRow(
        network=NETWORK,
        node=node,
        name=name,
        slot=slot,
        address4=None,
        tags=("web", "größe"),
        routes=(),
        ephemeral=True,
        joined=1.0,
        lease_ends=2.0,
        lease_last=2.0,
        renew_at=1.5,
        version=1,
        invite="abc",
        last_seen=1.0,
        observed="",
    )


class StoreConformance:
    """Subclasses say where a store comes from; each test gets a fresh one."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @asynccontextmanager
    async def store(self, url: str) -> AsyncIterator[Store]:
        raise NotImplementedError
        yield

    def run(self, url: str, scenario: Callable[[Store], Awaitable[None]]) -> None:
        async def main() -> None:
            async with self.store(url) as store:
                await scenario(store)

        asyncio.run(asyncio.wait_for(main(), 60))

    def test_a_row_comes_back_as_it_was_put(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            rows = (network_row(), document_row(b"n", 7), member_row(b"n" * 32, "web", 1))
            async with store.write() as tx:
                await tx.put(*rows)
            async with store.read() as tx:
                assert await tx.get(NetworkRow, NETWORK) == rows[0]
                assert await tx.get(DocumentRow, NETWORK, "membership", b"n") == rows[1]
                assert await tx.get(MemberRow, NETWORK, b"n" * 32) == rows[2]
                assert await tx.get(NetworkRow, STRANGER) is None

        self.run(url, scenario)

    def test_a_row_takes_the_place_of_that_with_its_key(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row())
                await tx.put(msgspec.structs.replace(network_row(), revision=9, prefix4="10.0.0.0/8"))
            async with store.read() as tx:
                (row,) = await tx.find(NetworkRow)
                assert (row.revision, row.prefix4) == (9, "10.0.0.0/8")

        self.run(url, scenario)

    def test_rows_are_found_by_all_conditions_in_order_and_counted(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row(), *(document_row(bytes([i]), i, b"" if i == 3 else b"x") for i in range(9)))
            async with store.read() as tx:
                found = await tx.find(
                    DocumentRow,
                    equal("network", NETWORK),
                    above("revision", 1),
                    at_most("revision", 6),
                    differs("envelope", b""),
                    order="revision",
                    descending=True,
                    limit=3,
                )
                assert [row.revision for row in found] == [6, 5, 4]
                assert await tx.count(DocumentRow, above("revision", 1)) == 7
                assert await tx.find(DocumentRow, equal("network", STRANGER)) == []

        self.run(url, scenario)

    def test_nothing_is_neither_more_nor_less_than_something(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            def event(sequence: int, network: bytes | None) -> EventRow:
                return EventRow(
                    sequence=sequence, at=1.0, actor="a", action="b", network=network, subject="", detail=""
                )

            async with store.write() as tx:
                await tx.put(network_row(), event(1, None), event(2, NETWORK))
            async with store.read() as tx:
                assert [row.sequence for row in await tx.find(EventRow, equal("network", None))] == [1]
                assert [row.sequence for row in await tx.find(EventRow, differs("network", None))] == [2]
                assert [row.sequence for row in await tx.find(EventRow, differs("network", NETWORK))] == [1]

        self.run(url, scenario)

    def test_deleting_says_how_many_and_wants_a_condition(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row(), *(document_row(bytes([i]), i) for i in range(5)))
                assert await tx.delete(DocumentRow, at_most("revision", 2)) == 3
                assert await tx.delete(DocumentRow, at_most("revision", 2)) == 0
                with pytest.raises(ValueError, match="condition"):
                    await tx.delete(DocumentRow)
            async with store.read() as tx:
                assert await tx.count(DocumentRow) == 2

        self.run(url, scenario)

    def test_a_transaction_that_fails_leaves_nothing(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row(), document_row(b"a", 1), FactRow(name="x", value=b"1"))

            async def fail() -> None:
                async with store.write() as tx:
                    await tx.put(document_row(b"a", 2), document_row(b"b", 3))
                    await tx.delete(FactRow, equal("name", "x"))
                    raise RuntimeError("on purpose")

            with pytest.raises(RuntimeError, match="on purpose"):
                await fail()
            async with store.read() as tx:
                assert [(row.subject, row.revision) for row in await tx.find(DocumentRow)] == [(b"a", 1)]
                assert await tx.get(FactRow, "x") == FactRow(name="x", value=b"1")

        self.run(url, scenario)

    @pytest.mark.parametrize(
        "second",
        [
            network_row(STRANGER, "home"),
            member_row(b"m" * 32, "web", 2),
            member_row(b"m" * 32, "other", 1),
        ],
        ids=["a network's name", "a member's name", "a member's place"],
    )
    def test_what_is_to_be_unique_is_refused_twice(self, url: str, second: NetworkRow | MemberRow) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row(), member_row(b"n" * 32, "web", 1))
            with pytest.raises(Problem) as refused:
                async with store.write() as tx:
                    await tx.put(second)
            assert refused.value.kind == "conflict"
            async with store.read() as tx:
                assert await tx.count(type(second)) == 1

        self.run(url, scenario)

    def test_a_row_of_a_network_that_is_not_there_is_refused(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            with pytest.raises(Problem) as refused:
                async with store.write() as tx:
                    await tx.put(document_row(b"a", 1))
            assert refused.value.kind == "conflict"

        self.run(url, scenario)

    def test_a_unique_name_is_free_again_once_its_row_is_gone(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row(), member_row(b"n" * 32, "web", 1))
                await tx.delete(MemberRow, equal("node", b"n" * 32))
                await tx.put(member_row(b"m" * 32, "web", 1))
                await tx.put(msgspec.structs.replace(member_row(b"m" * 32, "new", 1)))
                await tx.put(member_row(b"k" * 32, "web", 2))

        self.run(url, scenario)

    def test_writers_take_turns_from_reading_to_committing(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async def count() -> None:
                async with store.write() as tx:
                    row = await tx.get(FactRow, "n")
                    await asyncio.sleep(0)
                    await tx.put(FactRow(name="n", value=bytes([row.value[0] + 1 if row else 1])))

            await asyncio.gather(*(count() for _ in range(40)))
            async with store.read() as tx:
                assert await tx.get(FactRow, "n") == FactRow(name="n", value=bytes([40]))

        self.run(url, scenario)

    def test_readers_see_what_was_committed_and_nothing_else(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            written, go_on = asyncio.Event(), asyncio.Event()

            async def write() -> None:
                async with store.write() as tx:
                    await tx.put(FactRow(name="n", value=b"1"))
                    written.set()
                    await go_on.wait()

            async def read() -> FactRow | None:
                async with store.read() as tx:
                    return await tx.get(FactRow, "n")

            writer = asyncio.create_task(write())
            await written.wait()
            reader = asyncio.create_task(read())
            await asyncio.sleep(0)
            go_on.set()
            await writer
            assert await reader in {None, FactRow(name="n", value=b"1")}
            assert await read() == FactRow(name="n", value=b"1")

        self.run(url, scenario)

    def test_every_table_is_there(self, url: str) -> None:
        async def scenario(store: Store) -> None:
            async with store.read() as tx:
                assert [await tx.count(row) for row in ROWS] == [0] * len(ROWS)
                assert {TokenRow, InviteRow} < set(ROWS)

        self.run(url, scenario)


class DurableStoreConformance(StoreConformance):
    """What a database promises beyond one process."""

    def test_what_was_committed_is_there_after_closing_and_opening(self, url: str) -> None:
        async def first(store: Store) -> None:
            async with store.write() as tx:
                await tx.put(network_row())

        async def second(store: Store) -> None:
            async with store.read() as tx:
                assert await tx.get(NetworkRow, NETWORK) == network_row()

        self.run(url, first)
        self.run(url, second)

    def test_several_open_it_at_once_for_the_first_time(self, url: str) -> None:
        async def main() -> None:
            async def one() -> None:
                async with self.store(url) as store, store.read() as tx:
                    assert await tx.count(NetworkRow) == 0

            await asyncio.gather(*(one() for _ in range(5)))

        asyncio.run(asyncio.wait_for(main(), 60))

    def test_the_migrations_make_the_tables_that_the_rows_describe(self, url: str) -> None:
        differences = self.differences(url)
        assert differences == []

    def differences(self, url: str) -> list[object]:
        """What alembic would change."""
        raise NotImplementedError
