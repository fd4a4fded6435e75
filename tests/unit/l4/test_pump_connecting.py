"""Streams that are carried before their outgoing socket is connected."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Self

import pytest

from tests.support.l4_ends import read_all, until
from warren.l4.counters import Counters
from warren.l4.pump import Pump


class Connecting:
    """A stream whose outgoing socket is being connected, on loopback: to somebody, or to nobody."""

    def __init__(self, pump: Pump, *, goes_on: bool = True, served: bool = True) -> None:
        self.told: list[int | None] = []
        with socket.create_server(("127.0.0.1", 0)) as door:
            self.client = socket.create_connection(door.getsockname())
            incoming, _ = door.accept()
        self.listener = socket.create_server(("127.0.0.1", 0))
        place = self.listener.getsockname()
        if not served:
            self.listener.close()
        outgoing = socket.socket()
        for sock in (self.client, incoming, outgoing):
            sock.setblocking(False)
        assert outgoing.connect_ex(place) == errno.EINPROGRESS

        def opened(number: int | None) -> bool:
            self.told.append(number)
            return goes_on

        self.counters = Counters("test", lambda: 0.0)
        self.stream = pump.carry(incoming, outgoing, self.counters, opened=opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.listener.close()


def test_nothing_moves_before_the_connection_is_there_and_all_of_it_then() -> None:
    async def main() -> None:
        pump = Pump()
        with Connecting(pump) as one:
            one.client.send(b"early")
            await until(lambda: bool(one.told))
            server, _ = one.listener.accept()
            with server:
                server.setblocking(False)
                loop = asyncio.get_running_loop()
                assert await loop.sock_recv(server, 5) == b"early"
                await loop.sock_sendall(server, b"late")
                server.shutdown(socket.SHUT_WR)
                assert await read_all(one.client) == b"late"
            assert one.told == [0]
        pump.close()

    asyncio.run(main())


def test_a_connection_that_fails_is_told_and_both_sides_end() -> None:
    async def main() -> None:
        pump = Pump()
        with Connecting(pump, served=False, goes_on=False) as one:
            with pytest.raises(ConnectionResetError):
                await read_all(one.client)
            assert one.told == [errno.ECONNREFUSED]
            assert len(pump) == 0
        pump.close()

    asyncio.run(main())


def test_a_connection_that_nobody_wants_any_more_is_reset() -> None:
    async def main() -> None:
        pump = Pump()
        with Connecting(pump, goes_on=False) as one:
            with pytest.raises(ConnectionResetError):
                await read_all(one.client)
            assert (one.told, len(pump)) == ([0], 0)
            server, _ = one.listener.accept()
            with server, pytest.raises(ConnectionResetError):
                server.recv(1)
        pump.close()

    asyncio.run(main())


def test_who_waits_for_a_connection_is_told_when_the_stream_ends_before() -> None:
    async def main() -> None:
        pump = Pump()
        with Connecting(pump) as one:
            pump.end(one.stream, aborted=True)
            assert (one.told, len(pump)) == ([None], 0)
        pump.close()

    asyncio.run(main())
