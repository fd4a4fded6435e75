from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from tests.support.gateway_server import LOOPBACK, loopback_gateway
from warren.model.tunnel import TransportAddress
from warren.proto.portmap.exchange import Datagram, Fetching
from warren.proto.portmap.http import Response
from warren.proto.portmap.values import Gateway
from warren.reach.portmap_sockets import Sockets

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
Stream = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


class Outcome:
    def __init__(self) -> None:
        self.response: Response | None = None
        self.done = asyncio.Event()

    def fetched(self, _lane: int, _number: int, response: Response | None) -> None:
        self.response = response
        self.done.set()


def fetch(serve: Stream, *, timeout_s: float = 5.0) -> Response | None:
    async def main() -> Response | None:
        gateway = loopback_gateway()
        tasks: list[asyncio.Task[object]] = []

        async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                tasks.append(task)
            try:
                await serve(reader, writer)  # type: ignore[misc]
            except (ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serving, str(gateway.address), 0)
        outcome = Outcome()
        sockets = Sockets(lambda *_: None, outcome.fetched, lambda *_: None)
        remote = TransportAddress(gateway.address, server.sockets[0].getsockname()[1])
        sockets.fetch(Fetching(1, gateway, 1, remote, REQUEST, timeout_s))
        await outcome.done.wait()
        await sockets.close()
        for task in tasks:
            task.cancel()
        server.close()
        await server.wait_closed()
        return outcome.response

    return asyncio.run(main())


def saying(data: bytes, *, then_wait: bool = False) -> Stream:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()
        if then_wait:
            await reader.read()

    return serve


def test_an_answer_comes_whole() -> None:
    response = fetch(saying(OK + b"Content-Length: 5\r\n\r\nhello", then_wait=True))
    assert response is not None
    assert (response.status, response.body) == (200, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense\r\n\r\n",
        OK + b"Content-Length: 50\r\n\r\nhello",
        OK + b"Content-Length: 5000000\r\n\r\n",
        OK + b"\r\n" + b"x" * 1_000_000,
        OK + b"X: " + b"x" * 1_000_000,
    ],
    ids=lambda data: f"{data[-20:]!r} of {len(data)}",
)
def test_what_is_no_small_whole_answer_is_none(data: bytes) -> None:
    assert fetch(saying(data)) is None


def test_an_answer_that_never_ends_is_given_up_at_its_size_not_at_the_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    assert fetch(serve, timeout_s=60.0) is None


def test_an_answer_that_drips_is_given_up_in_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"X: ")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.01)

    assert fetch(serve, timeout_s=0.2) is None


def test_a_redirect_is_not_followed() -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")

    response = fetch(serve)
    assert response is not None
    assert response.status == 302
    assert len(asked) == 1


def test_proxies_in_the_environment_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert fetch(saying(OK + b"Content-Length: 0\r\n\r\n")) is not None


def test_nobody_there_is_no_answer_and_what_is_forgotten_ends() -> None:
    async def main() -> None:
        gateway = loopback_gateway()
        outcome = Outcome()
        sockets = Sockets(lambda *_: None, outcome.fetched, lambda *_: None)
        sockets.fetch(Fetching(1, gateway, 1, TransportAddress(gateway.address, 1), REQUEST))
        await outcome.done.wait()
        assert outcome.response is None
        outcome.done.clear()
        sockets.fetch(Fetching(1, gateway, 2, TransportAddress(gateway.address, 1), REQUEST))
        sockets.forget(1)
        await sockets.close()
        assert not outcome.done.is_set()

    asyncio.run(main())


def test_datagrams_come_and_go_from_a_fresh_port_for_each_exchange() -> None:
    async def main() -> None:
        gateway = loopback_gateway()
        remote = TransportAddress(gateway.address, 5351)
        ports: list[int] = []
        came: asyncio.Queue[tuple[int, bytes, TransportAddress]] = asyncio.Queue()
        sockets = Sockets(lambda *one: came.put_nowait(one), lambda *_: None, lambda *_: None)

        class Server(asyncio.DatagramProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
                assert addr[0] == str(gateway.source)
                ports.append(addr[1])
                self.transport.sendto(data + b"!", addr)  # type: ignore[attr-defined]

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Server, local_addr=(str(gateway.address), 5351)
        )
        for lane in (7, 7, 8):
            sockets.send(Datagram(lane, gateway, remote, b"x", gateway.source))
            assert await came.get() == (lane, b"x!", remote)
        assert ports[0] == ports[1] != ports[2]
        sockets.forget(7)
        sockets.send(Datagram(7, gateway, remote, b"y", gateway.source))
        await came.get()
        assert ports[3] != ports[0]
        await sockets.close()
        transport.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("gateway", "source"),
    [
        (Gateway(ip_address("192.0.2.1"), LOOPBACK, ip_address("192.0.2.77")), ip_address("192.0.2.77")),
        (Gateway(ip_address("192.0.2.1"), 60_000, ip_address("127.0.0.1")), ip_address("127.0.0.1")),
        (Gateway(ip_address("fe80::1"), 60_000, ip_address("2001:db8::1")), None),
    ],
)
def test_what_cannot_be_sent_is_lost_without_a_word(gateway: Gateway, source: object) -> None:
    async def main() -> None:
        outcome = Outcome()
        sockets = Sockets(lambda *_: None, outcome.fetched, lambda *_: None)
        remote = TransportAddress(gateway.address, 5351, gateway.interface if gateway.address.version == 6 else 0)
        sockets.send(Datagram(1, gateway, remote, b"x", source))  # type: ignore[arg-type]
        sockets.fetch(Fetching(2, gateway, 1, remote, REQUEST, 0.2))
        await outcome.done.wait()
        assert outcome.response is None
        await sockets.close()

    asyncio.run(main())


def test_announcements_are_heard_by_several_at_once_and_only_while_wanted() -> None:
    async def main() -> None:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        one = Sockets(lambda *_: None, lambda *_: None, lambda data, _: heard.put_nowait(data))
        other = Sockets(lambda *_: None, lambda *_: None, lambda *_: None)
        one.listen(True)
        other.listen(True)
        other.listen(False)
        one.listen(True)
        for _ in range(200):  # others on this machine may listen there too: each sender's packets go to one of them
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", 5350)
            )
            transport.sendto(b"hello")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    assert await heard.get() == b"hello"
                    break
            transport.close()
        else:
            raise AssertionError("nothing was heard")
        transport.close()
        await one.close()
        await other.close()

    asyncio.run(main())
