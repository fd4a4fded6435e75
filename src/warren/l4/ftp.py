"""Kind ``ftp``: control connections of FTP, and the data connections that they speak of.

What is said is understood by :mod:`warren.proto.ftp`; here are the sockets. A control connection stays with its
session (it is read and corrected all the time); data connections are carried like any other stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Final

from warren.l4.config import Entry
from warren.l4.ftp_data import DataConnections, End
from warren.l4.kinds import Incoming, Refused, Tools
from warren.l4.listening import transport_address
from warren.model.tunnel import IPAddress
from warren.proto.ftp.actions import Action, EndToServer, Join, Note, Offer, Over, ToClient, ToServer, Withdraw
from warren.proto.ftp.translator import Translator

SEND_S: Final = 60.0
"""A peer that takes nothing for so long of what is said to it, is gone."""
LEAVING_S: Final = 60.0
"""After a client has said its last word: the server may take that long, and longer while data moves."""

_READ_BYTES: Final = 4096
_SYNCH: Final = b"\xff\xf4\xff"  # IAC IP IAC, RFC 959 §4.1.3; then DM as urgent data, RFC 854
_DATA_MARK: Final = b"\xf2"


async def handle(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """Stand between the client and the server until one of them leaves. Raises Refused."""
    here, client = _ends(incoming.sock, incoming.listen.side)
    connected = await tools.connect(entry.way, incoming.client, incoming.local)
    try:
        there, server = _ends(connected.sock, connected.backend.side)
    except Refused:
        connected.sock.close()
        raise
    translator = Translator(
        client=client.address.ip,
        local=here.address.ip,
        server=server.address.ip,
        announced=announced(entry, here.address.ip, client.address.ip),
    )
    session = _Session(incoming, connected.sock, translator, tools)
    session.data = DataConnections(
        translator,
        tools,
        act=session.act_from_outside,
        who=incoming.client,
        here=here,
        client=client,
        there=there,
        server=server,
        connect_timeout_s=entry.way.connect_timeout_s,
        idle_s=entry.way.idle_s,
    )
    await session.run(entry.way.idle_s)


def _ends(sock: socket.socket, side: str) -> tuple[End, End]:
    """Of a control connection: the end that is here, and the other. Raises Refused."""
    try:
        own, other = transport_address(sock.getsockname()), transport_address(sock.getpeername())
    except OSError:
        raise Refused("connect", "it was gone at once") from None
    if own is None or other is None:
        raise Refused("protocol", "FTP needs TCP: a Unix socket has no place for data connections beside it")
    return End(side == "overlay", own), End(side == "overlay", other)


def announced(entry: Entry, local: IPAddress, client: IPAddress) -> IPAddress | None:
    """What ``client`` is told instead of ``local`` where to connect to for data; None: ``local`` itself."""
    if not entry.known_as or local.version != 4 or local.is_global or not client.is_global:
        return None
    return IPv4Address(entry.known_as)


class _Gone(Exception):
    """There is nobody to speak with any more."""


class _Session:
    """One control connection: its two sockets, which it owns, and who reads and writes them."""

    data: DataConnections

    def __init__(self, incoming: Incoming, server: socket.socket, translator: Translator, tools: Tools) -> None:
        self._client, self._server = incoming.sock, server
        self._who = incoming.client
        self._translator = translator
        self._tools = tools
        self._loop = asyncio.get_running_loop()
        self._acting = asyncio.Lock()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._moved_at = self._loop.time()

    async def run(self, idle_s: float | None) -> None:
        for sock in (self._client, self._server):
            # Or the urgent byte is taken out of the stream, and with it the second half of a telnet command.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        tasks = [asyncio.create_task(self._until_gone(read)) for read in (self._read_client, self._read_server)]
        if idle_s is not None:
            tasks.append(asyncio.create_task(self._until_gone(lambda: self._watch(idle_s))))
        try:
            await self._over.wait()
        except BaseException:
            self.data.abort()
            raise
        finally:
            self._over.set()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self._client.close()
            self._server.close()
            await self.data.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def act_from_outside(self) -> None:
        """Do what the translator wants after something was told to it about data connections."""
        if not self._over.is_set():
            try:
                await self._act()
            except _Gone:
                self._over.set()

    async def _until_gone(self, part: Callable[[], Awaitable[None]]) -> None:
        try:
            with contextlib.suppress(_Gone):
                await part()
        finally:
            self._over.set()

    # Reading

    async def _read_client(self) -> None:
        await self._read(self._client, self._translator.receive_client)
        self._translator.client_ended()
        await self._act()
        while True:
            await asyncio.sleep(LEAVING_S)
            if not self.data.open:
                return

    async def _read_server(self) -> None:
        await self._read(self._server, self._translator.receive_server)

    async def _read(self, sock: socket.socket, take: Callable[[bytes], None]) -> None:
        """Until its end."""
        while True:
            try:
                data = await self._loop.sock_recv(sock, _READ_BYTES)
            except OSError:
                raise _Gone from None
            if not data:
                return
            self._moved_at = self._loop.time()
            take(data)
            await self._act()
            while sock is self._client and self._translator.is_full:
                self._room.clear()
                await self._room.wait()

    async def _watch(self, idle_s: float) -> None:
        """Until nothing has moved for that long."""
        left_s = idle_s
        while left_s > 0:
            await asyncio.sleep(left_s)
            left_s = idle_s if self.data.open else self._moved_at + idle_s - self._loop.time()
        async with self._acting:
            await self._send(self._client, b"421 Nothing was said for %d s; goodbye.\r\n" % idle_s)

    # What the translator wants

    async def _act(self) -> None:
        """Do what there is to do, in order. Raises _Gone when that was the last of it."""
        async with self._acting:
            while actions := self._translator.take_actions():
                for action in actions:
                    await self._do(action)
        if not self._translator.is_full:
            self._room.set()

    async def _do(self, action: Action) -> None:
        match action:
            case ToClient(data):
                await self._send(self._client, data)
            case ToServer(data, urgent):
                if urgent:
                    self._send_synch()
                await self._send(self._server, data)
            case Offer(number, server_port):
                await self.data.offer(number, server_port)
            case Join(number, server_port, where):
                self.data.join(number, server_port, where)
            case Withdraw(number):
                self.data.withdraw(number)
            case Note(sentence):
                self._tools.count(Refused("protocol", sentence), self._who)
            case EndToServer():
                with contextlib.suppress(OSError):
                    self._server.shutdown(socket.SHUT_WR)
            case Over():
                raise _Gone

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_S):
                await self._loop.sock_sendall(sock, data)
        except (OSError, TimeoutError):
            raise _Gone from None

    def _send_synch(self) -> None:
        """Where there is no room for these bytes the server has not read what came before either."""
        with contextlib.suppress(OSError):
            self._server.send(_SYNCH)
            self._server.send(_DATA_MARK, socket.MSG_OOB)
