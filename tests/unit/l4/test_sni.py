"""TLS streams by their name: who is passed on to where, and what the others are told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from warren.l4 import peers, sni
from warren.l4.config import Backend, Entry, Limits, Listen, Name, Way
from warren.l4.kinds import Connected, Incoming, Refused
from warren.model.tunnel import TransportAddress

CLIENT = TransportAddress(ip_address("192.0.2.7"), 40000)
ALERT = b"\x15\x03\x03\x00\x02\x02"


def hello_for(name: str | None) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def way(name: str, refusal: str = "") -> Way:
    return Way(backends=(Backend(name=name, side="overlay", host="fd00::1", port=443),), refusal=refusal, idle_s=9.0)


ENTRY = Entry(
    id="gateway *:443",
    kind="sni",
    listen=(Listen(port=443),),
    names=(
        Name(domain="a.example", connector="a", way=way("a"), limits=Limits(rate=1.0)),
        Name(domain="b.example", connector="b", way=way("b", refusal="the policy forbids it")),
    ),
)


class FakeTools:
    """Connects to nothing, and keeps what is carried."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, TransportAddress | None]] = []
        self.entered: list[tuple[Limits, str]] = []
        self.counted: list[tuple[str, str]] = []
        self.carried: list[tuple[bytes, float | None]] = []
        self.ends: list[Callable[[], None]] = []
        self.sockets: list[socket.socket] = []
        self.admits = True

    async def connect(self, way: Way, client: TransportAddress | None, local: Any = None) -> Connected:
        if way.refusal:
            raise Refused("policy", way.refusal)
        self.connected.append((way.backends[0].name, client))
        listener = socket.create_server(("127.0.0.1", 0))
        sock = socket.create_connection(listener.getsockname())
        self.sockets += [listener, sock]
        return Connected(sock, way.backends[0])

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        *,
        idle_s: float | None,
        head: bytes,
        ended: Any = None,
        **_: Any,
    ) -> None:
        self.sockets += [incoming, outgoing]
        self.carried.append((head, idle_s))
        self.ends.append(ended)

    def enter(self, incoming: Incoming, limits: Limits, name: str) -> None:
        if not self.admits:
            raise Refused("rate", "too fast")
        self.entered.append((limits, name))

    def count(self, why: Refused, client: TransportAddress | None) -> None:
        self.counted.append((why.reason, str(why)))


async def play(
    sent: bytes,
    tools: FakeTools,
    *,
    client: TransportAddress | None = CLIENT,
    piece: int = 1 << 20,
    entry: Entry = ENTRY,
) -> bytes:
    """What the client of one stream gets until it ends; raises what the handler does."""
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with theirs:
        handled = asyncio.create_task(sni.handle(Incoming(ours, client, None, entry.listen[0]), entry, tools))  # type: ignore[arg-type]
        try:
            for at in range(0, len(sent), piece):
                await loop.sock_sendall(theirs, sent[at : at + piece])
                await asyncio.sleep(0)
            if not tools.carried:
                theirs.shutdown(socket.SHUT_WR)
            await handled
            return b"" if tools.carried else await loop.sock_recv(theirs, 4096)
        finally:
            ours.close()
            for sock in tools.sockets:
                sock.close()


def run(sent: bytes, tools: FakeTools, **more: Any) -> bytes:
    async def scene() -> bytes:
        async with asyncio.timeout(10):
            return await play(sent, tools, **more)

    return asyncio.run(scene())


@pytest.mark.parametrize("piece", [1 << 20, 100, 1])
def test_a_stream_goes_where_its_name_says_with_all_that_was_read(piece: int) -> None:
    tools = FakeTools()
    hello = hello_for("A.Example")
    run(hello, tools, piece=piece)
    assert tools.connected == [("a", CLIENT)]
    assert tools.carried == [(hello, 9.0)]
    assert tools.entered == [(Limits(rate=1.0), "a")]


def test_an_ended_name_goes_to_caddy_and_its_client_is_remembered_until_the_end() -> None:
    tools = FakeTools()
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as caddy:
        caddy.bind(f"{directory}/caddy.sock")
        caddy.listen()
        backend = Backend(name="caddy", side="host", port=8443, path=f"{directory}/caddy.sock")
        name = Name(domain="site.example", connector="site", way=Way(backends=(backend,)), ended=True)
        run(hello_for("site.example"), tools, entry=Entry(id="x", kind="sni", listen=ENTRY.listen, names=(name,)))
        accepted, of = caddy.accept()
        accepted.close()
    assert of.startswith(b"\x00192.0.2.7/")
    assert tools.connected == []
    assert len(peers.TABLE) == 1
    tools.ends[0]()
    assert len(peers.TABLE) == 0
    assert tools.entered == [(Limits(), "site")]


@pytest.mark.parametrize("name", ["c.example", "sub.a.example", None])
def test_a_client_of_nobody_is_told_by_an_alert(name: str | None) -> None:
    tools = FakeTools()
    assert run(hello_for(name), tools) == ALERT + b"\x70"
    assert [reason for reason, _ in tools.counted] == ["protocol" if name is None else "no-backend"]
    assert tools.connected == []


def test_a_broken_hello_is_answered_by_an_alert_and_no_tls_is_not() -> None:
    tools = FakeTools()
    assert run(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", tools) == ALERT + b"\x32"
    assert run(b"SSH-2.0-x\r\n", tools) == b""
    assert [reason for reason, _ in tools.counted] == ["protocol", "protocol"]


def test_who_says_http_where_tls_is_spoken_is_told_so() -> None:
    answer = run(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", FakeTools())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"Content-Length: {len(body)}".encode() in head.split(b"\r\n")
    assert b"https://" in body


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"", "protocol"), (hello_for("a.example")[:-1], "protocol"), (hello_for("b.example"), "policy")],
    ids=["nothing", "half a hello", "forbidden"],
)
def test_what_cannot_be_carried_is_refused(sent: bytes, reason: str) -> None:
    tools = FakeTools()
    with pytest.raises(Refused) as refused:
        run(sent, tools)
    assert refused.value.reason == reason
    assert tools.carried == []


def test_a_name_has_limits_of_its_own() -> None:
    tools = FakeTools()
    tools.admits = False
    with pytest.raises(Refused, match="too fast"):
        run(hello_for("a.example"), tools)
    assert tools.connected == []


def test_a_huge_hello_is_read_no_further_than_the_ceiling() -> None:
    tools = FakeTools()
    start = b"\x16\x03\x01\x40\x00\x01\x00\x3f\xf0" + bytes(60_000)
    assert run(start, tools) == ALERT + b"\x32"


def test_a_client_that_says_nothing_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sni, "HELLO_WITHIN_S", 0.05)

    async def scene() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            theirs.send(hello_for("a.example")[:100])
            with pytest.raises(Refused) as refused:
                async with asyncio.timeout(30):
                    await sni.handle(Incoming(ours, CLIENT, None, ENTRY.listen[0]), ENTRY, FakeTools())  # type: ignore[arg-type]
            assert refused.value.reason == "timeout"

    asyncio.run(scene())


def test_one_source_cannot_take_all_places_by_saying_nothing() -> None:
    async def scene() -> None:
        pairs = [socket.socketpair() for _ in range(sni.WAITING_OF_ONE_SOURCE + 2)]
        tools = FakeTools()

        def begin(number: int, client: str) -> asyncio.Task[None]:
            pairs[number][0].setblocking(False)
            incoming = Incoming(pairs[number][0], TransportAddress(ip_address(client), 1), None, ENTRY.listen[0])
            return asyncio.create_task(sni.handle(incoming, ENTRY, tools))  # type: ignore[arg-type]

        waiting = [begin(number, f"2001:db8::{number + 1:x}") for number in range(sni.WAITING_OF_ONE_SOURCE)]
        await asyncio.sleep(0)
        with pytest.raises(Refused) as refused:
            await begin(-2, "2001:db8::ffff")
        assert refused.value.reason == "streams"
        pairs[-1][1].send(hello_for("a.example"))
        await begin(-1, "2001:db8:0:1::1")
        assert tools.connected != []
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert sni._waiting == {}
        for pair in pairs:
            for sock in pair:
                sock.close()
        for sock in tools.sockets:
            sock.close()

    asyncio.run(scene())


def test_who_is_told_why_keeps_a_place_until_it_has_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sni, "WAITING_OF_ONE_SOURCE", 1)

    async def scene() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        with ours, theirs:
            theirs.send(hello_for("c.example"))
            incoming = Incoming(ours, CLIENT, None, ENTRY.listen[0])
            first = asyncio.create_task(sni.handle(incoming, ENTRY, FakeTools()))  # type: ignore[arg-type]
            assert await loop.sock_recv(theirs, 100) == ALERT + b"\x70"
            with pytest.raises(Refused):
                await sni.handle(incoming, ENTRY, FakeTools())  # type: ignore[arg-type]
            theirs.shutdown(socket.SHUT_WR)
            await first
            assert ours.fileno() == -1

    asyncio.run(scene())
