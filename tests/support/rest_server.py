"""An HTTPS server of the tests' own that answers REST requests as a test says, one connection for each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from tests.support.control_server import certificate
from warren.identity.signing import SigningKey
from warren.model.tickets import Access
from warren.proto.control.messages import certificate_statement

IDENTITY = SigningKey(bytes([9]) * 32)
SECRET = "warren_secret_of_sixteen"


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, object] | None
"""Status and what is sent as JSON; None: the connection is closed instead."""


@dataclass
class RestServer:
    """``answer`` decides; ``asked`` is what it was asked, the identity left out."""

    answer: Callable[[Asked], Answer]
    number: int = 0
    """Of its certificate."""
    asked: list[Asked] = field(default_factory=list)
    identity_requests: int = 0
    url: str = ""

    @property
    def access(self) -> Access:
        return Access((self.url,), IDENTITY.verify_key, SECRET)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[RestServer]:
        running: set[asyncio.Task[None]] = set()

        def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            running.add(asyncio.ensure_future(self._serve(reader, writer)))

        context = certificate(self.number).context()
        server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=context)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            try:
                yield self
            finally:
                server.close()
                await asyncio.gather(*running)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            method, target, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            answer = self._answer(Asked(method, target, headers, body))
            if answer is not None:
                status, value = answer
                sent = value if isinstance(value, bytes) else msgspec.json.encode(value)
                head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(sent)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + sent)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def _answer(self, asked: Asked) -> Answer:
        if asked.target == "/v1/identity":
            self.identity_requests += 1
            digest = certificate(self.number).sha256
            return 200, {
                "key": str(IDENTITY.verify_key),
                "certificate_sha256": digest.hex(),
                "statement": certificate_statement(IDENTITY, digest).hex(),
                "time": datetime.now(UTC),
                "version": "test",
            }
        self.asked.append(asked)
        return self.answer(asked)
