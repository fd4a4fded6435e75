"""The SOCKS5 server: who is served, where to, and what garbage comes to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from tests.support.l4_tools import FakeTools
from warren.l4 import socks as server
from warren.l4.config import Backend, Entry, Limits, Listen, Way
from warren.l4.kinds import Connected, Goal, Incoming, Refused
from warren.l4.listening import transport_address
from warren.model.tunnel import TransportAddress
from warren.proto import socks

OVERLAY = ("10.77.0.0/16", "fd77::/16")
GREETING = b"\5\1\0"
CHOSEN = b"\5\0"
WEB = bytes.fromhex("05 01 00 01 0a4d0002 0050")
LOCAL = Listen()


def named(name: bytes, command: int = socks.CONNECT, port: int = 80) -> bytes:
    return b"\5" + bytes((command, 0, 3, len(name))) + name + port.to_bytes(2)


class Tools(FakeTools):
    """Connections to the overlay are made to ``there``, or are refused for ``refuses``."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: Refused | None = None
        self.there: list[socket.socket] = []

    async def connect(self, way: Way, client: TransportAddress | None) -> Connected:
        self.ways.append(way)
        if self.refuses is not None:
            raise self.refuses
        here, there = socket.socketpair()
        self.there.append(there)
        return Connected(_Bound(here), way.backends[0])


class _Bound(socket.socket):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())

    def getsockname(self) -> Any:
        return ("10.77.0.1", 40000)


class Client:
    """What a program sees."""

    def __init__(self, sock: socket.socket, serving: asyncio.Task[None]) -> None:
        self.sock = sock
        self.serving = serving

    async def say(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hear(self, length: int = 4096) -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(self.sock, length)

    async def hear_all(self) -> bytes:
        """Up to the end or a reset."""
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while more := await self.hear():
                heard += more
        return heard


def entry_of(**more: Any) -> Entry:
    return Entry(id="socks", kind="socks", listen=(LOCAL,), allowed=more.pop("allowed", OVERLAY), **more)


@asynccontextmanager
async def client_of(tools: FakeTools, entry: Entry, host: str = "127.0.0.1") -> AsyncIterator[Client]:
    """A connection from ``host`` that is being served, as the stream process does it."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        sock = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
    sock.setblocking(False)
    accepted.setblocking(False)
    incoming = Incoming(
        accepted, transport_address(accepted.getpeername()), transport_address(accepted.getsockname()), LOCAL
    )

    async def serve() -> None:
        try:
            await server.handle(incoming, entry, tools)
        except Refused as why:
            tools.refuse(incoming, why)

    serving = asyncio.create_task(serve())
    try:
        yield Client(sock, serving)
    finally:
        sock.close()
        async with asyncio.timeout(10):
            await serving
        accepted.close()
        for one in (*(both[1] for both in tools.carried), *getattr(tools, "there", ())):
            one.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()

    asyncio.run(whole())


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_stream_is_carried_and_what_followed_the_request_goes_first(in_parts: bool) -> None:
    async def test() -> None:
        tools = Tools()
        async with client_of(tools, entry_of(way=Way(connect_timeout_s=3.0))) as client:
            for part in [bytes((byte,)) for byte in GREETING + WEB] if in_parts else [GREETING + WEB + b"early"]:
                await client.say(part)
                await asyncio.sleep(0)
            assert await client.hear() == CHOSEN
            await client.serving
            ((_, outgoing, head, answer),) = tools.carried
            assert head == (b"" if in_parts else b"early")
            assert answer == b"\5\0\0\1\x0a\x4d\0\1" + (40000).to_bytes(2)
            (way,) = tools.ways
            assert way.backends == (Backend(name="10.77.0.2", side="overlay", host="10.77.0.2", port=80),)
            assert way.connect_timeout_s == 3.0
            assert tools.refusals == []
            outgoing.close()

    run(test)


def test_names_are_the_overlays_and_all_their_addresses_inside_are_tried() -> None:
    async def test() -> None:
        tools = Tools()
        addresses = ["fd77::2", "127.0.0.1", "192.0.2.1", "10.77.0.2", "::1"]
        tools.names["web.home"] = [ip_address(address) for address in addresses]
        async with client_of(tools, entry_of()) as client:
            await client.say(GREETING + named(b"web.home"))
            await client.hear(2)
            await client.serving
        assert tools.asked == ["web.home"]
        assert [backend.host for backend in tools.ways[0].backends] == ["fd77::2", "10.77.0.2"]
        assert {backend.side for backend in tools.ways[0].backends} == {"overlay"}

    run(test)


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (bytes.fromhex("05010001 7f000001 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010001 00000000 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010001 c0000201 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010001 a9fea9fe 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010004 00000000000000000000000000000001 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010004 00000000000000000000ffff7f000001 0050"), socks.NOT_ALLOWED, "policy"),
        (bytes.fromhex("05010004 00000000000000000000ffffc0000201 0050"), socks.NOT_ALLOWED, "policy"),
        (named(b"127.0.0.1"), socks.NOT_ALLOWED, "policy"),
        (named(b"::ffff:127.0.0.1"), socks.NOT_ALLOWED, "policy"),
        (named(b"outside"), socks.NOT_ALLOWED, "policy"),
        (named(b"localhost"), socks.HOST_UNREACHABLE, "unresolved"),
        (named(b"web.home", socks.BIND), socks.COMMAND_NOT_SUPPORTED, "protocol"),
        (named(b"web.home", 9), socks.COMMAND_NOT_SUPPORTED, "protocol"),
        (named(b"web.home", port=0), socks.FAILED, "protocol"),
        (named(b"web home"), socks.FAILED, "protocol"),
        (b"\5\1\0\2", socks.ADDRESS_NOT_SUPPORTED, "protocol"),
        (b"\5\1\7\1", socks.FAILED, "protocol"),
    ],
)
def test_what_is_refused_is_told_and_counted(request_: bytes, code: int, reason: str) -> None:
    async def test() -> None:
        tools = Tools()
        tools.names["outside"] = [ip_address("192.0.2.1"), ip_address("127.0.0.1")]
        tools.names["web.home"] = [ip_address("10.77.0.2")]
        async with client_of(tools, entry_of()) as client:
            await client.say(GREETING + request_)
            assert await client.hear_all() == CHOSEN + socks.reply(code)
        assert tools.reasons == {reason: 1}
        assert tools.ways == []

    run(test)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [(WEB, ("10.77.0.2", Goal("tcp", 80))), (named(b"web.home", port=25), ("web.home", Goal("tcp", 25)))],
)
def test_what_the_policy_forbids_is_refused_before_anything_is_tried(request_: bytes, asked: tuple[str, Goal]) -> None:
    async def test() -> None:
        tools = Tools()
        tools.names["web.home"] = [ip_address("10.77.0.2")]
        tools.forbidden = {asked[0]}
        async with client_of(tools, entry_of()) as client:
            await client.say(GREETING + request_)
            assert await client.hear_all() == CHOSEN + socks.reply(socks.NOT_ALLOWED)
        assert tools.goals == [asked]
        assert (tools.reasons, tools.ways) == ({"policy": 1}, [])
        assert str(tools.refusals[0]) == f"{asked[0]} may not be reached"

    run(test)


def test_loopback_is_refused_even_where_the_prefixes_have_it_and_without_prefixes_everything_is() -> None:
    async def test() -> None:
        for allowed, request in ((("0.0.0.0/0", "::/0"), named(b"127.0.0.1")), ((), WEB)):
            tools = Tools()
            async with client_of(tools, entry_of(allowed=allowed)) as client:
                await client.say(GREETING + request)
                assert await client.hear_all() == CHOSEN + socks.reply(socks.NOT_ALLOWED)
            assert tools.ways == []

    run(test)


@pytest.mark.parametrize(
    ("why", "code"),
    [
        ("policy", socks.NOT_ALLOWED),
        ("connect", socks.CONNECTION_REFUSED),
        ("timeout", socks.TTL_EXPIRED),
        ("resources", socks.FAILED),
    ],
)
def test_why_there_is_no_connection_is_told(why: str, code: int) -> None:
    async def test() -> None:
        tools = Tools()
        tools.refuses = Refused(why, "so it is")
        async with client_of(tools, entry_of()) as client:
            await client.say(GREETING + WEB)
            assert await client.hear_all() == CHOSEN + socks.reply(code)
        assert tools.reasons == {why: 1}

    run(test)


@pytest.mark.parametrize(
    ("garbage", "heard"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"\4\1\0\x50\x0a\x4d\0\2\0", b""),
        (b"\x16\3\1\2\0\1\0", b""),
        (b"\5\0", b"\5\xff"),
        (b"\5\1\2", b"\5\xff"),
        (b"\5\xff" + b"\2" * 255, b"\5\xff"),
        (GREETING + b"\4\1", CHOSEN + socks.reply(socks.FAILED)),
    ],
)
def test_garbage_ends_at_once(garbage: bytes, heard: bytes) -> None:
    async def test() -> None:
        tools = Tools()
        async with client_of(tools, entry_of()) as client:
            await client.say(garbage)
            assert await client.hear_all() == heard
        assert tools.reasons == {"protocol": 1}

    run(test)


@pytest.mark.parametrize("said", [b"", b"\5", GREETING, GREETING + WEB[:5]])
def test_a_client_that_goes_or_says_nothing_more_is_let_go(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.05)

    async def test() -> None:
        for goes in (False, True):
            tools = Tools()
            async with client_of(tools, entry_of()) as client:
                await client.say(said)
                if goes:
                    client.sock.shutdown(socket.SHUT_WR)
                await client.hear_all()
            assert tools.reasons == {"protocol": 1}

    run(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_listener_of_one_user_serves_that_user_and_root(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.getuid()
    owners: list[int | None] = [me, 0, me + 1, None]
    monkeypatch.setattr("warren.l4.socks_guard.owner_of", lambda *_: owners[0])

    async def test() -> None:
        for served in (True, True, False, False):
            tools = Tools()
            async with client_of(tools, entry_of(owner_uid=me), host) as client:
                with contextlib.suppress(ConnectionError):
                    await client.say(GREETING + WEB)
                heard = await client.hear() if served else await client.hear_all()
                assert heard == (CHOSEN if served else b"")
                await client.serving
            assert len(tools.ways) == served
            assert tools.reasons == ({} if served else {"source": 1})
            owners.pop(0)

    run(test)


def test_the_owner_is_asked_of_the_kernel() -> None:
    async def test() -> None:
        for owner_uid, served in ((os.getuid(), True), (os.getuid() + 1, os.getuid() == 0)):
            tools = Tools()
            async with client_of(tools, entry_of(owner_uid=owner_uid, limits=Limits())) as client:
                with contextlib.suppress(ConnectionError):
                    await client.say(GREETING + WEB)
                    await client.hear(2)
                await client.serving
            assert len(tools.ways) == served

    run(test)
