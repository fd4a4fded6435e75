"""The data connections of one FTP control connection: made for one peer, for one transfer, for a short time.

Each is between this host's end and the other's of the control connections: what was said there chose the ports alone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

from warren.errors import OperationFailed
from warren.l4.kinds import Refused, Tools
from warren.l4.listening import prepare, transport_address
from warren.l4.overlay import HostSockets
from warren.l4.pump import reset
from warren.model.services import DATA_PORTS
from warren.model.tunnel import TransportAddress
from warren.proto.ftp.translator import Translator

OFFER_S: Final = 60.0
"""A client that was told a port comes within that time; vsftpd waits as long."""
STREAMS_MAX: Final = 4
"""Data connections of one control connection at once: one is in use, others may still be running out."""

_SERVER, _CLIENT = "the server", "the client"
_ADVICE: Final = {
    _SERVER: "are its passive ports open to this host?",
    _CLIENT: "behind a NAT or a firewall use passive mode",
}
_TRIES: Final = 32
_BACKLOG: Final = 8
_HOST: Final = HostSockets()


class End(NamedTuple):
    """One end of a control connection."""

    in_overlay: bool
    address: TransportAddress


class DataConnections:
    """All of one control connection, between ``here`` (this host's end) and ``client`` on one side, ``there`` (this
    host's end) and ``server`` on the other. What happens is told to ``translator``; then ``act`` is called. ``who``:
    the client, for the log.
    """

    def __init__(
        self,
        translator: Translator,
        tools: Tools,
        *,
        act: Callable[[], Awaitable[None]],
        who: TransportAddress | None,
        here: End,
        client: End,
        there: End,
        server: End,
        connect_timeout_s: float,
        idle_s: float | None,
    ) -> None:
        self._translator = translator
        self._tools = tools
        self._act = act
        self._who = who
        self._here, self._client = here, client
        self._there, self._server = there, server
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: dict[int, asyncio.Task[None]] = {}
        self.open = 0
        """How many are being carried."""

    async def offer(self, number: int, server_port: int) -> None:
        """Listen for the client, and tell the translator where, or that it failed."""
        try:
            self._check_room()
            listener = await self._listen()
        except (OSError, OperationFailed, Refused) as error:
            self._fail(number, _words(error))
            return
        port = listener.getsockname()[1]
        task = self._start(self._take(number, server_port, listener))
        task.add_done_callback(lambda _: listener.close())  # also of a task that was cancelled before it began
        self._listening[number] = task
        self._translator.offered(number, port)

    def join(self, number: int, server_port: int, where: TransportAddress) -> None:
        """Connect to both sides."""
        _ = self._start(self._fetch(number, server_port, where))

    def withdraw(self, number: int) -> None:
        """Do not listen any longer; who has come already stays."""
        task = self._listening.pop(number, None)
        if task is not None:
            task.cancel()

    def abort(self) -> None:
        """End at once what is not carried yet."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Listen no longer, and wait for what is just being connected: the bytes may be there already though the
        control connection has ended. What is carried goes on.
        """
        for number in list(self._listening):
            self.withdraw(number)
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The client comes (PASV, EPSV)

    async def _listen(self) -> socket.socket:
        first, last = DATA_PORTS if self._here.in_overlay else (0, 0)
        for tries_left in reversed(range(_TRIES)):
            listener = await self._socket(self._here)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # RFC 2577 §8: not a port that others can foretell.
                listener.bind(_place(self._here.address, first + secrets.randbelow(last - first + 1)))
                listener.listen(_BACKLOG)
            except OSError as error:
                listener.close()
                if error.errno != errno.EADDRINUSE or not tries_left:
                    raise
            else:
                return listener
        raise OperationFailed("no port is free")

    async def _take(self, number: int, server_port: int, listener: socket.socket) -> None:
        try:
            async with asyncio.timeout(OFFER_S):
                sock = await self._accept(listener)
        except TimeoutError:
            self._fail(number, f"nobody came in {OFFER_S:.0f} s")
            sock = None
        except OSError as error:
            self._fail(number, _words(error))
            sock = None
        finally:
            listener.close()
            self._listening.pop(number, None)
        if sock is not None:
            self._translator.arrived(number)
            await self._connect(number, server_port, sock)
        await self._act()

    async def _accept(self, listener: socket.socket) -> socket.socket:
        """The first that comes from the client's address; others are sent away."""
        while True:
            await _readable(listener)
            try:
                sock, name = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            who = transport_address(name)
            if who is not None and who.ip == self._client.address.ip:
                sock.setblocking(False)
                prepare(sock)
                return sock
            reset(sock)
            self._tools.count(Refused("source", "a data connection for another client's FTP session"), who)

    async def _connect(self, number: int, server_port: int, sock: socket.socket) -> None:
        try:
            server = await self._to_server(server_port)
        except Refused as refused:
            reset(sock)
            self._fail(number, str(refused))
            self._tools.count(refused, self._who)
        except BaseException:
            reset(sock)
            raise
        else:
            self._carry(number, sock, server)

    # The client is gone to (PORT, EPRT)

    async def _fetch(self, number: int, server_port: int, where: TransportAddress) -> None:
        server: socket.socket | None = None
        try:
            self._check_room()
            server = await self._to_server(server_port)
            client = await self._connected(self._here, where, _CLIENT)
        except Refused as refused:
            if server is not None:
                reset(server)
            self._fail(number, str(refused))
            self._tools.count(refused, self._who)
        except BaseException:
            if server is not None:
                reset(server)
            raise
        else:
            self._carry(number, client, server)
        await self._act()

    # Both

    async def _to_server(self, port: int) -> socket.socket:
        address = self._server.address
        return await self._connected(self._there, TransportAddress(address.ip, port, address.scope), _SERVER)

    async def _connected(self, own: End, where: TransportAddress, whom: str) -> socket.socket:
        """From the address that the control connection has there. Raises Refused."""
        timeout_s = self._connect_timeout_s
        try:
            sock = await self._socket(own)
        except (OSError, OperationFailed) as error:
            raise Refused("resources", f"no data connection: {_words(error)}") from None
        try:
            prepare(sock)
            sock.bind(_place(own.address, 0))
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(sock, _place(where, where.port))
        except TimeoutError as error:
            sock.close()
            within = "" if error.errno else f" in {timeout_s:g} s"
            raise Refused("timeout", f"{whom} did not answer at port {where.port}{within}: {_ADVICE[whom]}") from None
        except OSError as error:
            sock.close()
            raise Refused("connect", f"{whom} at port {where.port}: {_words(error)}; {_ADVICE[whom]}") from None
        except BaseException:
            sock.close()
            raise
        return sock

    async def _socket(self, own: End) -> socket.socket:
        family = socket.AF_INET if own.address.ip.version == 4 else socket.AF_INET6
        sock = await (self._tools.overlay if own.in_overlay else _HOST).open(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        return sock

    def _carry(self, number: int, client: socket.socket, server: socket.socket) -> None:
        count_ended = self._tools.count_opened()

        def ended() -> None:
            self.open -= 1
            count_ended()

        self.open += 1
        self._tools.carry(client, server, idle_s=self._idle_s, ended=ended)
        self._translator.opened(number)

    def _check_room(self) -> None:
        if self.open >= STREAMS_MAX:
            raise Refused("streams", f"{STREAMS_MAX} data connections are open")

    def _fail(self, number: int, why: str) -> None:
        self._translator.failed(number, why)


async def _readable(sock: socket.socket) -> None:
    """Unlike ``sock_accept`` of the loop this loses nothing when it is cancelled at the wrong moment."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


def _place(address: TransportAddress, port: int) -> Any:
    """As ``bind`` and ``connect`` take it."""
    return (str(address.ip), port) if address.ip.version == 4 else (str(address.ip), port, 0, address.scope)


def _words(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
