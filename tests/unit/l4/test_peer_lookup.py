"""Who may ask who the clients of Caddy are, and how."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket, OperationFailed
from warren.l4 import peer_lookup
from warren.l4.peer_lookup import Ask, PeerLookup, question_untrusted
from warren.l4.peers import PeerTable
from warren.model.tunnel import TransportAddress


def client(address: str) -> TransportAddress:
    return TransportAddress(ip_address(address), 50000)


# Questions


def test_who_keeps_caddy_asks_about_one_port() -> None:
    assert question_untrusted(b"GET /websockets/443 HTTP/1.1\r\nHost: x") == (0, 443, Ask.WEBSOCKETS)
    assert question_untrusted(b"GET /leave/443 HTTP/1.1") == (0, 443, Ask.LEAVE)
    assert question_untrusted(b"GET /127.0.0.1/1/443/websocket HTTP/1.1") == (1, 443, Ask.CLIENT_OF_WEBSOCKET)


def test_a_question_is_of_two_ports() -> None:
    assert question_untrusted(b"GET /127.0.0.1/40000/443 HTTP/1.1\r\nHost: x\r\nAccept: a") == (40000, 443, Ask.CLIENT)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1",
        b"GET /127.0.0.1/40000/443 HTTP/1.0",
        b"GET /127.0.0.1/40000/443?x HTTP/1.1",
        b"GET /127.0.0.1/40000/443/other HTTP/1.1",
        b"GET /websockets/443/websocket HTTP/1.1",
        b"GET /leave/443 HTTP/1.1\r\nContent-Length: 5",
        b"GET /127.0.0.2/40000/443 HTTP/1.1",
        b"GET /::1/40000/443 HTTP/1.1",
        b"GET /127.0.0.1/400000/443 HTTP/1.1",
        b"GET /127.0.0.1/-1/443 HTTP/1.1",
        b"GET  /127.0.0.1/1/443 HTTP/1.1",
        b"POST /127.0.0.1/40000/443 HTTP/1.1",
        b"GET /127.0.0.1/1/443 HTTP/1.1\r\nContent-Length: 5",
        b"GET /127.0.0.1/1/443 HTTP/1.1\r\nTRANSFER-ENCODING: chunked",
        b"GET /127.0.0.1/1/443 HTTP/1.1\r\nExpect: 100-continue",
        b"GET /127.0.0.1/1/443 HTTP/1.1\nContent-Length: 5",
    ],
)
def test_anything_else_is_none(head: bytes) -> None:
    with pytest.raises(MalformedPacket):
        question_untrusted(head)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    for start in (b"", b"GET /127.0.0.1/"):
        try:
            port, server, _ = question_untrusted(start + data)
        except MalformedPacket:
            continue
        assert 0 <= port <= 99_999
        assert 0 <= server <= 99_999


# The lookup


def run(scene: Callable[[PeerTable, Path], Awaitable[None]]) -> None:
    async def whole(path: Path) -> None:
        table = PeerTable()
        lookup = PeerLookup(path, table)
        await lookup.start()
        try:
            async with asyncio.timeout(10):
                await scene(table, path)
        finally:
            await lookup.close()
        assert not path.exists()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "peers.sock"
        path.write_text("left behind by a process that was killed")
        asyncio.run(whole(path))


def ask(port: int, server: int) -> bytes:
    return f"GET /127.0.0.1/{port}/{server} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_questions_on_one_connection_are_answered_in_order_however_they_come() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        table.remember(1, 80, client("192.0.2.7"))
        reader, writer = await asyncio.open_unix_connection(path)
        for data in (ask(1, 80), ask(2, 80) + ask(1, 80)[:10], ask(1, 80)[10:]):
            writer.write(data)
            await asyncio.sleep(0)
        answers = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
        assert [answer[9:12] for answer in answers] == [b"200", b"403", b"200"]
        assert answers[0] == b"HTTP/1.1 200 OK\r\nX-Warren-Client: 192.0.2.7\r\nContent-Length: 0\r\n\r\n"
        assert b"192" not in answers[1]
        writer.close()

    run(scene)


def test_websockets_are_counted_and_others_told_to_leave() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        table.remember(1, 443, client("192.0.2.7"))
        table.remember(2, 443, client("192.0.2.8"))
        reader, writer = await asyncio.open_unix_connection(path)

        async def say(what: str) -> bytes:
            writer.write(f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return await reader.readuntil(b"\r\n\r\n")

        assert b"X-Warren-Client: 192.0.2.7\r\n" in await say("/127.0.0.1/1/443/websocket")
        assert b"X-Warren-Count: 1\r\n" in await say("/websockets/443")
        assert b"X-Warren-Count: 0\r\n" in await say("/websockets/80")
        assert b"X-Warren-Last" not in await say("/127.0.0.1/2/443")
        assert (await say("/leave/443")).startswith(b"HTTP/1.1 200 ")
        assert b"X-Warren-Last: 1\r\n" in await say("/127.0.0.1/2/443")
        assert b"X-Warren-Last" not in await say("/127.0.0.1/1/443/websocket"), "it would not become one"
        writer.close()

    run(scene)


def test_only_its_owner_can_connect() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.is_socket()

    run(scene)


def test_another_user_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        monkeypatch.setattr(peer_lookup, "is_trusted", lambda connection: False)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(ask(1, 80))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    run(scene)


def test_what_is_no_question_is_answered_once_and_the_connection_ends() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        table.remember(1, 80, client("192.0.2.7"))
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + ask(1, 80))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"192.0.2.7" not in answer
        writer.close()

    run(scene)


def test_a_head_without_end_is_cut_off() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /" + b"a" * (peer_lookup.HEAD_BYTES_MAX + 1))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    run(scene)


def test_so_many_may_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_lookup, "ASKING_MAX", 1)

    async def scene(table: PeerTable, path: Path) -> None:
        _, first = await asyncio.open_unix_connection(path)
        first.write(ask(1, 80))
        reader, second = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        second.close()
        first.close()

    run(scene)


def test_a_socket_that_cannot_be_made_is_told() -> None:
    async def scene() -> None:
        await PeerLookup(Path("/nowhere/at/all/peers.sock")).start()

    with pytest.raises(OperationFailed, match="cannot be listened on"):
        asyncio.run(scene())
