"""Streams that are open when their entry becomes another."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import pytest
from msgspec import structs

from tests.support.l4_ends import LIMIT_S, LOOPBACK, client, echo, listening, port_of, running, until
from warren.l4.config import Backend, Config, Entry, Name, Ruled, Way
from warren.l4.permitted import Change, admits
from warren.l4.serve import Server

HERE = Ruled(allow=True, sources=("127.0.0.0/8",))
NOT_HERE = Ruled(allow=False, sources=("127.0.0.1/32",))


def entry(target: int, **more: object) -> Entry:
    way = Way(backends=(Backend(name="t", side="overlay", host="127.0.0.1", port=target),))
    return Entry(**{"id": "x", "listen": (LOOPBACK,), "way": way, **more})  # type: ignore[arg-type]


async def goes_on(sock: socket.socket) -> bool:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(LIMIT_S):
            await loop.sock_sendall(sock, b"x")
            return await loop.sock_recv(sock, 1) == b"x"
    except ConnectionError:
        return False


def test_the_first_rule_that_fits_decides_and_no_rule_admits_nobody() -> None:
    ip = ip_address("127.0.0.1")
    assert admits((HERE, NOT_HERE), ip)
    assert not admits((NOT_HERE, HERE), ip)
    assert not admits((Ruled(allow=True, sources=("::/0",)),), ip)
    assert not admits((), ip)


@pytest.mark.parametrize(
    ("change", "survives"),
    [
        ({"way": Way(refusal="the policy says no")}, False),
        ({"way": Way(backends=(Backend(name="t", side="overlay", host="127.0.0.9", port=1),))}, False),
        ({"clients": (NOT_HERE, HERE)}, False),
        ({"clients": (HERE,)}, True),
        ({"clients": None}, True),
    ],
)
def test_an_open_stream_ends_when_it_is_forbidden_and_else_goes_on(change: dict[str, object], survives: bool) -> None:
    async def main() -> None:
        async with listening(echo) as target, running(entry(target, clients=())) as server:
            async with client(port_of(server.status())) as sock:
                assert await goes_on(sock)
                await server.configure(Config(entries=(structs.replace(entry(target), **change),)))
                assert await goes_on(sock) is survives
            await until(lambda: opened(server) == 0)

    asyncio.run(main())


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")
    await reader.read()


def opened(server: Server) -> int:
    return server.status().entries[0].open


@pytest.mark.parametrize("ends", ["client", "backend"])
def test_a_stream_that_a_kind_keeps_ends_too(ends: str) -> None:
    """The control connection of FTP."""
    now = {"clients": ()} if ends == "client" else {"way": Way(refusal="no")}

    async def main() -> None:
        async with (
            listening(greet) as target,
            running(entry(target, kind="ftp")) as server,
            client(port_of(server.status())) as sock,
        ):
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"220 hello\r\n"
            assert opened(server) == 1
            await server.configure(Config(entries=(structs.replace(entry(target, kind="ftp"), **now),)))
            await until(lambda: opened(server) == 0)

    asyncio.run(main())


def test_a_name_of_tls_has_a_way_of_its_own() -> None:
    backend = Backend(name="t", side="overlay", host="192.0.2.1", port=1)
    name = Name(domain="a.example", connector="a", way=Way(backends=(backend,)))
    before = Entry(id="x", kind="sni", listen=(), names=(name,))
    assert Change.of(before, Entry(id="x", kind="sni", listen=()))
    assert not Change.of(before, before)


def test_targets_on_the_hosts_side_may_change_under_an_open_stream() -> None:
    before = Entry(id="x", listen=(), way=Way(backends=(Backend(name="t", side="host", host="127.0.0.1", port=1),)))
    assert not Change.of(before, Entry(id="x", listen=()))
