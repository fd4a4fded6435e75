"""Asking a nest's helper from an asyncio loop."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any, Final

from warren.engine.rootless.blocking import (
    Descriptors,
    Incoming,
    answer_in,
    close_all,
    connect,
    frame_of,
    is_over,
    settle,
    unreachable,
)
from warren.engine.rootless.messages import Answer, Request
from warren.errors import MalformedPacket

PATIENCE_S: Final = 10.0
"""The helper answers within a millisecond, but for rules of a large network, and when the machine starves."""
_CONNECT_AGAIN_S: Final = 0.02


class Line:
    """As :class:`~warren.engine.rootless.blocking.BlockingLine`, errors too; and several tasks may ask: they wait for
    each other.
    """

    def __init__(self, path: Path, patience_s: float | None = None) -> None:
        """``patience_s``: how long an answer may take; None: :data:`PATIENCE_S`."""
        self._path = path
        self._patience_s = patience_s
        self._connection: socket.socket | None = None
        self._one_at_a_time = asyncio.Lock()

    async def ask(self, request: Request, kind: Any = None) -> Any:
        """What is answered, of the type ``kind``."""
        value, descriptors = await self.ask_for_descriptors(request, kind)
        close_all(descriptors)
        return value

    async def ask_for_descriptors(self, request: Request, kind: Any = None) -> tuple[Any, Descriptors]:
        frame = frame_of(request)
        async with self._one_at_a_time:
            done = False
            try:
                async with asyncio.timeout(PATIENCE_S if self._patience_s is None else self._patience_s):
                    connection = await self._connected()
                    await asyncio.get_running_loop().sock_sendall(connection, frame)
                    answer, descriptors = await _receive(connection)
                done = True
            except (OSError, TimeoutError, EOFError, MalformedPacket) as error:
                raise unreachable(self._path) from error
            finally:
                if not done:  # also when cancelled: an answer that comes later must not be taken for another's
                    self.close()
        return settle(answer, descriptors, kind)

    async def next_answer(self) -> None:
        """Wait for a further answer to :class:`~warren.engine.rootless.messages.Watch`."""
        try:
            if self._connection is None:
                raise EOFError
            _, descriptors = await _receive(self._connection)
            close_all(descriptors)
        except (OSError, EOFError, MalformedPacket) as error:
            self.close()
            raise unreachable(self._path) from error

    async def _connected(self) -> socket.socket:
        if self._connection is not None and is_over(self._connection):
            self.close()
        while self._connection is None:
            try:
                self._connection = connect(self._path, blocking=False)
            except BlockingIOError:  # many connect at this moment
                await asyncio.sleep(_CONNECT_AGAIN_S)
        return self._connection

    def close(self) -> None:
        """The next request connects again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _receive(connection: socket.socket) -> tuple[Answer, Descriptors]:
    loop = asyncio.get_running_loop()
    incoming = Incoming()
    try:
        while True:
            try:
                body = incoming.take(connection)
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(connection, _set, readable)
                try:
                    await readable
                finally:
                    loop.remove_reader(connection)
                continue
            if body is not None:
                return answer_in(body, incoming.descriptors)
    except BaseException:
        close_all(incoming.descriptors)
        raise


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
