"""Coordinators and relays over real TLS on loopback, and whoever answers in their place."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.control_server import TestCoordinator
from warren.doctor import web
from warren.doctor.observed import TcpSeen
from warren.doctor.web import (
    CoordinatorTarget,
    TlsTarget,
    look_at_coordinator,
    look_at_tls,
    portal_at,
    portal_in_untrusted,
)
from warren.identity.signing import SigningKey
from warren.relay.certificate import context_of, kept_certificate


@asynccontextmanager
async def serving(answer: bytes = b"", context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Somebody on a port of 127.0.0.1 who says ``answer`` to whatever comes, then closes."""
    ended: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(1024)
            writer.write(answer)
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(
        lambda reader, writer: ended.append(asyncio.ensure_future(handle(reader, writer))), "127.0.0.1", 0, ssl=context
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*ended)


def relay_seen(directory: Path, *, pinned: Path | None, by_authorities: bool = False) -> TcpSeen:
    """A relay with the certificate of ``directory`` is looked at with the pin of ``pinned``'s."""
    context, digest = context_of(*kept_certificate(directory))
    if pinned is not None:
        _, digest = context_of(*kept_certificate(pinned))

    async def look() -> TcpSeen:
        async with serving(context=context) as port:
            pin = None if by_authorities else digest
            return await look_at_tls(TlsTarget("relay r", "127.0.0.1", port, pin))

    return asyncio.run(look())


def test_a_relay_with_the_pinned_certificate_is_good(tmp_path: Path) -> None:
    seen = relay_seen(tmp_path / "one", pinned=None)
    assert (seen.role, seen.outcome, seen.detail) == ("relay", "good", "")


def test_another_certificate_than_the_pinned_one_is_wrong_and_named(tmp_path: Path) -> None:
    seen = relay_seen(tmp_path / "one", pinned=tmp_path / "two")
    assert seen.outcome == "wrong"
    assert "issued by" in seen.detail


def test_without_a_pin_authorities_have_to_vouch(tmp_path: Path) -> None:
    assert relay_seen(tmp_path / "one", pinned=None, by_authorities=True).outcome == "wrong"


def test_who_speaks_no_tls_is_wrong_and_who_does_not_listen_is_silent() -> None:
    async def look() -> tuple[TcpSeen, TcpSeen]:
        async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
            wrong = await look_at_tls(TlsTarget("relay r", "127.0.0.1", port, bytes(32)))
        return wrong, await look_at_tls(TlsTarget("relay r", "127.0.0.1", port, bytes(32)))

    wrong, silent = asyncio.run(look())
    assert wrong.outcome == "wrong"
    assert (silent.outcome, "refused" in silent.detail) == ("silent", True)


def test_a_coordinator_that_proves_itself_is_good_and_another_one_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def portal(host: str) -> str:
        return f"http://portal.example/{host}"

    monkeypatch.setattr(web, "portal_at", portal)

    async def look() -> tuple[TcpSeen, TcpSeen]:
        async with TestCoordinator() as coordinator:
            key = coordinator.identity.verify_key
            right = await look_at_coordinator(CoordinatorTarget("coordinator", coordinator.url, key))
            other = SigningKey(bytes([8]) * 32).verify_key
            return right, await look_at_coordinator(CoordinatorTarget("coordinator", coordinator.url, other))

    right, wrong = asyncio.run(look())
    assert (right.role, right.outcome) == ("coordinator", "good")
    assert right.clock_offset_s == pytest.approx(0.0, abs=5.0)
    assert wrong.outcome == "wrong"
    assert "another coordinator" in wrong.detail
    assert (right.portal, wrong.portal) == ("", "http://portal.example/127.0.0.1")


@pytest.mark.parametrize(
    ("head", "portal"),
    [
        ("HTTP/1.1 302 Found\r\nLocation: http://portal.example/login", "http://portal.example/login"),
        ("HTTP/1.1 307 x\r\nlocation:  https://portal.example", "https://portal.example"),
        ("HTTP/1.1 511 Network Authentication Required", "sign in"),
        ("HTTP/1.1 301 Moved\r\nLocation: https://c.example/", ""),
        ("HTTP/1.1 301 Moved\r\nLocation: https://www.c.example/", ""),
        ("HTTP/1.1 301 Moved\r\nLocation: /elsewhere", ""),
        ("HTTP/1.1 301 Moved\r\nLocation: http://[", ""),
        ("HTTP/1.1 200 OK\r\nLocation: http://portal.example/", ""),
        ("HTTP/1.1 30\u00b2 Found\r\nLocation: http://portal.example/", ""),  # a digit, and no number
        ("HTTP/1.1", ""),
        ("", ""),
        ("SSH-2.0-OpenSSH", ""),
    ],
)
def test_a_portal_is_known_by_its_answer(head: str, portal: str) -> None:
    assert portal_in_untrusted(f"{head}\r\n\r\n".encode("latin-1"), "c.example") == portal


@given(st.binary(max_size=300))
def test_any_answer_is_read_and_what_is_told_of_it_is_one_line(head: bytes) -> None:
    for data in (head, b"HTTP/1.1 302 x\r\nLocation: http://" + head):
        told = portal_in_untrusted(data, "c.example")
        assert len(told) <= 200
        assert told.isprintable()


def test_a_portal_is_asked_in_plain_http() -> None:
    async def ask(answer: bytes) -> str:
        async with serving(answer) as port:
            return await portal_at("127.0.0.1", port)

    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n"
    assert asyncio.run(ask(redirect)) == "http://portal.example/"
    assert asyncio.run(ask(b"")) == ""
    assert asyncio.run(ask(b"HTTP/1.1 302 " + b"x" * 100_000)) == ""


def test_a_relay_is_looked_at_through_the_proxy(tmp_path: Path) -> None:
    """Which says yes to everything, and then is the relay itself."""
    context, digest = context_of(*kept_certificate(tmp_path))
    heads: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            await writer.start_tls(context)
            await reader.read()
        writer.transport.abort()

    async def look() -> TcpSeen:
        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await look_at_tls(TlsTarget("relay r", "relay.example", 443, digest), proxy)

    assert asyncio.run(look()).outcome == "good"
    assert heads[0].startswith(b"CONNECT relay.example:443 ")


def test_a_proxy_that_is_not_there_is_said() -> None:
    async def look() -> TcpSeen:
        return await look_at_tls(TlsTarget("relay r", "relay.example", 443, bytes(32)), "http://127.0.0.1:1")

    seen = asyncio.run(look())
    assert (seen.outcome, "the proxy 127.0.0.1:1" in seen.detail) == ("silent", True)
