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
from warren.l4.peer_lookup import Became, HowMany, PeerLookup, question_untrusted
from warren.l4.peers import PeerTable

A, B = "0123456789abcdef", "fedcba9876543210"
CLIENT = ip_address("192.0.2.7")


# Questions


def test_caddy_tells_of_one_connection_and_its_keeper_asks_about_one_port() -> None:
    assert question_untrusted(b"GET /websocket/0123456789abcdef HTTP/1.1\r\nHost: x\r\nAccept: a") == Became(A)
    assert question_untrusted(b"GET /websockets/443 HTTP/1.1\r\nHost: x") == HowMany(443)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1",
        b"GET /websocket/0123456789abcdef HTTP/1.0",
        b"GET /websocket/0123456789abcdef?x HTTP/1.1",
        b"GET /websocket/0123456789abcdef/other HTTP/1.1",
        b"GET /websocket/0123456789abcde HTTP/1.1",
        b"GET /websocket/0123456789abcdefa HTTP/1.1",
        b"GET /websocket/0123456789ABCDEF HTTP/1.1",
        b"GET /websocket/ HTTP/1.1",
        b"GET  /websocket/0123456789abcdef HTTP/1.1",
        b"POST /websocket/0123456789abcdef HTTP/1.1",
        b"GET /websockets/400000 HTTP/1.1",
        b"GET /websockets/-1 HTTP/1.1",
        b"GET /websockets/443 HTTP/1.1\r\nContent-Length: 5",
        b"GET /websockets/443 HTTP/1.1\r\nTRANSFER-ENCODING: chunked",
        b"GET /websockets/443 HTTP/1.1\r\nExpect: 100-continue",
        b"GET /websockets/443 HTTP/1.1\nContent-Length: 5",
    ],
)
def test_anything_else_is_none(head: bytes) -> None:
    with pytest.raises(MalformedPacket):
        question_untrusted(head)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    for start in (b"", b"GET /websocket/", b"GET /websockets/"):
        try:
            question = question_untrusted(start + data)
        except MalformedPacket:
            continue
        assert len(question.nonce) == 16 if isinstance(question, Became) else 0 <= question.server <= 99_999


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


def ask(what: str) -> bytes:
    return f"GET {what} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_questions_on_one_connection_are_answered_in_order_however_they_come() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        table.remember(A, 80, CLIENT)
        table.remember(B, 443, CLIENT)
        reader, writer = await asyncio.open_unix_connection(path)
        many, none, it = ask("/websockets/80"), ask("/websocket/" + "0" * 16), ask(f"/websocket/{A}")
        for data in (many, none + it[:10], it[10:] + it, many + ask("/websockets/443")):
            writer.write(data)
            await asyncio.sleep(0)
        answers = [await reader.readuntil(b"\r\n\r\n") for _ in range(6)]
        assert [answer[9:12] for answer in answers] == [b"200", b"404", b"200", b"200", b"200", b"200"]
        counts = [answers[index].splitlines()[1] for index in (0, 4, 5)]
        assert counts == [b"X-Warren-Count: 0", b"X-Warren-Count: 1", b"X-Warren-Count: 0"]
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
        writer.write(ask("/websockets/80"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        writer.close()

    run(scene)


def test_what_is_no_question_is_answered_once_and_the_connection_ends() -> None:
    async def scene(table: PeerTable, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" + ask("/websockets/80"))
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1
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
        first.write(ask("/websockets/80"))
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
