"""A gateway of a test's making on the loopback interface, with real sockets."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Final, cast

from tests.support.gateways import FakeGateway
from warren.proto.portmap import natpmp, ssdp
from warren.proto.portmap.values import Gateway

LOOPBACK: Final = socket.if_nametoindex("lo")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_numbers = itertools.count(1)


def loopback_gateway() -> Gateway:
    """A loopback address that no other test has, so that the well-known ports are free there."""
    address = IPv4Address(0x7F400000 + os.getpid() % 4096 * 1024 + next(_numbers) * 2)
    return Gateway(address, LOOPBACK, address + 1)


class _Heard(asyncio.DatagramProtocol):
    def __init__(self, fake: FakeGateway, port: int, heard: list[bytes]) -> None:
        self._fake, self._port, self._heard = fake, port, heard
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._heard.append(data)
        now = asyncio.get_running_loop().time()
        for answer in self._fake.datagram(data, self._port, now):
            if self._transport is not None:
                self._transport.sendto(answer, addr)


@asynccontextmanager
async def serving(fake: FakeGateway, serve: Serve | None = None) -> AsyncIterator[list[bytes]]:
    """Runs the gateway on its address. ``serve`` replaces its HTTP. Gives what it has heard by UDP."""
    loop = asyncio.get_running_loop()
    fake.started_at = loop.time() - 500
    heard: list[bytes] = []
    address = str(fake.gateway.address)
    server = await asyncio.start_server(serve or _http(fake), address, 0)
    fake.http_port = server.sockets[0].getsockname()[1]
    transports = []
    for port in (natpmp.PORT, ssdp.PORT):
        transport, _ = await loop.create_datagram_endpoint(
            lambda port=port: _Heard(fake, port, heard),  # type: ignore[misc]
            local_addr=(address, port),
        )
        transports.append(transport)
    try:
        yield heard
    finally:
        for transport in transports:
            transport.close()
        server.close()
        await server.wait_closed()


def _http(fake: FakeGateway) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        body = await reader.readexactly(length)
        response = fake.fetch(fake.http_port, head + body, asyncio.get_running_loop().time())
        if response is not None:
            start = f"HTTP/1.1 {response.status} X\r\nContent-Length: {len(response.body)}\r\n\r\n"
            writer.write(start.encode() + response.body)
        writer.close()

    return serve
