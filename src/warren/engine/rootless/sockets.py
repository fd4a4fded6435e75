"""The way into a nest for processes of the same user: sockets of its network stack, and moving in as a whole."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from pathlib import Path

from warren.engine.rootless.calls import BlockingLine, Descriptors, Line, close_all
from warren.engine.rootless.messages import SOCKETS_MAX, MakeTun, Namespaces, OpenSockets
from warren.errors import OperationFailed, Unreachable
from warren.linux import netns
from warren.linux.tun import Tun

_Sort = tuple[int, int, int]
_KIND_BITS = 0xF  # of a socket's type: the rest are SOCK_NONBLOCK and SOCK_CLOEXEC


class NestSockets:
    """Makes sockets of the nest whose helper listens at ``path`` (``nest.sock`` in the run directory).

    It connects when the first is asked for, and again when the helper was replaced. What is asked for at the same time
    is asked for in one message.
    """

    def __init__(self, path: Path) -> None:
        self._line = Line(path)
        self._waiting: dict[_Sort, deque[asyncio.Future[socket.socket]]] = {}
        self._worker: asyncio.Task[None] | None = None

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new one: non-blocking, close-on-exec, neither bound nor connected; the caller owns it.

        Families: AF_INET, AF_INET6, AF_NETLINK, AF_PACKET. The caller may set on it what needs privilege inside the
        nest (IP_TRANSPARENT, SO_MARK …). Raises OperationFailed when there is none to be had now.
        """
        made: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((family, kind & _KIND_BITS, protocol), deque()).append(made)
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
                queue = self._waiting[sort]
                turn = [queue.popleft() for _ in range(min(len(queue), SOCKETS_MAX))]
                if not queue:
                    del self._waiting[sort]
                await self._serve(sort, turn)
        finally:
            self._worker = None

    async def _serve(self, sort: _Sort, turn: list[asyncio.Future[socket.socket]]) -> None:
        turn = [made for made in turn if not made.done()]  # the others were cancelled
        try:
            made = await self._ask(sort, len(turn)) if turn else []
        except (OperationFailed, Unreachable) as error:
            for future in turn:
                if not future.done():
                    future.set_exception(OperationFailed(str(error)))
            return
        except asyncio.CancelledError:
            for future in turn:
                future.cancel()
            raise
        served, left = turn[: len(made)], turn[len(made) :]
        for future, descriptor in zip(served, made, strict=True):
            if future.done():
                os.close(descriptor)
            else:
                future.set_result(_wrap(sort, descriptor))
        if left:
            self._waiting.setdefault(sort, deque()).extendleft(reversed(left))

    async def _ask(self, sort: _Sort, count: int) -> Descriptors:
        request = OpenSockets(*sort, count)
        try:
            made = (await self._line.ask_for_descriptors(request))[1]
        except Unreachable:  # the helper ended just now: if there is another already, it has what is asked for
            made = (await self._line.ask_for_descriptors(request))[1]
        return made if 1 <= len(made) <= count else _as_many(made, count)

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


def open_now(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """As :meth:`NestSockets.open` without an event loop; the socket blocks, as a new one of this process would.

    Raises Unreachable when no nest answers at ``path``, OperationFailed when it refuses.
    """
    sort = (family, kind & _KIND_BITS, protocol)
    line = BlockingLine(path)
    try:
        (descriptor,) = _as_many(line.ask_for_descriptors(OpenSockets(*sort))[1], 1)
    finally:
        line.close()
    sock = _wrap(sort, descriptor)
    sock.setblocking(True)
    return sock


def enter(path: Path) -> None:
    """Move the calling process, which must have one thread, into the nest: its network, its user namespace.

    Until it executes a program it has all capabilities in there, and could make further namespaces (of mounts).
    Raises Unreachable when no nest answers at ``path``, OperationFailed when the kernel refuses.
    """
    namespaces = namespaces_now(path)
    try:
        join(*namespaces)
    except OSError as error:
        raise OperationFailed(f"the network of the rootless engine cannot be entered: {error}") from None
    finally:
        close_all(namespaces)


def tun_now(path: Path, name: str) -> Tun:
    """A new interface in the nest, down, with every offload that this kernel has. Errors as of :func:`open_now`, and
    those of :meth:`~warren.linux.tun.Tun.create`.
    """
    line = BlockingLine(path)
    try:
        udp_offload, descriptors = line.ask_for_descriptors(MakeTun(name), bool)
    finally:
        line.close()
    (descriptor,) = _as_many(descriptors, 1)
    return Tun(name, descriptor, udp_offload=udp_offload)


def namespaces_now(path: Path) -> Descriptors:
    """Descriptors of the nest's user and network namespace: while they are open the nest lives, and can be found."""
    line = BlockingLine(path)
    try:
        return _as_many(line.ask_for_descriptors(Namespaces())[1], 2)
    finally:
        line.close()


def join(user: int, network: int) -> None:
    """Move the calling process into the namespaces of these descriptors. Raises OSError."""
    netns.join(user, netns.CLONE_NEWUSER)
    netns.join(network, netns.CLONE_NEWNET)


def _wrap(sort: _Sort, descriptor: int) -> socket.socket:
    sock = socket.socket(*sort, fileno=descriptor)
    sock.setblocking(False)
    return sock


def _as_many(made: Descriptors, count: int) -> Descriptors:
    if len(made) != count:
        close_all(made)
        raise OperationFailed("the rootless engine is of another version of Warren; stop it and start it again")
    return made
