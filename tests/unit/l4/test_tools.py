"""What is counted for whom: streams of one place, and of the connectors that share it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from ipaddress import ip_address

import pytest

from tests.support.l4_ends import LOOPBACK, backend, client, echo, free_port, listening, port_of, running, state, until
from tests.unit.l4.test_sni import hello_for
from warren.l4.config import Entry, Limits, Name, PartState, Way
from warren.model.tunnel import TransportAddress
from warren.proto import proxy_protocol

HELLO = hello_for("a.example")


def header(host: str) -> bytes:
    return proxy_protocol.encode(TransportAddress(ip_address(host), 1), None)


def gate(target: int, **limits: int) -> Entry:
    """Behind a load balancer, so that clients can be anybody."""
    names = (
        Name(domain="a.example", connector="a", way=Way(backends=(backend(target),)), limits=Limits(**limits)),
        Name(domain="b.example", connector="b", way=Way(backends=(backend(free_port()),))),
    )
    return Entry(id="gateway", kind="sni", listen=(LOOPBACK,), names=names, proxy_in=True)


def test_connectors_of_one_place_have_counts_of_their_own() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(echo) as target, running(gate(target)) as server:
            port = port_of(server.status())
            async with client(port) as sock:
                await loop.sock_sendall(sock, header("192.0.2.1") + HELLO)
                await loop.sock_recv(sock, 1)
                found = state(server)
                assert (found.open, found.parts["a"].open) == (1, 1)
            async with client(port) as sock:
                await loop.sock_sendall(sock, header("192.0.2.1") + hello_for("b.example"))
                with pytest.raises(ConnectionResetError):
                    await loop.sock_recv(sock, 1)
            async with client(port) as sock:
                await loop.sock_sendall(sock, header("192.0.2.1") + b"GET / HTTP/1.1\r\n\r\n")
                await loop.sock_recv(sock, 1)
            await until(lambda: state(server).open == 0)
            found = state(server)
            assert found.parts["a"] == PartState(opened=1, bytes_in=len(HELLO), bytes_out=found.bytes_out)
            assert 0 < found.bytes_out <= found.bytes_in == len(HELLO)
            assert (found.parts["b"].open, found.parts["b"].opened) == (0, 1)
            assert found.parts["b"].refused == {"connect": 1}
            assert "refuses connections" in found.parts["b"].last_refusal
            assert (found.opened, found.refused) == (3, {"connect": 1, "protocol": 1})

    asyncio.run(main())


def test_one_client_cannot_take_all_streams_of_a_connector_and_others_still_come_in() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(echo) as target, running(gate(target, streams_max=5)) as server:
            port = port_of(server.status())

            async def enter(host: str) -> socket.socket:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                opened.append(sock)
                await loop.sock_connect(sock, ("127.0.0.1", port))
                await loop.sock_sendall(sock, header(host) + HELLO)
                await loop.sock_recv(sock, 1)
                return sock

            opened: list[socket.socket] = []
            try:
                async with asyncio.timeout(20):
                    for _ in range(4):
                        await enter("192.0.2.1")
                    with pytest.raises(ConnectionResetError):
                        await enter("192.0.2.1")
                    assert state(server).parts["a"].refused == {"streams": 1}
                    assert "192.0.2.1 has 4 of 5 places" in state(server).parts["a"].last_refusal
                    await enter("192.0.2.2")
                    assert state(server).parts["a"].open == 5
            finally:
                for sock in opened:
                    sock.close()
            await until(lambda: state(server).open == 0)
            counters = server._work["gateway"].tools.counters
            assert (len(counters.shares), len(counters.part("a").shares)) == (0, 0)

    asyncio.run(main())


def test_one_client_behind_a_balancer_cannot_take_all_streams_of_a_port() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(echo) as target:
            way, limits = Way(backends=(backend(target),)), Limits(streams_max=3)
            entry = Entry(id="connector", listen=(LOOPBACK,), way=way, limits=limits, proxy_in=True)
            async with running(entry) as server:
                port = port_of(server.status())
                async with AsyncExitStack() as clients:

                    async def said(host: str) -> bytes:
                        sock = await clients.enter_async_context(client(port))
                        await loop.sock_sendall(sock, header(host) + b"x")
                        return await loop.sock_recv(sock, 1)

                    assert await said("192.0.2.1") == b"x"
                    assert await said("192.0.2.1") == b"x"
                    with pytest.raises(ConnectionResetError):
                        await said("192.0.2.1")
                    assert state(server).refused == {"streams": 1}
                    assert await said("192.0.2.2") == b"x"

    asyncio.run(main())


def test_streams_that_have_not_said_whose_they_are_count_for_who_brings_them() -> None:
    async def main() -> None:
        async with listening(echo) as target, running(gate(target)) as server:
            port = port_of(server.status())
            counters = server._work["gateway"].tools.counters
            async with client(port, "127.0.0.1") as sock:
                await until(lambda: state(server).open == 1)
                assert len(counters.shares) == 0  # loopback is nobody
                await asyncio.get_running_loop().sock_sendall(sock, header("192.0.2.1"))
                await until(lambda: len(counters.shares) == 1)
            await until(lambda: state(server).open == 0)
            assert len(counters.shares) == 0

    asyncio.run(main())
