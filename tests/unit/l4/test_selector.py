"""The loop of the stream process: streams and everything else in one wait."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.support.l4_ends import LIMIT_S, read_all, until
from warren.l4.counters import Counters
from warren.l4.pump import Pump
from warren.l4.selector import Events, StreamSelector


def run(main: Callable[[StreamSelector], Awaitable[None]]) -> None:
    selector = StreamSelector()

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main(selector)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(limited())
    assert selector.epoll.closed


def carried(pump: Pump) -> tuple[socket.socket, socket.socket]:
    """The far ends of a stream."""
    client, incoming = socket.socketpair()
    outgoing, server = socket.socketpair()
    for sock in (client, incoming, outgoing, server):
        sock.setblocking(False)
    pump.carry(incoming, outgoing, Counters("test", lambda: 0.0))
    return client, server


def test_streams_and_everything_else_go_on_beside_each_other() -> None:
    async def main(selector: StreamSelector) -> None:
        pump, loop = Pump(selector=selector), asyncio.get_running_loop()
        rng = random.Random(1)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        async def one() -> None:
            client, server = carried(pump)
            with client, server:
                data = rng.randbytes(200_000)
                _, got = await asyncio.gather(loop.sock_sendall(client, data), receive(server, len(data)))
                assert got == data
                client.shutdown(socket.SHUT_WR)
                assert await read_all(server) == b""

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(one() for _ in range(20)))
        await until(lambda: len(pump) == 0)
        assert ticks
        ticking.cancel()
        pump.close()
        await asyncio.sleep(0)  # the loop needs no pump

    run(main)


async def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await asyncio.get_running_loop().sock_recv(sock, count - len(data))
    return data


def test_a_loop_with_nothing_to_do_waits() -> None:
    async def main(selector: StreamSelector) -> None:
        pump, waits = Pump(selector=selector), []
        attend = selector.attend

        def noted(events: Events) -> None:
            waits.append(events)
            attend(events)

        selector.attend = noted
        client, server = carried(pump)
        await asyncio.sleep(0.05)
        assert len(waits) < 10
        client.close()
        server.close()
        await until(lambda: len(pump) == 0)
        pump.close()

    run(main)


@pytest.mark.logs_errors
def test_a_bug_among_streams_does_not_end_the_loop() -> None:
    async def main(selector: StreamSelector) -> None:
        pump = Pump(selector=selector)
        attend, failures = selector.attend, []

        def broken(events: Events) -> None:
            selector.attend = attend
            failures.append(events)
            raise ZeroDivisionError

        client, server = carried(pump)
        with client, server:
            await asyncio.sleep(0)
            selector.attend = broken
            await until(lambda: bool(failures))
            client.send(b"x")
            assert await receive(server, 1) == b"x"
        await until(lambda: len(pump) == 0)
        pump.close()

    run(main)


@pytest.mark.logs_errors
def test_sockets_that_are_watched_are_read_beside_streams_until_they_are_not() -> None:
    async def main(selector: StreamSelector) -> None:
        pump = Pump(selector=selector)
        got: list[bytes] = []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)

        def readable() -> None:
            got.append(ours.recv(10))
            if got[-1] == b"wrong":
                raise ValueError("the loop goes on")

        with ours, theirs:
            pump.watch(ours, readable)
            for data in (b"1", b"wrong", b"2"):
                theirs.send(data)
                await until(lambda data=data: data in got)  # type: ignore[misc]
            client, server = carried(pump)
            with client, server:
                client.send(b"stream")
                assert await receive(server, 6) == b"stream"
            pump.unwatch(ours)
            pump.unwatch(ours)
            theirs.send(b"3")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert got == [b"1", b"wrong", b"2"]
        await until(lambda: len(pump) == 0)
        pump.close()

    run(main)
