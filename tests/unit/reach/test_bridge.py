"""Bridges over real sockets of the loopback interface: what goes through, who is let in, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificate, make_certificate
from tests.support.proxies import HttpProxy
from warren.errors import OperationFailed, Unreachable
from warren.proto.stun.message import Class, Method, encode
from warren.proto.turn.channel import unwrap_train_untrusted, wrap_train
from warren.reach import bridge as bridge_module
from warren.reach import bridge_connect
from warren.reach.bridge import StreamBridge
from warren.reach.bridge_connect import TlsPin
from warren.reach.bridge_framing import LengthFraming
from warren.reach.proxy import Proxy

REQUEST = encode(Method.BINDING, Class.REQUEST, bytes(12), [])
ANSWER = encode(Method.BINDING, Class.SUCCESS, bytes(12), [])
_SOL_UDP, _UDP_SEGMENT = 17, 103


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(limited())


@dataclass
class Plane:
    """The data plane's port."""

    sock: socket.socket

    @property
    def port(self) -> int:
        return int(self.sock.getsockname()[1])

    async def send(self, bridge: StreamBridge, data: bytes, stride: int = 0) -> None:
        control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", stride))] if stride else []
        self.sock.sendmsg([data], control, 0, (str(bridge.address.ip), bridge.address.port))

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.sock, 65_536)


@contextlib.contextmanager
def plane() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        yield Plane(sock)


@dataclass
class Relay:
    """The other end of the stream."""

    port: int
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]

    async def connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self.accepted.get()


@contextlib.asynccontextmanager
async def relay(context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Relay]:
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        accepted.put_nowait((reader, writer))

    server = await asyncio.start_server(serve, host, 0, ssl=context)
    try:
        yield Relay(server.sockets[0].getsockname()[1], accepted)
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()


async def open_bridge(at: Relay, port: Callable[[], int], **options: Any) -> StreamBridge:
    return await StreamBridge.open(
        "127.0.0.1", at.port, tls=options.get("tls"), proxy=options.get("proxy"), plane_port=port
    )


def test_datagrams_go_through_in_both_directions() -> None:
    async def body() -> None:
        async with relay() as at:
            with plane() as own:
                bridge = await open_bridge(at, lambda: own.port)
                assert bridge.address.ip == IPv4Address("127.0.0.1")
                reader, writer = await at.connection()
                await own.send(bridge, REQUEST)
                await own.send(bridge, wrap_train(b"12345", 5, 0x4000))
                assert await reader.readexactly(len(REQUEST) + 12) == REQUEST + b"\x40\0\0\x0512345\0\0\0"
                writer.write(ANSWER + b"\x40\0\0\x0512345\0\0\0" + ANSWER[:7])
                assert await own.receive() == ANSWER
                assert (await own.receive())[:9] == b"\x40\0\0\x0512345"
                writer.write(ANSWER[7:])
                assert await own.receive() == ANSWER
                bridge.close()

    run(body)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_whole_trains_go_through_unchanged(tmp_path: Path, secure: bool) -> None:
    certificate = make_certificate("relay")
    data = bytes(range(256)) * 200
    stride = 1024

    async def body() -> None:
        async with relay(certificate.server_context(tmp_path) if secure else None) as at:
            with plane() as own:
                tls = TlsPin(certificate_sha256=certificate.sha256) if secure else None
                bridge = await open_bridge(at, lambda: own.port, tls=tls)
                reader, writer = await at.connection()
                writer.write(ANSWER)
                assert await own.receive() == ANSWER
                for _ in range(20):
                    await own.send(bridge, wrap_train(data, stride, 0x4000), stride + 4)
                    stream = await reader.readexactly(len(data) + 4 * len(data) // stride)
                    writer.write(stream)
                    got = b""
                    for _ in range(len(data) // stride):
                        datagram = bytearray(await own.receive())
                        (one,), _ = unwrap_train_untrusted(datagram, len(datagram), len(datagram))
                        got += datagram[one.at : one.end]
                    assert got == data
                assert bridge.dropped == 0
                bridge.close()

    run(body)


def test_only_the_data_planes_own_port_is_let_in() -> None:
    async def body() -> None:
        async with relay() as at:
            with plane() as own, plane() as stranger:
                bridge = await open_bridge(at, lambda: own.port)
                reader, writer = await at.connection()
                await stranger.send(bridge, ANSWER)
                await own.send(bridge, REQUEST)
                assert await reader.readexactly(20) == REQUEST
                writer.write(ANSWER)
                assert await own.receive() == ANSWER
                with pytest.raises(BlockingIOError):
                    stranger.sock.recv(100)
                bridge.close()

    run(body)


def test_a_data_plane_that_changes_its_port_is_followed() -> None:
    async def body() -> None:
        async with relay() as at:
            with plane() as before, plane() as after:
                port = [before.port]
                bridge = await open_bridge(at, lambda: port[0])
                reader, writer = await at.connection()
                port[0] = after.port
                await before.send(bridge, ANSWER)
                await after.send(bridge, REQUEST)
                assert await reader.readexactly(20) == REQUEST
                writer.write(ANSWER)
                assert await after.receive() == ANSWER
                bridge.close()

    run(body)


def test_a_stream_that_takes_nothing_makes_datagrams_be_dropped() -> None:
    async def body() -> None:
        async with relay() as at:
            with plane() as own:
                bridge = await open_bridge(at, lambda: own.port)
                reader, _ = await at.connection()
                train = wrap_train(bytes(40_000), 1000, 0x4000)
                for _ in range(2000):
                    await own.send(bridge, train, 1004)
                    await asyncio.sleep(0)
                    if bridge.dropped > 50:
                        break
                assert bridge.dropped > 50
                assert bridge._waiting_bytes < bridge_module.WAITING_BYTES_MAX + len(train)
                drained = 0
                while bridge._waiting:
                    drained += len(await reader.read(1 << 20))
                dropped = bridge.dropped
                await own.send(bridge, train, 1004)
                want = -drained % len(train) or len(train)
                await reader.readexactly(want)
                assert bridge.dropped == dropped
                bridge.close()

    run(body)


@pytest.mark.parametrize(
    ("said", "words"),
    [(b"", "has ended the connection"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak as it should")],
)
def test_a_stream_that_ends_or_speaks_something_else_closes_the_bridge(said: bytes, words: str) -> None:
    async def body() -> None:
        async with relay() as at:
            bridge = await open_bridge(at, lambda: 9)
            _, writer = await at.connection()
            writer.write(said)
            await writer.drain()
            if not said:
                writer.close()
            why = await bridge.closed
            assert f"relay 127.0.0.1:{at.port} {words}" in why
            bridge.close()

    run(body)


def test_a_connection_that_is_reset_closes_the_bridge() -> None:
    async def body() -> None:
        async with relay() as at:
            bridge = await open_bridge(at, lambda: 9)
            _, writer = await at.connection()
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            assert "broke" in await bridge.closed

    run(body)


def test_dead_connections_are_noticed_by_the_kernel() -> None:
    with socket.socket() as sock:
        bridge_connect.tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, 18) == 10_000  # TCP_USER_TIMEOUT
        assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 128 << 10  # TCP_NOTSENT_LOWAT
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15


def test_what_was_read_before_the_bridge_began_is_not_lost() -> None:
    async def body() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        with plane() as own, far:
            bridge = StreamBridge(near, LengthFraming(), lambda: own.port, "the peer", begun=b"\0\3abc\0\3d")
            assert await own.receive() == b"abc"
            far.send(b"ef")
            assert await own.receive() == b"def"
            bridge.close()
            assert await bridge.closed == "it was closed here"

    run(body)


def test_who_was_cancelled_while_waiting_for_the_end_can_still_close_it() -> None:
    """That cancels what it waited for, and the stream has not ended."""

    async def body() -> None:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.settimeout(10)
        with far:
            bridge = StreamBridge(near, LengthFraming(), lambda: 9, "the peer")

            async def wait() -> None:
                await bridge.closed

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            bridge.close()
            assert far.recv(1) == b""

    run(body)


def test_nobody_there_is_told() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]

        async def body() -> None:
            await StreamBridge.open("127.0.0.1", port, tls=None, proxy=None, plane_port=lambda: 9)

        with pytest.raises(Unreachable, match=f"relay 127.0.0.1:{port} cannot be reached \\(.*refused.*\\)"):
            run(body)


def test_a_name_without_address_is_told() -> None:
    async def body() -> None:
        await StreamBridge.open("a" * 64 + ".invalid", 1, tls=None, proxy=None, plane_port=lambda: 9)

    with pytest.raises(Unreachable, match="has no address"):
        run(body)


def test_a_relay_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_connect, "CONNECT_S", 0.2)

    async def body() -> None:
        async with relay() as at:
            await open_bridge(at, lambda: 9, tls=TlsPin(certificate_sha256=bytes(32)))

    with pytest.raises(Unreachable, match="does not answer within"):
        run(body)


# Whose certificate it is.


def refusal(tmp_path: Path, shown: Certificate, tls: TlsPin) -> str:
    async def body() -> None:
        async with relay(shown.server_context(tmp_path)) as at:
            bridge = await open_bridge(at, lambda: 9, tls=tls)
            bridge.close()

    with pytest.raises(OperationFailed) as refused:
        run(body)
    return str(refused.value)


def test_another_certificate_than_the_pinned_one_is_refused_by_name(tmp_path: Path) -> None:
    authority = make_certificate("Big Corp Inspection CA", authority=True)
    shown = make_certificate("relay", issuer=authority)
    told = refusal(tmp_path, shown, TlsPin(certificate_sha256=make_certificate("relay").sha256))
    assert "of “CN=relay”, issued by “CN=Big Corp Inspection CA”," in told
    assert "not the one the network names for it" in told


def test_a_certificate_of_nobody_known_is_refused_by_name(tmp_path: Path) -> None:
    told = refusal(tmp_path, make_certificate("localhost", names=("localhost",)), TlsPin(hostname="localhost"))
    assert "of “CN=localhost”, issued by itself," in told


def test_a_good_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    authority = make_certificate("Roots", authority=True)
    shown = make_certificate("other", names=("other.example",), issuer=authority)
    told = refusal(tmp_path, shown, TlsPin(hostname="relay.example", extra_roots=authority.pem))
    assert "of “CN=other”, issued by “CN=Roots”," in told
    assert "relay.example" in told


def test_a_certificate_with_a_hostile_name_does_no_harm(tmp_path: Path) -> None:
    told = refusal(tmp_path, make_certificate("\x1b[2J\n\u202ex"), TlsPin(certificate_sha256=bytes(32)))
    assert told.isprintable()


def test_a_name_that_authorities_vouch_for_is_accepted(tmp_path: Path) -> None:
    authority = make_certificate("Roots", authority=True)
    shown = make_certificate("relay", names=("relay.example",), issuer=authority)

    async def body() -> None:
        async with relay(shown.server_context(tmp_path)) as at:
            tls = TlsPin(hostname="relay.example", extra_roots=authority.pem)
            bridge = await open_bridge(at, lambda: 9, tls=tls)
            bridge.close()

    run(body)


def test_a_service_without_tls_is_told_from_a_broken_handshake() -> None:
    async def body() -> None:
        async with relay() as at:
            opening = asyncio.ensure_future(open_bridge(at, lambda: 9, tls=TlsPin(certificate_sha256=bytes(32))))
            _, writer = await at.connection()
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await opening

    with pytest.raises(OperationFailed, match="speaks no TLS"):
        run(body)


def test_a_relay_is_known_in_exactly_one_way() -> None:
    for wrong in ({}, {"certificate_sha256": bytes(32), "hostname": "relay"}):
        with pytest.raises(ValueError, match="by its certificate or by its name"):
            TlsPin(**wrong)  # type: ignore[arg-type]


# Through proxies. The proxy does not count for this machine's own addresses, so these relays have a name.


@pytest.fixture
def _relay_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``relay.test`` is this machine, for the proxy only."""
    found = asyncio.base_events.BaseEventLoop.getaddrinfo

    async def getaddrinfo(loop: Any, host: Any, port: Any, **options: Any) -> Any:
        return await found(loop, "127.0.0.1" if host == "relay.test" else host, port, **options)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("_relay_has_a_name")
def test_tls_through_a_proxy(tmp_path: Path) -> None:
    certificate = make_certificate("relay")
    proxy = HttpProxy(login="Basic YTpi")

    async def body() -> None:
        async with relay(certificate.server_context(tmp_path)) as at, proxy.running(tmp_path):
            with plane() as own:
                bridge = await StreamBridge.open(
                    "relay.test",
                    at.port,
                    tls=TlsPin(certificate_sha256=certificate.sha256),
                    proxy=Proxy("127.0.0.1", proxy.port, "a", "b"),
                    plane_port=lambda: own.port,
                )
                reader, writer = await at.connection()
                await own.send(bridge, REQUEST)
                assert await reader.readexactly(20) == REQUEST
                writer.write(ANSWER)
                assert await own.receive() == ANSWER
                bridge.close()
        assert len(proxy.requests) == 1

    run(body)


@pytest.mark.usefixtures("_relay_has_a_name")
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "by name"])
def test_a_proxy_that_opens_tls_is_refused_by_name(tmp_path: Path, pinned: bool) -> None:
    certificate = make_certificate("relay.test", names=("relay.test",))
    interceptor = make_certificate("Big Corp Inspection CA", authority=True)
    proxy = HttpProxy(interceptor=interceptor)

    async def body() -> None:
        async with relay(certificate.server_context(tmp_path)) as at, proxy.running(tmp_path):
            tls = TlsPin(certificate_sha256=certificate.sha256) if pinned else TlsPin(hostname="relay.test")
            through = Proxy("127.0.0.1", proxy.port)
            await StreamBridge.open("relay.test", at.port, tls=tls, proxy=through, plane_port=lambda: 9)

    with pytest.raises(OperationFailed) as refused:
        run(body)
    assert "of “CN=relay.test”, issued by “CN=Big Corp Inspection CA”," in str(refused.value)
    assert "if a proxy or firewall here opens TLS connections" in str(refused.value)


@pytest.mark.usefixtures("_relay_has_a_name")
def test_a_proxy_that_is_not_there_is_told() -> None:
    async def body() -> None:
        await StreamBridge.open("relay.test", 1, tls=None, proxy=Proxy("127.0.0.1", 1), plane_port=lambda: 9)

    with pytest.raises(Unreachable, match=r"the proxy 127\.0\.0\.1:1 cannot be reached"):
        run(body)


@pytest.mark.usefixtures("_relay_has_a_name")
def test_an_exception_goes_past_the_proxy() -> None:
    async def body() -> None:
        async with relay() as at:
            proxy = Proxy("127.0.0.1", 1, no_proxy=("test",))
            bridge = await StreamBridge.open("relay.test", at.port, tls=None, proxy=proxy, plane_port=lambda: 9)
            bridge.close()

    run(body)
