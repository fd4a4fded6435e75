"""Changes of the sites while WebSockets are open: one Caddy follows another, and nobody is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.ingress import PATIENCE_S, QUIET_S, Gateway, eventually, gateway
from warren.errors import OperationFailed
from warren.ingress import caddy, earlier, generation, process
from warren.ingress.caddy import Caddy
from warren.ingress.generation import numbers
from warren.ingress.sites import Site

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="the Debian package caddy is not installed")

DATA, HEADERS, GO_AWAY = 0, 1, 7


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(caddy, "FOLLOWED_AFTER_S", 0.0)


class WebSocket:
    """What is sent on it comes back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, gate: Gateway, host: str, *, tls: bool = True) -> WebSocket:
        reader, writer = await gate.connect(host, tls=tls)
        writer.write(
            b"GET /upgrade HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return cls(reader, writer)

    async def echoes(self) -> bool:
        """Whether it is still open."""
        try:
            self._writer.write(b"\x81\x82frames")
            async with asyncio.timeout(PATIENCE_S):
                return await self._reader.readexactly(8) == b"\x81\x82frames"
        except (OSError, asyncio.IncompleteReadError):
            return False

    def close(self) -> None:
        self._writer.transport.abort()


class Http2:
    """One connection with requests one after the other; of the answers, the kinds of frames (RFC 9113 §6)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = 1

    @classmethod
    async def open(cls, gate: Gateway, host: str) -> Http2:
        reader, writer = await gate.connect(host, alpn=["h2"])
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
        return cls(reader, writer)

    async def ask(self, *expected: int) -> list[int]:
        """Of the answer, and of what else comes with it: waited for, what is expected."""
        # :method GET, :scheme https, :path / from the static table, and :authority as it is (RFC 7541).
        self._writer.write(_frame(HEADERS, 0x5, self._stream, b"\x82\x87\x84\x01\x06a.test"))
        self._stream += 2
        found: list[int] = []
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(QUIET_S if found and set(expected) <= set(found) else PATIENCE_S):
                    head = await self._reader.readexactly(9)
                    await self._reader.readexactly(int.from_bytes(head[:3]))
                if head[3] in {HEADERS, DATA, GO_AWAY} and head[3] not in found:
                    found.append(head[3])
        return sorted(found, key=[HEADERS, DATA, GO_AWAY].index)

    def close(self) -> None:
        self._writer.transport.abort()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def plain(gate: Gateway, *names: str) -> list[Site]:
    return [gate.site(f"{name}.test", certificate="none") for name in names]


async def status(gate: Gateway, host: str) -> bytes:
    answer = await gate.say("", f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(), tls=False)
    return answer[9:12]


def alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/exe").exists()


def test_a_websocket_goes_on_over_ten_changes_and_new_connections_find_what_is_new_at_once() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            first = gate.caddy.pid
            web = await WebSocket.open(gate, "a.test")
            sites = [gate.site("a.test")]
            for number in range(10):
                await gate.keep([*sites, *plain(gate, f"n{number}")])
                assert await web.echoes()
                assert await status(gate, f"n{number}.test") == b"200"
                assert await status(gate, f"n{number - 1}.test") == b"404"
            assert gate.caddy.pid != first
            assert gate.caddy.earlier == 1, "further changes were made where no WebSocket was"
            web.close()
            await eventually(lambda: gate.caddy.earlier == 0)
            assert not alive(first)
            assert len(numbers(gate.settings)) == 1
            assert await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/") == "200"

    asyncio.run(scene())


def test_without_websockets_the_one_that_runs_takes_the_change() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            first = gate.caddy.pid
            _, idle = await gate.connect("a.test")
            await gate.keep([gate.site("a.test"), *plain(gate, "b")])
            assert (gate.caddy.pid, gate.caddy.earlier) == (first, 0)
            idle.transport.abort()

    asyncio.run(scene())


def test_a_websocket_that_the_site_refused_keeps_nothing_from_changing() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            first = gate.caddy.pid
            reader, writer = await gate.connect("a.test")
            writer.write(
                b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
            assert gate.web.seen[-1].all("upgrade") == ["websocket"]
            await gate.keep([gate.site("a.test"), *plain(gate, "b")])
            assert (gate.caddy.pid, gate.caddy.earlier) == (first, 0)
            writer.transport.abort()

    asyncio.run(scene())


def test_who_has_a_connection_to_the_earlier_one_is_answered_and_comes_again_by_another() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            web = await WebSocket.open(gate, "a.test")
            reader, writer = await gate.connect("a.test")
            request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                assert b"Connection: close" not in await reader.readuntil(b"}")
            streams = await Http2.open(gate, "a.test")
            assert await streams.ask(HEADERS, DATA) == [HEADERS, DATA]
            await gate.keep([gate.site("a.test"), *plain(gate, "b")])
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                last = await reader.read()
            assert last.startswith(b"HTTP/1.1 200 ")
            assert b"Connection: close" in last
            assert await streams.ask(HEADERS, DATA, GO_AWAY) == [HEADERS, DATA, GO_AWAY]
            assert await web.echoes()
            assert gate.caddy.earlier == 1
            writer.transport.abort()
            streams.close()
            web.close()

    asyncio.run(scene())


def test_a_site_that_is_gone_is_not_served_by_the_earlier_one_either() -> None:
    async def scene() -> None:
        async with gateway() as gate:
            await gate.keep(plain(gate, "a", "b"))
            web = await WebSocket.open(gate, "a.test", tls=False)
            reader, writer = await gate.connect("", tls=False)
            request = b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n"
            writer.write(request)
            assert (await reader.readuntil(b"}"))[9:12] == b"200"
            await gate.keep(plain(gate, "a"))
            assert gate.caddy.earlier == 1
            await gate.web.close()  # as the stream process does for a connector that is gone
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.read()).startswith(b"HTTP/1.1 502 "), "and the connection ends"
            writer.transport.abort()
            web.close()

    asyncio.run(scene())


def test_what_a_further_process_refuses_leaves_the_one_before_and_no_other() -> None:
    async def scene() -> None:
        async with gateway("a.test", acme_ca=Path("/nowhere/root.pem")) as gate:
            first, ports = gate.caddy.pid, gate.caddy.ports
            web = await WebSocket.open(gate, "a.test")
            wrong = [gate.site("a.test"), gate.site("b.test", certificate="acme")]
            for _ in range(2):
                with pytest.raises(OperationFailed, match=r"^Caddy refuses its configuration: .*/nowhere/root\.pem"):
                    await gate.caddy.keep(wrong)
            assert (gate.caddy.pid, gate.caddy.ports, gate.caddy.earlier) == (first, ports, 0)
            assert numbers(gate.settings) == [1]
            assert await web.echoes()
            await gate.keep([gate.site("a.test"), *plain(gate, "b")])
            assert gate.caddy.earlier == 1
            web.close()

    asyncio.run(scene())


def test_when_either_is_killed_the_other_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            first = gate.caddy.pid or 0
            sites = [gate.site("a.test"), *plain(gate, "b")]
            web = await WebSocket.open(gate, "a.test")
            await gate.keep(sites)
            second, ports = gate.caddy.pid or 0, gate.caddy.ports
            os.kill(second, signal.SIGKILL)
            await eventually(lambda: gate.caddy.pid not in {None, second} and not gate.caddy.problems())
            assert gate.caddy.ports == ports
            assert await status(gate, "b.test") == b"200"
            assert await web.echoes()
            third = gate.caddy.pid
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: gate.caddy.earlier == 0)
            assert not await web.echoes()
            assert (gate.caddy.pid, gate.caddy.problems()) == (third, {})
            assert len(list(gate.lookup.parent.glob("caddy-*.sock"))) == 2, "those of the others are gone"
            web.close()

    asyncio.run(scene())


def test_who_comes_next_looks_after_all_of_them() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            sites = [gate.site("a.test"), *plain(gate, "b")]
            web = await WebSocket.open(gate, "a.test")
            await gate.keep(sites)
            pid, ports = gate.caddy.pid, gate.caddy.ports
            for _ in range(2):
                await gate.caddy.let_go()
                gate.caddy = Caddy(gate.settings, gate.lookup)
                await gate.keep(sites)
                assert (gate.caddy.pid, gate.caddy.ports, gate.caddy.earlier) == (pid, ports, 1)
                assert await web.echoes()
            web.close()
            await eventually(lambda: gate.caddy.earlier == 0)
            assert len(numbers(gate.settings)) == 1

    asyncio.run(scene())


def test_a_download_is_finished_by_the_earlier_one_whoever_looks_after_it() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            sites = [gate.site("a.test"), *plain(gate, "b")]
            web = await WebSocket.open(gate, "a.test")
            reader, writer = await gate.connect("a.test")
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a.test\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 0\n")
            await gate.keep(sites)
            web.close()
            await eventually(lambda: any(gate.settings.generations.glob("*/finishes")))
            await gate.caddy.let_go()
            gate.caddy = Caddy(gate.settings, gate.lookup)
            await gate.keep(sites)
            assert gate.caddy.earlier == 1
            gate.web.more.set()
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 1\n")
            await eventually(lambda: gate.caddy.earlier == 0)
            assert "/metrics" not in next(gate.settings.generations.glob("*/log")).read_text(), "looks fill no log"
            writer.transport.abort()

    asyncio.run(scene())


def test_of_too_many_the_oldest_ends_and_changes_in_a_row_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "EARLIER_MAX", 1)

    async def scene() -> None:
        async with gateway("a.test") as gate:
            first = gate.caddy.pid
            webs = []
            for number in range(3):
                webs.append(await WebSocket.open(gate, "a.test"))
                if number < 2:
                    await gate.keep([gate.site("a.test"), *plain(gate, f"n{number}")])
            await eventually(lambda: gate.caddy.earlier == 1)
            assert not alive(first)
            assert [await web.echoes() for web in webs] == [False, True, True]
            now = asyncio.get_running_loop().time()
            monkeypatch.setattr(caddy, "FOLLOWED_AFTER_S", now - (gate.caddy._followed_at or 0) + 2.0)
            before = gate.caddy.ports
            gate.caddy.changed.clear()
            changes = [[gate.site("a.test"), *plain(gate, f"m{number}")] for number in range(50)]
            assert await gate.caddy.keep(changes[0]) == before
            monkeypatch.setattr(caddy, "FOLLOWED_AFTER_S", 60.0)
            for sites in changes:
                assert await gate.caddy.keep(sites) == before
            async with asyncio.timeout(PATIENCE_S):
                await gate.caddy.changed.wait()
            monkeypatch.setattr(caddy, "FOLLOWED_AFTER_S", 0.0)
            await gate.keep(changes[-1])
            assert gate.caddy.ports != before
            assert await status(gate, "m49.test") == b"200"
            for web in webs:
                web.close()

    asyncio.run(scene())


def test_one_that_hangs_is_replaced_though_nothing_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(generation, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(process, "HUNG_AFTER_S", 3.0)
    monkeypatch.setattr("warren.linux.processes.STOP_S", 0.5)

    async def scene() -> None:
        async with gateway("a.test") as gate:
            pid, ports = gate.caddy.pid or 0, gate.caddy.ports
            told: list[Any] = []
            os.kill(pid, signal.SIGSTOP)
            await eventually(lambda: bool(told.append(gate.caddy.problems()) or told[-1]))
            assert told[-1]["a"] == "Caddy did not answer any more and was ended; it is started again"
            await eventually(lambda: gate.caddy.pid not in {None, pid} and not gate.caddy.problems())
            assert gate.caddy.ports == ports
            assert await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/") == "200"

    asyncio.run(scene())
    assert "Caddy did not answer any more" in caplog.text


def test_closing_leaves_nothing_in_the_run_directory_and_the_certificates() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            web = await WebSocket.open(gate, "a.test")
            await gate.keep([gate.site("a.test"), *plain(gate, "b")])
            await gate.caddy.let_go()
            gate.caddy = Caddy(gate.settings, gate.lookup)
            await gate.caddy.keep([])
            assert list(gate.settings.run.iterdir()) == []
            assert gate.settings.internal_root.exists()
            assert not await web.echoes()
            web.close()

    asyncio.run(scene())
