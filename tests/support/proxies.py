"""HTTP proxies for tests: an honest one, others that answer what a test says, and one that opens TLS on the way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.certificates import Certificate, make_certificate

_CONNECT = re.compile(rb"CONNECT (\S+):(\d+) HTTP/1\.1\r\n")


class HttpProxy:
    """Listens on 127.0.0.1. ``answer`` replaces its whole behaviour by these bytes; ``login`` is the value that
    Proxy-Authorization must have. ``interceptor`` is the authority in whose name it forges certificates.
    """

    def __init__(
        self, *, answer: bytes | None = None, login: str | None = None, interceptor: Certificate | None = None
    ) -> None:
        self.requests: list[bytes] = []
        self.port = 0
        self._answer = answer
        self._login = login
        self._interceptor = interceptor
        self._directory: Path | None = None

    @contextlib.asynccontextmanager
    async def running(self, directory: Path) -> AsyncIterator[HttpProxy]:
        self._directory = directory
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._serve(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                tasks.discard(task)
                writer.transport.abort()  # wait_closed() never ends after start_tls(), in Python 3.11

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await server.wait_closed()
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head)
        if self._answer is not None:
            writer.write(self._answer)
            await writer.drain()
            return
        asked = _CONNECT.match(head)
        assert asked is not None
        if self._login is not None and f"Proxy-Authorization: {self._login}\r\n".encode() not in head:
            writer.write(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=x\r\n\r\n")
            await writer.drain()
            return
        host = asked[1].decode().strip("[]")
        try:
            onwards, back = await asyncio.open_connection(host, int(asked[2]))
        except OSError:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            await writer.drain()
            return
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n")
            await writer.drain()
            if self._interceptor is not None:
                await writer.start_tls(self._forged(host))
            await asyncio.gather(_copy(reader, back), _copy(onwards, writer))
        finally:
            back.close()

    def _forged(self, host: str) -> ssl.SSLContext:
        assert self._directory is not None
        return make_certificate(host, names=(host,), issuer=self._interceptor).server_context(self._directory, "forged")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
