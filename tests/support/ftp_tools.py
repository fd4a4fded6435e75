"""What the stream process gives to the FTP helper, made small: tests read from it what was counted and refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Any, Self

from warren.l4 import ftp
from warren.l4.config import Backend, Entry, Limits, Listen, Way
from warren.l4.kinds import Connected, Goal, Incoming, Refused
from warren.l4.listening import prepare, transport_address
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.model.tunnel import IPAddress, TransportAddress

_CHUNK = 1 << 16


class SmallTools:
    """Carries with tasks of the loop. ``refused`` has what was counted, newest last."""

    def __init__(self) -> None:
        self.overlay: OverlaySockets = HostSockets()
        self.refused: list[tuple[str, str]] = []
        self.open = 0
        self.opened = 0
        self.source: str | None = None
        """The address that control connections go out from."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(
        self, way: Way, client: TransportAddress | None, local: TransportAddress | None = None
    ) -> Connected:
        (backend,) = way.backends
        six = ":" in backend.host
        sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET)
        sock.setblocking(False)
        prepare(sock)
        if self.source is not None:
            sock.bind((self.source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, (backend.host, backend.port))
        except OSError as error:
            sock.close()
            raise Refused("connect", str(error)) from None
        return Connected(sock, backend)

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        *,
        idle_s: float | None = None,
        head: bytes = b"",
        answer: bytes = b"",
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.start(self._carry(incoming, outgoing, ended))

    async def _carry(self, incoming: socket.socket, outgoing: socket.socket, ended: Callable[[], None] | None) -> None:
        try:
            await asyncio.gather(_move(incoming, outgoing), _move(outgoing, incoming))
        finally:
            incoming.close()
            outgoing.close()
            if ended is not None:
                ended()

    def refuse(self, incoming: Incoming, why: Refused) -> None:
        self.count(why, incoming.client)
        incoming.sock.close()

    def count(self, why: Refused, client: TransportAddress | None) -> None:
        self.refused.append((why.reason, str(why)))

    def count_opened(self) -> Callable[[], None]:
        self.open += 1
        self.opened += 1

        def ended() -> None:
            self.open -= 1

        return ended

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        raise NotImplementedError

    def unwatch(self, sock: socket.socket) -> None:
        raise NotImplementedError

    def count_bytes(self, from_clients: int, to_clients: int) -> None: ...

    def admit(self, client: TransportAddress | None, limits: Limits) -> None: ...

    def enter(self, incoming: Incoming, limits: Limits, name: str) -> None:
        raise NotImplementedError

    async def listen(self, where: Listen) -> socket.socket:
        raise NotImplementedError

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        raise NotImplementedError

    async def permitted(self, place: IPAddress | str, goal: Goal) -> Sequence[IPAddress]:
        raise NotImplementedError

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """As a task that :meth:`close` ends."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait until all that was started has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


class Helper:
    """An FTP helper in the running loop, listening on loopback and going on to ``host`` and ``port``."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        listen: str = "127.0.0.1",
        side: str = "host",
        idle_s: float | None = None,
        connect_timeout_s: float = 2.0,
        receive_bytes: int | None = None,
    ) -> None:
        self.tools = SmallTools()
        self.listen = listen
        where = Listen(side="overlay" if side == "overlay" else "host", address=listen)
        backend = Backend(name="ftp", side="host", host=host, port=port)
        way = Way(backends=(backend,), idle_s=idle_s, connect_timeout_s=connect_timeout_s)
        self.entry = Entry(id="test", kind="ftp", listen=(where,), way=way)
        self._listener = socket.create_server(
            (listen, 0), family=socket.AF_INET6 if ":" in listen else socket.AF_INET, backlog=64
        )
        self._listener.setblocking(False)
        if receive_bytes is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        prepare(self._listener)
        self.port = int(self._listener.getsockname()[1])
        self.sessions = 0

    async def __aenter__(self) -> Self:
        self.tools.start(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tools.close()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, name = await loop.sock_accept(self._listener)
            client = transport_address(name)
            local = TransportAddress(ip_address(self.listen), self.port)
            self.tools.start(self._handle(Incoming(sock, client, local, self.entry.listen[0])))

    async def _handle(self, incoming: Incoming) -> None:
        self.sessions += 1
        try:
            await ftp.handle(incoming, self.entry, self.tools)
        except Refused as refused:
            self.tools.refuse(incoming, refused)
        finally:
            self.sessions -= 1


async def _move(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await loop.sock_recv(source, _CHUNK):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
