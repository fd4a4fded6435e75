"""The way into a nest for processes of the same user: sockets of its network stack, and moving in as a whole."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from pathlib import Path
from typing import Final

from warren.engine.rootless.blocking import Descriptors
from warren.engine.rootless.calls import Line
from warren.engine.rootless.messages import SOCKETS_MAX, OpenSockets
from warren.engine.rootless.now import KIND_BITS, Sort, as_many, enter, open_now, wrap
from warren.errors import OperationFailed, Unreachable

HEALING_S: Final = 3.0
"""A helper that died is replaced within a second: so long there is hope, and whoever wants a socket waits."""
_AGAIN_S: Final = 0.05

__all__ = ["NestSockets", "enter", "open_now"]


class NestSockets:
    """Makes sockets of the nest whose helper listens at ``path`` (``nest.sock`` in the run directory).

    It connects when the first is asked for, and again when the helper was replaced. What is asked for at the same time
    is asked for in one message.
    """

    def __init__(self, path: Path) -> None:
        self._line = Line(path)
        self._waiting: dict[Sort, deque[asyncio.Future[socket.socket]]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new one: non-blocking, close-on-exec, neither bound nor connected; the caller owns it.

        Families: AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. The caller may set on it what needs privilege inside the
        nest (IP_TRANSPARENT, SO_MARK …). Raises OperationFailed when there is none to be had now; without a helper that
        takes :data:`HEALING_S`.
        """
        made: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((family, kind & KIND_BITS, protocol), deque()).append(made)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name="sockets of the nest")
        try:
            return await made
        except asyncio.CancelledError:
            if made.done() and not made.cancelled() and made.exception() is None:
                made.result().close()
            raise

    async def _work(self) -> None:
        try:
            while self._waiting:
                sort = next(iter(self._waiting))
                queue = self._waiting.pop(sort)
                turn = [queue.popleft() for _ in range(min(len(queue), SOCKETS_MAX))]
                if queue:
                    self._waiting[sort] = queue  # behind the other sorts
                await self._serve(sort, turn)
        finally:
            self._worker = None

    async def _serve(self, sort: Sort, turn: list[asyncio.Future[socket.socket]]) -> None:
        turn = [made for made in turn if not made.done()]  # the others were cancelled
        try:
            made = await self._ask(sort, len(turn)) if turn else []
        except (OperationFailed, Unreachable) as error:
            for future in turn:
                if not future.done():
                    future.set_exception(OperationFailed(str(error)))
            return
        except BaseException:
            for future in turn:
                future.cancel()
            raise
        served, left = turn[: len(made)], turn[len(made) :]
        for future, descriptor in zip(served, made, strict=True):
            if future.done():
                os.close(descriptor)
            else:
                future.set_result(wrap(sort, descriptor))
        if left:
            self._waiting.setdefault(sort, deque()).extendleft(reversed(left))

    async def _ask(self, sort: Sort, count: int) -> Descriptors:
        loop = asyncio.get_running_loop()
        given_up_at = loop.time() + HEALING_S
        while True:
            try:
                made = (await self._line.ask_for_descriptors(OpenSockets(*sort, count)))[1]
                break
            except Unreachable:
                if loop.time() >= given_up_at:
                    raise
            await asyncio.sleep(_AGAIN_S)
        return made if 1 <= len(made) <= count else as_many(made, count)

    async def close(self) -> None:
        """Whoever still waits is cancelled; sockets that were handed out stay."""
        worker = self._worker
        if worker is not None:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
        for queue in self._waiting.values():
            for future in queue:
                future.cancel()
        self._waiting.clear()
        self._line.close()
