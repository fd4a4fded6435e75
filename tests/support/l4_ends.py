"""The stream process's entries in the test's own loop, and what stands at the two ends of their streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from warren.l4.config import Backend, Config, Entry, EntryState, Listen, Status, Way
from warren.l4.kinds import Goal, Refused
from warren.l4.overlay import HostSockets
from warren.l4.serve import Server
from warren.model.tunnel import IPAddress

LIMIT_S = 40.0
LOOPBACK = Listen(address="127.0.0.1")


@contextlib.asynccontextmanager
async def running(*entries: Entry, changed: Callable[[], None] = lambda: None) -> AsyncIterator[Server]:
    """A server with these entries."""
    server = Server(HostSockets(), nobody, changed)
    try:
        async with asyncio.timeout(LIMIT_S):
            await server.configure(Config(entries=entries))
            yield server
    finally:
        await server.close()


async def nobody(place: str, goal: Goal | None = None) -> Sequence[IPAddress]:
    raise Refused("unresolved", f"nobody knows {place}")


def state(server: Server) -> EntryState:
    """Of the first entry."""
    return server.status().entries[0]


def port_of(status: Status, index: int = 0) -> int:
    """Where an entry listens, at its first place."""
    return int(status.entries[index].places[0].rpartition(":")[2])


def backend(port: int, **more: object) -> Backend:
    return Backend(name="b", side="host", host="127.0.0.1", port=port, **more)  # type: ignore[arg-type]


def way_to(*ports: int, **more: object) -> Way:
    return Way(backends=tuple(backend(port) for port in ports), **more)  # type: ignore[arg-type]


def forward(way: Way, **more: object) -> Entry:
    """At a port of loopback that the kernel chooses."""
    return Entry(**{"id": "forward x", "listen": (LOOPBACK,), "way": way, **more})  # type: ignore[arg-type]


Attend = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(attend: Attend) -> AsyncIterator[int]:
    """A TCP server on loopback; its port. A connection that breaks is its client's business."""
    tasks: set[asyncio.Task[None]] = set()

    async def safely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        try:
            await attend(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(safely, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything comes back, and the end after it."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def say_port(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Which of several servers it is."""
    writer.write(str(writer.get_extra_info("sockname")[1]).encode())
    writer.write_eof()


def free_port() -> int:
    """Nobody listens there, and the kernel gives it to nobody: this process has it as long as it lives, by a socket
    that does not listen. A server that is to have it asks for SO_REUSEADDR, as servers do.
    """
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    port: int = sock.getsockname()[1]
    sock.detach()
    return port


@contextlib.asynccontextmanager
async def client(port: int, address: str = "127.0.0.1") -> AsyncIterator[socket.socket]:
    """A connected, non-blocking socket."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address, port))
        yield sock


async def read_all(sock: socket.socket) -> bytes:
    """Until the end. Raises ConnectionResetError when it is a reset."""
    loop = asyncio.get_running_loop()
    pieces = []
    while piece := await loop.sock_recv(sock, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


async def is_reset(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a stream to ``port`` is refused by a reset, not answered, and not ended properly."""
    try:
        async with client(port, address) as sock:
            await read_all(sock)
    except ConnectionResetError:
        return True
    except ConnectionRefusedError:
        return False
    return False


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until it holds; LIMIT_S at most."""
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.005)
