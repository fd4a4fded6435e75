"""The helper for TFTP: whose answers count, and what else is let through (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.l4_parties import Party
from tests.support.l4_tools import FakeTools
from warren.l4.config import Backend, Entry, Listen, Way
from warren.l4.datagrams import DatagramEntry
from warren.l4.kinds import Refused

READ = b"\0\1boot.img\0octet\0"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


def data(block: int, content: bytes = b"content") -> bytes:
    return b"\0\3" + block.to_bytes(2) + content


def ack(block: int) -> bytes:
    return b"\0\4" + block.to_bytes(2)


class Helper:
    def __init__(self, entry: DatagramEntry, tools: FakeTools) -> None:
        self.entry, self.tools = entry, tools
        host, _, port = entry.state().places[0].rpartition(":")
        self.place = (host.strip("[]"), int(port))


def to(*parties: Party) -> Way:
    return Way(backends=tuple(Backend(name="b", side="host", host=p.place[0], port=p.place[1]) for p in parties))


@asynccontextmanager
async def helper(way: Way, host: str = HERE, tools: FakeTools | None = None) -> AsyncIterator[Helper]:
    tools = tools or FakeTools()
    entry = DatagramEntry(Entry(id="tftp", kind="tftp", listen=(Listen(protocol="udp", address=host),), way=way), tools)
    await entry.open()
    try:
        yield Helper(entry, tools)
    finally:
        await entry.close()
    assert tools.open == 0
    assert entry.room.used == 0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())


@pytest.mark.parametrize("host", [HERE, "::1"])
def test_the_answer_comes_from_another_port_and_there_it_goes_on(host: str) -> None:
    async def test() -> None:
        with Party(host) as client, Party(host) as known, Party(host) as transfer:
            async with helper(to(known), host) as up:
                await client.send(READ, up.place)
                request, source = await known.hear()
                assert request == READ
                for block in (1, 2):
                    await transfer.send(data(block), source)
                    heard, who = await client.hear()
                    assert (heard, who[:2]) == (data(block), up.place)
                    await client.send(ack(block), up.place)
                    assert await transfer.hear() == (ack(block), source)
                assert known.has_nothing()

    run(test)


def test_answers_of_another_host_and_after_the_first_of_another_port_are_dropped() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as transfer, Party() as late, Party(ELSEWHERE) as other:
            async with helper(to(known)) as up:
                await client.send(READ, up.place)
                _, source = await known.hear()
                await other.send(data(1, b"another host"), source)
                await transfer.send(data(1), source)
                assert (await client.hear())[0] == data(1)
                await late.send(data(2, b"another port"), source)
                await other.send(data(2, b"another host"), source)
                await transfer.send(data(2), source)
                assert (await client.hear())[0] == data(2)
                assert client.has_nothing()

    run(test)


def test_what_was_queued_before_the_first_answer_counted_is_not_taken_for_it() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as transfer, Party() as late:
            async with helper(to(known)) as up:
                await client.send(READ, up.place)
                _, source = await known.hear()
                transfer.sock.sendto(data(1), source)  # both are there before the helper looks
                late.sock.sendto(data(1, b"late"), source)
                assert (await client.hear())[0] == data(1)
                await transfer.send(data(2), source)
                assert (await client.hear())[0] == data(2)

    run(test)


def test_a_request_that_is_repeated_before_an_answer_goes_to_the_same_transfer() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as transfer:
            async with helper(to(known)) as up:
                sources = set()
                for _ in range(3):
                    await client.send(READ, up.place)
                    sources.add((await known.hear())[1])
                assert len(sources) == 1
                await transfer.send(data(1), sources.pop())
                assert (await client.hear())[0] == data(1)

    run(test)


def test_the_next_request_of_the_same_port_is_a_new_transfer() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as first, Party() as second:
            async with helper(to(known)) as up:
                await client.send(READ, up.place)
                _, one = await known.hear()
                await first.send(data(1), one)
                await client.hear()
                await client.send(READ, up.place)
                _, other = await known.hear()
                assert other != one
                await second.send(data(1, b"second"), other)
                assert (await client.hear())[0] == data(1, b"second")
                first.sock.sendto(data(2), one)  # the old transfer is over
                await second.send(data(2, b"second"), other)
                assert (await client.hear())[0] == data(2, b"second")
                assert up.tools.opened == 1

    run(test)


@pytest.mark.parametrize("garbage", [b"", b"\0\3\0\1x", ack(1), b"\0\1boot.img\0octet", b"\0\1" + b"a" * 600, b"DNS?"])
def test_what_is_no_request_begins_nothing_and_is_not_answered(garbage: bytes) -> None:
    async def test() -> None:
        with Party() as client, Party() as known:
            async with helper(to(known)) as up:
                await client.send(garbage, up.place)
                await up.tools.until(lambda: up.tools.reasons["protocol"] == 1)
                assert up.tools.opened == 0
                await client.send(READ, up.place)
                assert (await known.hear())[0] == READ
                assert client.has_nothing()

    run(test)


def test_nothing_but_tftp_passes_in_either_direction() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as transfer:
            async with helper(to(known)) as up:
                await client.send(READ, up.place)
                _, source = await known.hear()
                await client.send(ack(0), up.place)  # before there is anybody to take it
                await transfer.send(b"answer of another service", source)
                await transfer.send(READ, source)
                await transfer.send(data(1), source)
                assert (await client.hear())[0] == data(1)
                for garbage in (b"", b"\0\6x\0", b"\0\7ab", b"query"):
                    await client.send(garbage, up.place)
                await client.send(ack(1), up.place)
                assert (await transfer.hear())[0] == ack(1)
                # The flow is proven now.
                for garbage, answer in ((b"query", data(2)), (b"", data(3))):
                    await transfer.send(garbage, source)
                    await transfer.send(answer, source)
                    assert (await client.hear())[0] == answer
                    await client.send(garbage, up.place)
                    await client.send(ack(answer[3]), up.place)
                    assert (await transfer.hear())[0] == ack(answer[3])
                assert known.has_nothing()
                assert transfer.has_nothing()
                assert client.has_nothing()

    run(test)


def test_a_server_that_is_not_there_gives_way_to_the_next() -> None:
    async def test() -> None:
        with Party() as client, Party() as dead, Party() as known, Party() as transfer:
            way = to(dead, known)
            dead.sock.close()
            async with helper(way) as up:
                await client.send(READ, up.place)
                request, source = await known.hear()
                assert request == READ
                await transfer.send(data(1), source)
                assert (await client.hear())[0] == data(1)

    run(test)


def test_the_port_that_a_server_closes_after_the_last_block_is_no_failure() -> None:
    async def test() -> None:
        with Party() as client, Party() as known, Party() as transfer:
            async with helper(to(known)) as up:
                await client.send(READ, up.place)
                _, source = await known.hear()
                await transfer.send(data(1), source)
                await client.hear()
                transfer.sock.close()
                await client.send(ack(1), up.place)
                await up.tools.until(lambda: up.tools.open == 0)
                assert up.tools.refusals == []

    run(test)


def test_who_cannot_be_served_is_told_in_no_more_bytes_than_the_request_had() -> None:
    async def test() -> None:
        with Party() as client, Party() as gone:
            nobody = to(gone)
            gone.sock.close()
            for way in (Way(refusal="the policy forbids it, since nobody has allowed it"), Way(), nobody):
                async with helper(way) as up:
                    await client.send(READ, up.place)
                    heard, _ = await client.hear()
                    assert heard.startswith(b"\0\5\0\0refused: ")
                    assert heard.endswith(b"\0")
                    assert len(heard) <= len(READ)

    run(test)


def test_who_may_not_come_in_is_told_nothing() -> None:
    async def test() -> None:
        tools = FakeTools()
        with Party() as client, Party() as known:
            async with helper(to(known), tools=tools) as up:
                for reason in ("source", "rate"):
                    tools.refuse_to_admit = Refused(reason, "no")
                    await client.send(READ, up.place)
                    await tools.until(lambda reason=reason: tools.reasons[reason] == 1)  # type: ignore[misc]
                assert client.has_nothing()
                assert known.has_nothing()

    run(test)
