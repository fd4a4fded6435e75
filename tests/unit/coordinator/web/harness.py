"""A coordinator on the memory store behind real TLS sockets on loopback, and ways to talk to it badly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from warren.coordinator import app, serve
from warren.coordinator.limits import Limits, Rate
from warren.coordinator.service import Service
from warren.coordinator.store_memory import MemoryStore
from warren.coordinator.tls import Certificates, make_certificate
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.tickets import read_ticket
from warren.proto.control import messages
from warren.proto.control.administration import Actor, InviteRequest, NetworkRequest, TokenRequest

NO_RATE = Rate(burst=1e9, per_s=1e9)
GENEROUS = Limits(requests=NO_RATE, failures=NO_RATE, linger_s=0.5)
START = 1_800_000_000.0


class Clock:
    """The wall clock of the service; moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    service: Service
    web: app.Web
    certificates: Certificates
    directory: Path
    clock: Clock
    admin: Actor
    token: str = field(repr=False)

    @property
    def port(self) -> int:
        return self.web.server.addresses[0].port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return httpx2.AsyncClient(base_url=self.url, verify=trusting(), headers=headers, timeout=40, trust_env=False)

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=trusting())

    async def raw(self, request: bytes) -> bytes:
        """Send ``request`` and read until the coordinator closes."""
        reader, writer = await self.stream()
        try:
            writer.write(request)
            return await asyncio.wait_for(until_closed(reader), 30)
        finally:
            await hang_up(writer)

    async def socket(self, **options: Any) -> ClientConnection:
        return await connect(
            f"wss://127.0.0.1:{self.port}{messages.PATH}",
            ssl=trusting(),
            subprotocols=[messages.SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            proxy=None,
            **options,
        )

    async def make_token(self, **request: Any) -> str:
        made = await self.service.create_token(self.admin, TokenRequest(**{"label": "test", "ttl_s": 3600, **request}))
        return made.secret

    async def make_network(self, name: str) -> VerifyKey:
        network = await self.service.create_network(self.admin, NetworkRequest(name=name))
        return VerifyKey.from_text(network.id)

    async def make_ticket(self, network: VerifyKey, **request: Any) -> bytes:
        invite = await self.service.create_invite(self.admin, str(network), InviteRequest(**request))
        return read_ticket(invite.ticket, self.clock.now).document.secret

    async def make_member(self, network: VerifyKey, name: str) -> SigningKey:
        key = SigningKey(os.urandom(32))
        await self.service.enrol(network.raw, key.verify_key.raw, await self.make_ticket(network), name)
        return key


@contextlib.asynccontextmanager
async def running(
    limits: Limits = GENEROUS, *, urls: tuple[str, ...] = ("https://127.0.0.1:1",)
) -> AsyncIterator[Running]:
    clock = Clock()
    service = Service(MemoryStore(), urls=urls, wall_clock=clock, random=os.urandom)
    await service.start()
    sockets = serve.listen(serve.Address("127.0.0.1", 0))
    with tempfile.TemporaryDirectory() as directory:
        certificates = Certificates(*make_certificate(Path(directory)), service.identity)
        web = app.assemble(service, sockets, urls=urls, certificates=certificates, limits=limits)
        tasks = [asyncio.create_task(web.hub.run()), asyncio.create_task(web.server.serve())]
        try:
            await web.server.accepting.wait()
            secret = await service.first_token()
            assert secret is not None
            actor = await service.actor(secret)
            yield Running(service, web, certificates, Path(directory), clock, actor, secret)
        finally:
            web.server.stop()
            await service.close()
            await asyncio.gather(*tasks)
            for one in sockets:
                one.close()


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while more := await reader.read(65_536):
            data += more
    return data


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        await writer.wait_closed()


def tcp(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=40)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body, once it is certain that it is a complete RFC 9457 problem."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.headers, self.body)
        found = msgspec.json.decode(self.body)
        assert found["type"].startswith("urn:warren:problem:")
        assert found["status"] == self.status
        assert found["title"]
        assert {"detail", "remedy"} <= set(found)
        return found


def parse(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


def answer_of(response: httpx2.Response) -> Answer:
    return Answer(response.status_code, dict(response.headers), response.content)


# A node


async def receive(connection: ClientConnection) -> messages.ToNode:
    data = await asyncio.wait_for(connection.recv(), 30)
    assert isinstance(data, bytes)
    return messages.unpack_to_node_untrusted(data)


async def authenticate(
    running: Running, connection: ClientConnection, network: VerifyKey, node: SigningKey, since: int = 0
) -> messages.ToNode:
    """Prove the key; the coordinator's answer."""
    welcome = await receive(connection)
    assert isinstance(welcome, messages.Welcome)
    digest = running.certificates.current.certificate_sha256
    await connection.send(
        messages.pack(
            messages.Authenticate(
                protocol=messages.PROTOCOL_VERSION,
                network=network.raw,
                node=node.verify_key.raw,
                signature=node.sign(messages.authentication_bytes(network, welcome.nonce, digest)),
                since=since,
            )
        )
    )
    return await receive(connection)


async def enrol(
    running: Running, connection: ClientConnection, network: VerifyKey, node: SigningKey, secret: bytes, name: str
) -> messages.ToNode:
    welcome = await receive(connection)
    assert isinstance(welcome, messages.Welcome)
    digest = running.certificates.current.certificate_sha256
    await connection.send(
        messages.pack(
            messages.Enrol(
                protocol=messages.PROTOCOL_VERSION,
                network=network.raw,
                node=node.verify_key.raw,
                signature=node.sign(messages.enrolment_bytes(network, welcome.nonce, digest, secret)),
                secret=secret,
                name=name,
            )
        )
    )
    return await receive(connection)
