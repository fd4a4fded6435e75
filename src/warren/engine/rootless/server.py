"""The helper's end of its socket: who may ask, how many at a time, and that none of them stops the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from pathlib import Path
from typing import Final

from warren import log
from warren.engine.rootless.blocking import close_all
from warren.engine.rootless.messages import (
    LENGTH_BYTES,
    Answer,
    Watch,
    answer_of,
    frame_length_untrusted,
    pack_frame,
    unpack_request_untrusted,
)
from warren.engine.rootless.work import Done, Work
from warren.errors import MalformedPacket, OperationFailed, WarrenError
from warren.linux import unix_sockets
from warren.linux.peers import peer_of

CONNECTIONS_MAX: Final = 64
"""The agent has four, the stream process and each data plane one, commands one for a moment."""
TRANSFER_S: Final = 10.0
"""So long a request may take to come in once it began, and an answer to be taken."""
_BACKLOG: Final = 128
_ACCEPT_AGAIN_S: Final = 0.2
_OTHERS_WRITE: Final = 0o022
_OUT_OF_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = log.get("nest")


class Server:
    """Serves the requests of this user's processes on a Unix socket.

    When there are too many connections the one that was idle longest is closed: clients connect again when they have
    something to ask.
    """

    def __init__(self, path: Path, work: Work, owner: int, connections_max: int = CONNECTIONS_MAX) -> None:
        """Listen. ``owner``: the user who may ask. Raises OperationFailed when another helper serves ``path``."""
        self._work = work
        self._owner = owner
        self._connections_max = connections_max
        self._loop = asyncio.get_running_loop()
        self._connections: dict[asyncio.Task[None], socket.socket] = {}  # the one that asked last comes last
        self._leaving: dict[asyncio.Task[None], socket.socket] = {}
        self._door = listen(path)
        self._paused: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._door, self._accept)

    async def close(self) -> None:
        """Turn everyone away. Closing twice is allowed."""
        if self._door.fileno() < 0:
            return
        self._loop.remove_reader(self._door)
        if self._paused is not None:
            self._paused.cancel()
        self._door.close()
        tasks = [*self._connections, *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._door.accept()
        except OSError as error:
            if error.errno in _OUT_OF_FILES:
                self._pause(error)
            return
        self._paused = None
        # Everyone outside of the user namespace but its owner looks like nobody from in here, root too.
        if peer_of(connection).uid != self._owner:
            _log.warning("a process of another user was turned away")
            connection.close()
            return
        connection.setblocking(False)
        if len(self._connections) >= self._connections_max:
            self._make_room()
        task = self._loop.create_task(self._serve(connection))
        self._connections[task] = connection
        task.add_done_callback(self._forget)

    def _pause(self, error: OSError) -> None:
        if self._paused is None:
            _log.warning("no connection can be taken: %s; closing some that are idle", error.strerror)
        for _ in range(1 + len(self._connections) // 4):
            self._make_room()
        self._loop.remove_reader(self._door)
        self._paused = self._loop.call_later(_ACCEPT_AGAIN_S, self._loop.add_reader, self._door, self._accept)

    def _make_room(self) -> None:
        task = next(iter(self._connections), None)
        if task is not None:
            self._leaving[task] = self._connections.pop(task)
            task.cancel()

    def _forget(self, task: asyncio.Task[None]) -> None:
        (self._leaving if task in self._leaving else self._connections).pop(task).close()
        if not task.cancelled() and task.exception() is not None:
            _log.error("a request was not served", exc_info=task.exception())

    async def _serve(self, connection: socket.socket) -> None:
        task = asyncio.current_task()
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
            while True:
                await _readable(self._loop, connection)
                if task in self._connections:
                    self._connections[task] = self._connections.pop(task)
                try:
                    async with asyncio.timeout(TRANSFER_S):
                        body = await self._frame(connection)
                    request = unpack_request_untrusted(body)
                except MalformedPacket as error:
                    _log.warning("a request was refused: %s", error)
                    await self._send(connection, Answer(refused=str(error)))
                    return
                if isinstance(request, Watch):
                    await self._watch(connection)
                    return
                await self._answer(connection, request)

    async def _frame(self, connection: socket.socket) -> bytes:
        head = await self._exactly(connection, LENGTH_BYTES)
        return await self._exactly(connection, frame_length_untrusted(head))

    async def _exactly(self, connection: socket.socket, count: int) -> bytes:
        """Descriptors that come along are not taken: the kernel closes them."""
        data = bytearray()
        while len(data) < count:
            more = await self._loop.sock_recv(connection, min(count - len(data), 1 << 16))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    async def _answer(self, connection: socket.socket, request: object) -> None:
        done = Done()
        try:
            try:
                done = await self._work.do(request)  # type: ignore[arg-type]
                answer = answer_of(done.value)
            except WarrenError as error:
                answer = Answer(refused=str(error))
            # What is well-formed, and yet no value that the doors can take: numbers out of range and the like.
            except (OSError, ValueError, TypeError, OverflowError, KeyError, struct.error) as error:
                answer = Answer(refused=f"the rootless engine cannot do that: {error}")
            await self._send(connection, answer, done)
        finally:
            close_all(done.descriptors)

    async def _send(self, connection: socket.socket, answer: Answer, done: Done | None = None) -> None:
        try:
            frame = memoryview(pack_frame(answer))
        except ValueError as error:
            frame = memoryview(pack_frame(Answer(refused=f"the answer is too long: {error}")))
        async with asyncio.timeout(TRANSFER_S):
            if done is not None and done.descriptors:
                frame = frame[await self._send_descriptors(connection, frame, done) :]
            await self._loop.sock_sendall(connection, frame)

    async def _send_descriptors(self, connection: socket.socket, frame: memoryview, done: Done) -> int:
        while True:
            try:
                return socket.send_fds(connection, [frame], done.descriptors)
            except BlockingIOError:
                await _writable(self._loop, connection)

    async def _watch(self, connection: socket.socket) -> None:
        """News after news, until the client is gone; what it does not keep up with is one news."""
        await self._send(connection, Answer())
        news = asyncio.Event()

        async def look() -> None:
            async for _ in self._work.changes():
                news.set()

        async def tell() -> None:
            while True:
                await news.wait()
                news.clear()
                await self._send(connection, Answer())

        async def end() -> None:
            await _readable(self._loop, connection)  # its end: nothing is asked here any more

        tasks = [asyncio.create_task(work) for work in (look(), tell(), end())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def listen(path: Path) -> socket.socket:
    """A listening socket at ``path``, mode 0600, in place of one that nobody serves any more; the directory is made.

    Raises OperationFailed when somebody does, or the host refuses.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        around = path.parent.stat()
        if around.st_uid != os.geteuid() or around.st_mode & _OTHERS_WRITE:
            raise OperationFailed(f"{path.parent} is not this user's alone: others could put their socket there")
        if path.is_socket():
            if unix_sockets.answers(path):
                raise OperationFailed(f"{path} is served already: another rootless engine runs; stop it first")
            path.unlink()
        return unix_sockets.listen(path, _BACKLOG)
    except OSError as error:
        raise OperationFailed(f"{path} cannot be made: {error.strerror or error}") from error


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_reader(connection, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def _writable(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    ready = loop.create_future()
    loop.add_writer(connection, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(connection)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
