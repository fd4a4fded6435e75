"""Bytes, ends and resets go through as they would without us."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.l4_ends import LIMIT_S, read_all, until
from warren.l4.counters import Counters
from warren.l4.pipes import Pipes
from warren.l4.pump import Pump
from warren.l4.stream import Stream

MEGABYTE = 1 << 20


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


PAIRS = {"tcp": tcp_pair, "unix": socket.socketpair}


class Carried:
    """A stream of the pump, and the far ends of its two sockets."""

    def __init__(self, pump: Pump, kinds: tuple[str, str] = ("tcp", "tcp"), **options: object) -> None:
        self.client, incoming = PAIRS[kinds[0]]()
        outgoing, self.server = PAIRS[kinds[1]]()
        for sock in (self.client, incoming, outgoing, self.server):
            sock.setblocking(False)
        self.counters = Counters("test", lambda: 0.0)
        self.over = 0
        self.pump = pump
        self.inner = (incoming, outgoing)
        self.stream: Stream = pump.carry(incoming, outgoing, self.counters, ended=self._ended, **options)  # type: ignore[arg-type]

    def _ended(self) -> None:
        self.over += 1

    def close(self) -> None:
        self.client.close()
        self.server.close()


@contextlib.asynccontextmanager
async def pumping(pipes: Pipes | None = None) -> AsyncIterator[Callable[..., Carried]]:
    pump = Pump(pipes)
    made: list[Carried] = []

    def carry(*arguments: object, **options: object) -> Carried:
        one = Carried(pump, *arguments, **options)  # type: ignore[arg-type]
        made.append(one)
        return one

    try:
        async with asyncio.timeout(LIMIT_S):
            yield carry
    finally:
        for one in made:
            one.close()
        pump.close()


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def send_and_end(sock: socket.socket, data: bytes) -> None:
    await send(sock, data)
    sock.shutdown(socket.SHUT_WR)


async def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("kinds", [("tcp", "tcp"), ("tcp", "unix"), ("unix", "tcp"), ("unix", "unix")])
@pytest.mark.parametrize("pipes_max", [4096, 0], ids=["spliced", "copied"])
def test_every_byte_arrives_in_both_directions_at_once(kinds: tuple[str, str], pipes_max: int) -> None:
    rng = random.Random(1)
    there, back = rng.randbytes(3 * MEGABYTE + 1), rng.randbytes(2 * MEGABYTE + 7)

    async def main() -> None:
        async with pumping(Pipes(out_max=pipes_max)) as carry:
            one = carry(kinds)
            _, _, got_there, got_back = await asyncio.gather(
                send_and_end(one.client, there),
                send_and_end(one.server, back),
                read_all(one.server),
                read_all(one.client),
            )
            assert got_there == there
            assert got_back == back
            await until(lambda: one.over == 1)
            assert (one.counters.bytes_in, one.counters.bytes_out) == (len(there), len(back))
            assert [sock.fileno() for sock in one.inner] == [-1, -1]

    asyncio.run(main())


def test_small_pieces_arrive_one_by_one() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            for number in range(300):
                piece = number.to_bytes(4)
                await send(one.client, piece)
                assert await receive(one.server, 4) == piece
                await send(one.server, piece)
                assert await receive(one.client, 4) == piece

    asyncio.run(main())


@pytest.mark.parametrize("size", [16383, 16384, 16385, 32768, 100_000])
def test_pieces_about_the_size_of_a_buffer_arrive_whole(size: int) -> None:
    async def main() -> None:
        data = random.Random(size).randbytes(size)
        async with pumping() as carry:
            one = carry()
            for _ in range(5):
                await send(one.client, data)
                assert await receive(one.server, size) == data

    asyncio.run(main())


def test_the_end_of_one_direction_is_passed_on_and_the_other_goes_on() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await send_and_end(one.client, b"question")
            assert await read_all(one.server) == b"question"
            assert one.over == 0
            for _ in range(3):
                await send(one.server, b"answer")
                assert await receive(one.client, 6) == b"answer"
            one.server.close()
            assert await read_all(one.client) == b""
            await until(lambda: one.over == 1)

    asyncio.run(main())


def test_data_and_the_end_that_came_before_the_stream_was_carried_are_passed_on() -> None:
    async def main() -> None:
        async with pumping() as carry:
            pump_side = carry()
            await send_and_end(pump_side.client, b"x" * 100)
            await send_and_end(pump_side.server, b"y" * 100)
            assert await read_all(pump_side.server) == b"x" * 100
            assert await read_all(pump_side.client) == b"y" * 100
            await until(lambda: pump_side.over == 1)

    asyncio.run(main())


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_reset_of_one_side_resets_the_other(who: str) -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await send(one.client, b"x")
            await receive(one.server, 1)
            gone, other = (one.client, one.server) if who == "client" else (one.server, one.client)
            reset(gone)
            with pytest.raises(ConnectionResetError):
                await read_all(other)
            assert one.over == 1

    asyncio.run(main())


def test_what_came_before_a_reset_arrives_before_it() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await send(one.client, b"x" * 5000)
            reset(one.client)
            assert await receive(one.server, 5000) == b"x" * 5000
            with pytest.raises(ConnectionResetError):
                await read_all(one.server)

    asyncio.run(main())


def test_a_reset_after_the_end_of_one_direction_is_passed_on() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await send_and_end(one.client, b"")
            assert await read_all(one.server) == b""
            reset(one.client)
            await until(lambda: one.over == 1)
            await until(lambda: one.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)

    asyncio.run(main())


async def fill(sock: socket.socket) -> int:
    """Send until nothing more is taken for a while; returns how much was."""
    loop = asyncio.get_running_loop()
    total = 0
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0.2):
                writable = asyncio.Event()
                loop.add_writer(sock, writable.set)
                try:
                    await writable.wait()
                finally:
                    loop.remove_writer(sock)
            total += sock.send(bytes(1 << 18))
    return total


def test_what_a_slow_reader_does_not_take_stays_with_the_sender() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            for sock in (one.client, one.server, *one.inner):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
            taken = await fill(one.client)
            assert taken < 4 * MEGABYTE
            direction = one.stream.inward
            assert direction.piped + len(direction.unsent or b"") <= 1 << 18
            other = carry()
            await send(other.client, b"meanwhile")
            assert await receive(other.server, 9) == b"meanwhile"
            one.client.shutdown(socket.SHUT_WR)
            assert len(await read_all(one.server)) == taken

    asyncio.run(main())


def test_a_sender_that_resets_while_its_reader_is_stuck_is_not_waited_for() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await fill(one.client)
            reset(one.client)
            await until(lambda: one.over == 1)

    asyncio.run(main())


def test_a_stuck_reader_that_resets_resets_the_sender() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry()
            await fill(one.client)
            reset(one.server)
            with pytest.raises(ConnectionResetError):
                await read_all(one.client)

    asyncio.run(main())


def test_what_was_read_before_goes_first() -> None:
    async def main() -> None:
        async with pumping() as carry:
            head, answer = b"head" * 50_000, b"answer" * 50_000
            one = carry(head=head, answer=answer)
            await asyncio.gather(send_and_end(one.client, b"tail"), send_and_end(one.server, b"rest"))
            there, back = await asyncio.gather(read_all(one.server), read_all(one.client))
            assert there == head + b"tail"
            assert back == answer + b"rest"
            assert one.counters.bytes_in == len(head) + 4

    asyncio.run(main())


def test_a_stream_on_which_nothing_moves_is_reset_after_its_idle_time() -> None:
    async def main() -> None:
        async with pumping() as carry:
            idle, forever = carry(idle_s=0.05), carry()
            with pytest.raises(ConnectionResetError):
                await read_all(idle.client)
            assert (idle.over, forever.over) == (1, 0)

    asyncio.run(main())


def test_a_stream_on_which_something_moves_in_one_direction_is_not_idle() -> None:
    async def main() -> None:
        async with pumping() as carry:
            one = carry(idle_s=0.8)
            loop = asyncio.get_running_loop()
            end = loop.time() + 1.2
            while loop.time() < end:
                await send(one.server, b"x")
                await receive(one.client, 1)
                assert one.over == 0
                await asyncio.sleep(0.01)
            await until(lambda: one.over == 1)

    asyncio.run(main())


def test_a_flood_does_not_keep_other_streams_waiting() -> None:
    async def main() -> None:
        async with pumping() as carry:
            flood = carry()
            taken = asyncio.create_task(read_all(flood.server))
            sending = asyncio.create_task(send_and_end(flood.client, bytes(256 * MEGABYTE)))
            await until(lambda: flood.counters.bytes_in > 0)
            quiet = carry()
            for _ in range(10):
                await send(quiet.client, b"ping")
                assert await receive(quiet.server, 4) == b"ping"
            assert not taken.done()
            sending.cancel()
            taken.cancel()
            await asyncio.gather(sending, taken, return_exceptions=True)

    asyncio.run(main())


def test_a_turn_moves_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr("warren.l4.mover.TURN_BYTES", 1)
        turns = 0
        async with pumping() as carry:
            one = carry()
            pump = one.pump
            original = pump._turn

            def counted(direction: object) -> bool:
                nonlocal turns
                turns += 1
                return original(direction)  # type: ignore[arg-type]

            monkeypatch.setattr(pump, "_turn", counted)
            data = random.Random(2).randbytes(4 * MEGABYTE)
            _, got = await asyncio.gather(send_and_end(one.client, data), read_all(one.server))
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
            assert turns > 4 * MEGABYTE >> 18

    asyncio.run(main())


def test_what_a_broken_stream_left_in_a_pipe_gets_into_no_other() -> None:
    async def main() -> None:
        async with pumping() as carry:
            broken = carry()
            await fill(broken.client)
            assert broken.stream.inward.piped > 0
            reset(broken.client)
            await until(lambda: broken.over == 1)
            data = random.Random(3).randbytes(MEGABYTE)
            other = carry()
            _, got = await asyncio.gather(send_and_end(other.client, data), read_all(other.server))
            assert got == data

    asyncio.run(main())


def test_a_hundred_streams_at_once_do_not_mix() -> None:
    async def one_stream(one: Carried, seed: int) -> bool:
        data = random.Random(seed).randbytes(100_000 + seed)
        _, there = await asyncio.gather(send_and_end(one.client, data), read_all(one.server))
        _, back = await asyncio.gather(send_and_end(one.server, there), read_all(one.client))
        return back == data

    async def main() -> None:
        async with pumping() as carry:
            assert all(await asyncio.gather(*(one_stream(carry(), seed) for seed in range(100))))

    asyncio.run(main())


def test_closing_the_pump_resets_all_and_tells_once() -> None:
    async def main() -> None:
        pump = Pump()
        one, two = Carried(pump), Carried(pump)
        pump.close()
        assert (one.over, two.over) == (1, 1)
        for end in (one.client, one.server, two.client, two.server):
            with pytest.raises(ConnectionResetError):
                await read_all(end)
        pump.end(one.stream, aborted=True)
        assert one.over == 1
        one.close()
        two.close()

    asyncio.run(main())


def test_empty_pipes_are_kept_and_full_ones_are_not() -> None:
    pipes = Pipes()
    one = pipes.take()
    assert one is not None
    pipes.give_back(one)
    assert pipes.take() == one
    pipes.drop(one)
    another = pipes.take()
    assert another is not None
    pipes.give_back(another)
    pipes.close()


def test_no_more_pipes_are_lent_than_are_allowed() -> None:
    pipes = Pipes(out_max=1)
    one = pipes.take()
    assert one is not None
    assert pipes.take() is None
    pipes.drop(one)
    two = pipes.take()
    assert two is not None
    pipes.drop(two)
    pipes.close()
