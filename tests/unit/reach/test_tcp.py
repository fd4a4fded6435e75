"""Punching over the loopback interface: the driver, without NATs (those are in the lab)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.turn_script import address
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_xor_address
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.reach import tcp
from warren.reach.bridge import StreamBridge
from warren.reach.tcp import mapped_tcp_address, punch_tcp

KEY = b"k" * 32


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await body()

    asyncio.run(limited())


def free_ports(host: str, count: int) -> list[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for sock in socks:
            sock.bind((host, 0))
        return [int(sock.getsockname()[1]) for sock in socks]


@contextlib.contextmanager
def plane() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def punch(
    local: int,
    remote: list[TransportAddress],
    *,
    controlling: bool,
    sock: socket.socket,
    key: bytes = KEY,
    timeout_s: float = 10.0,
) -> StreamBridge | None:
    return await punch_tcp(
        local_port=local,
        remote=remote,
        key=key,
        controlling=controlling,
        plane_port=lambda: int(sock.getsockname()[1]),
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_ends_that_connect_to_each_other_find_one_connection(host: str) -> None:
    async def body() -> None:
        a, b = free_ports(host, 2)
        with plane() as one, plane() as other:
            left, right = await asyncio.gather(
                punch(a, [address(host, b)], controlling=True, sock=one),
                punch(b, [address(host, a)], controlling=False, sock=other),
            )
            assert left is not None
            assert right is not None
            loop = asyncio.get_running_loop()
            one.sendto(b"\4handshake", (str(left.address.ip), left.address.port))
            assert await loop.sock_recv(other, 100) == b"\4handshake"
            other.sendto(b"\4answer", (str(right.address.ip), right.address.port))
            assert await loop.sock_recv(one, 100) == b"\4answer"
            left.close()
            assert "has ended the connection" in await right.closed

    run(body)


def test_an_end_that_begins_later_is_waited_for() -> None:
    async def body() -> None:
        a, b = free_ports("127.0.0.1", 2)
        with plane() as one, plane() as other:
            early = asyncio.ensure_future(punch(a, [address("127.0.0.1", b)], controlling=True, sock=one))
            await asyncio.wait([early], timeout=0.3)
            right = await punch(b, [address("127.0.0.1", a)], controlling=False, sock=other)
            left = await early
            assert left is not None
            assert right is not None
            left.close()
            right.close()

    run(body)


def test_somebody_with_another_key_gets_nothing() -> None:
    async def body() -> None:
        a, b = free_ports("127.0.0.1", 2)
        with plane() as one, plane() as other:
            assert await asyncio.gather(
                punch(a, [address("127.0.0.1", b)], controlling=True, sock=one, timeout_s=1.0),
                punch(b, [address("127.0.0.1", a)], controlling=False, sock=other, key=b"x" * 32, timeout_s=1.0),
            ) == [None, None]

    run(body)


def test_silent_strangers_are_few_and_do_not_keep_the_peer_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "STRANGERS_MAX", 2)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        a, b = free_ports("127.0.0.1", 2)
        with plane() as one, plane() as other, contextlib.ExitStack() as stack:
            early = asyncio.ensure_future(punch(a, [address("127.0.0.1", b)], controlling=True, sock=one))
            await asyncio.sleep(0)
            heard = []
            for _ in range(4):
                stranger = stack.enter_context(socket.socket())
                stranger.setblocking(False)
                await loop.sock_connect(stranger, ("127.0.0.1", a))
                heard.append(await loop.sock_recv(stranger, 100))
            assert [bool(said) for said in heard] == [True, True, False, False]
            right = await punch(b, [address("127.0.0.1", a)], controlling=False, sock=other)
            left = await early
            assert left is not None
            assert right is not None
            left.close()
            right.close()

    run(body)


def test_nobody_there_ends_in_none() -> None:
    async def body() -> None:
        a, b = free_ports("127.0.0.1", 2)
        with plane() as sock:
            assert await punch(a, [address("127.0.0.1", b)], controlling=True, sock=sock, timeout_s=0.3) is None

    run(body)


def test_a_port_that_another_program_has_ends_in_none() -> None:
    async def body() -> None:
        with plane() as sock, socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert await punch(port, [address("127.0.0.1", 9)], controlling=True, sock=sock) is None
            assert await mapped_tcp_address("127.0.0.1", 9, port) is None

    run(body)


def stun_server(answer: Callable[[bytes, tuple[str, int]], bytes]) -> Any:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(20)
        for byte in answer(request, writer.get_extra_info("peername")):
            writer.write(bytes((byte,)))
            await writer.drain()
        writer.close()

    return asyncio.start_server(serve, "127.0.0.1", 0)


def found(transaction: bytes, where: TransportAddress, cls: Class = Class.SUCCESS) -> bytes:
    attributes = [(int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(where, transaction))]
    return encode(Method.BINDING, cls, transaction, attributes)


@pytest.mark.parametrize(
    ("answer", "honest"),
    [
        (lambda request, peer: found(decode_untrusted(request).transaction, address(*peer)), True),
        (lambda request, peer: found(bytes(12), address(*peer)), False),
        (lambda request, peer: found(decode_untrusted(request).transaction, address(*peer), Class.ERROR), False),
        (lambda request, peer: encode(Method.BINDING, Class.SUCCESS, decode_untrusted(request).transaction), False),
        (lambda request, peer: b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (lambda request, peer: b"", False),
    ],
)
def test_the_mapped_address_is_what_the_relay_sees(
    answer: Callable[[bytes, tuple[str, int]], bytes], honest: bool
) -> None:
    async def body() -> None:
        (local,) = free_ports("127.0.0.1", 1)
        async with await stun_server(answer) as server:
            port = server.sockets[0].getsockname()[1]
            mapped = await mapped_tcp_address("127.0.0.1", port, local)
            assert mapped == (address("127.0.0.1", local) if honest else None)

    run(body)
