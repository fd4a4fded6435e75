"""The loop of the stream process: streams and everything else in one wait."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.support.l4_ends import LIMIT_S, read_all, until
from warren.l4 import pump as pump_module
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

        def noted(events: Events) -> bool:
            waits.append(events)
            return attend(events)

        selector.attend = noted
        client, server = carried(pump)
        await asyncio.sleep(0.05)
        assert len(waits) < 10
        client.close()
        server.close()
        await until(lambda: len(pump) == 0)
        pump.close()

    run(main)


def test_timers_and_other_threads_have_their_turn_though_bytes_move_all_the_time() -> None:
    async def main(selector: StreamSelector) -> None:
        pump, loop = Pump(selector=selector), asyncio.get_running_loop()
        client, server = carried(pump)
        called = asyncio.Event()
        over = threading.Event()

        def play() -> None:
            for sock in (client, server):
                sock.setblocking(True)
            with client, server:
                for number in range(200_000):  # seconds, if nothing stops it
                    client.send(b"x")
                    server.recv(1)
                    if number == 100:
                        loop.call_soon_threadsafe(called.set)
                    if over.is_set():
                        return

        playing = asyncio.create_task(asyncio.to_thread(play))
        try:
            await called.wait()
            await asyncio.sleep(0.01)
            assert not playing.done()
        finally:
            over.set()
            await playing
        await until(lambda: len(pump) == 0)
        pump.close()

    run(main)


@pytest.mark.parametrize("slice_s", [pump_module.SLICE_S, -1.0], ids=["at once", "in turns"])
def test_what_streams_set_off_does_not_wait_for_another_event(monkeypatch: pytest.MonkeyPatch, slice_s: float) -> None:
    """Neither what their ends do, nor the rest of their line."""
    monkeypatch.setattr(pump_module, "SLICE_S", slice_s)

    async def main(selector: StreamSelector) -> None:
        pump, over, late = Pump(selector=selector), asyncio.Event(), list[int]()
        ends = [socket.socketpair() for _ in range(6)]
        for client, incoming in ends:
            for sock in (client, incoming):
                sock.setblocking(False)

        def ended() -> None:
            if len(pump) == 0:
                over.set()

        for index in range(0, 6, 2):
            (client, incoming), (server, outgoing) = ends[index : index + 2]
            pump.carry(incoming, outgoing, Counters("test", lambda: 0.0), ended=ended)
            client.close()
            server.close()
        timer = asyncio.get_running_loop().call_later(LIMIT_S / 2, late.append, 1)
        await over.wait()
        assert late == [], "a timer has woken the loop"
        timer.cancel()
        pump.close()

    run(main)


def test_who_waits_for_no_longer_than_so_is_back_then_whatever_moves() -> None:
    near, far = socket.socketpair()
    selector = StreamSelector()
    seen = 0

    def attend(_: Events) -> bool:
        """Bytes move, and there are always more."""
        nonlocal seen
        seen += 1
        return seen >= 1_000_000

    with near, far:
        far.send(b"1")
        selector.epoll.register(near, select.EPOLLIN)
        selector.attend = attend
        for timeout in (0.0, 0.01):
            assert selector.select(timeout) == []
        assert 2 <= seen < 1_000_000
        selector.close()


@pytest.mark.logs_errors
def test_a_bug_among_streams_does_not_end_the_loop() -> None:
    async def main(selector: StreamSelector) -> None:
        pump = Pump(selector=selector)
        attend, failures = selector.attend, []

        def broken(events: Events) -> bool:
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
