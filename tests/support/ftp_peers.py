"""Both sides of the FTP helper, played by the test: a client that says what it likes, a server with a script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Self

LIMIT_S = 30.0
"""A test whose peers do not answer fails after that."""


class Client:
    """A control connection, from ``source`` to a helper."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connected(cls, port: int, *, host: str = "127.0.0.1", source: str = "127.0.0.1") -> Self:
        """After the greeting."""
        client = cls(*await asyncio.open_connection(host, port, local_addr=(source, 0)))
        assert (await client.hear()).startswith("220")
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await closed(self.writer)

    async def ask(self, line: str) -> str:
        """The last line of the reply, without its end."""
        self.say(line)
        return await self.hear()

    def say(self, line: str) -> None:
        self.writer.write(line.encode("latin-1") + b"\r\n")

    async def hear(self) -> str:
        """The last line of a reply; empty at the end of the connection."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                line = (await self.reader.readline()).decode("latin-1").rstrip("\r\n")
                if not line or (line[:3].isdigit() and line[3:4] != "-"):
                    return line

    async def offered(self, verb: str = "EPSV") -> int:
        """The port that passive mode gives."""
        reply = await self.ask(verb)
        if reply.startswith("229 "):
            return int(reply.split("|")[3])
        assert reply.startswith("227 "), reply
        numbers = reply.partition("(")[2].partition(")")[0].split(",")
        return int(numbers[4]) * 256 + int(numbers[5])


class ScriptedServer:
    """An FTP server: ``replies`` by verb (text or what makes it), else 200; to PASV and EPSV the port of its data
    listener; to RETR 150, ``content`` over the data connection, 226. ``heard`` has all lines that came.
    """

    content = b"content of the file"

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.heard: list[str] = []
        self.raw = bytearray()
        self.replies: dict[str, str | Callable[[], str]] = {}
        self.received = bytearray()
        self.data_from: list[str] = []
        self.stays = False
        """It does not leave when its client does."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._data = socket.create_server((host, 0), family=family)
        self._data.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self.data_port = int(self._data.getsockname()[1])
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, sock=self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.writers:
            await closed(writer)
        self._data.close()

    def say(self, text: str) -> None:
        """To the client that came last."""
        self.writers[-1].write(text.encode("latin-1") + b"\r\n")

    async def take_data(self) -> socket.socket:
        async with asyncio.timeout(LIMIT_S):
            sock, name = await asyncio.get_running_loop().sock_accept(self._data)
        self.data_from.append(name[0])
        return sock

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.say("220 Ready")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self.raw += line
                self.heard.append(line.decode("latin-1").lstrip("\xff\xf4").rstrip("\r\n"))
                await self._answer(self.heard[-1].partition(" ")[0])
        if not self.stays:
            writer.close()

    async def _answer(self, verb: str) -> None:
        reply = self.replies.get(verb)
        if reply is not None:
            text = reply if isinstance(reply, str) else reply()
            if text:
                self.say(text)
        elif verb == "EPSV":
            self.say(f"229 Entering Extended Passive Mode (|||{self.data_port}|)")
        elif verb == "PASV":
            self.say(f"227 Entering Passive Mode ({numbers(self.host, self.data_port)}).")
        elif verb in {"RETR", "STOR"}:
            with await self.take_data() as sock:
                self.say("150 Here")
                await self._transfer(verb, sock)
            self.say("226 Done")
        else:
            self.say("200 OK")

    async def _transfer(self, verb: str, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if verb == "RETR":
            await loop.sock_sendall(sock, self.content)
        while verb == "STOR" and (data := await loop.sock_recv(sock, 65_536)):
            self.received += data


async def fetched(port: int, *, host: str = "127.0.0.1", source: str = "127.0.0.1") -> bytes:
    """All that a data connection gives."""
    reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
    try:
        async with asyncio.timeout(LIMIT_S):
            return await reader.read()
    finally:
        await closed(writer)


async def is_open(port: int, *, host: str = "127.0.0.1", source: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # it was, until now
        return True
    await closed(writer)
    return True


async def turns(what: Callable[[], object], count: int = 2000) -> None:
    """Let the loop turn until it is true."""
    for _ in range(count):
        if what():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not become true")


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def numbers(host: str, port: int) -> str:
    """As PORT and 227 have it."""
    octets: Iterable[int] = ip_address(host).packed
    return ",".join(map(str, (*octets, *divmod(port, 256))))
