"""Asking a nest's helper by a connection that blocks; and what all connections to it have in common.

Nothing here needs an event loop: a data plane asks this way, and has no use for asyncio.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from pathlib import Path
from typing import Any, Final

from warren.engine.rootless.messages import (
    LENGTH_BYTES,
    SOCKETS_MAX,
    Answer,
    Request,
    frame_length_untrusted,
    pack_frame,
    unpack_answer_untrusted,
    value_untrusted,
)
from warren.errors import MalformedPacket, OperationFailed, Unreachable
from warren.linux.peers import is_trusted, peer_of

NOW_PATIENCE_S: Final = 5.0
"""The helper answers within a millisecond, but for rules of a large network, and when the machine starves. So long a
caller may have to wait, and his event loop with him.
"""
_READ_BYTES: Final = 1 << 16
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * SOCKETS_MAX)
_TIMEVAL: Final = struct.Struct("@ll")

Descriptors = list[int]
"""File descriptors that whoever gets them must close."""


class BlockingLine:
    """Connects when something is asked, and again when the helper ended or was replaced in between. A request that the
    helper may have begun is never repeated.

    Errors: OperationFailed when the helper refuses, with its sentence; Unreachable when there is none or it does not
    answer within :data:`NOW_PATIENCE_S`: asking later may help. Threads may ask at the same time: one after the other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: socket.socket | None = None
        self._turn = threading.RLock()

    def ask(self, request: Request, kind: Any = None) -> Any:
        value, descriptors = self.ask_for_descriptors(request, kind)
        close_all(descriptors)
        return value

    def ask_for_descriptors(self, request: Request, kind: Any = None) -> tuple[Any, Descriptors]:
        frame = frame_of(request)
        with self._turn:
            answer, descriptors = self._exchange(frame)
        return settle(answer, descriptors, kind)

    def _exchange(self, frame: bytes) -> tuple[Answer, Descriptors]:
        incoming = Incoming()
        done = False
        try:
            connection = self._connected()
            connection.sendall(frame)
            while (body := incoming.take(connection)) is None:
                pass
            answer = answer_in(body, incoming.descriptors)
            done = True
            return answer
        except (OSError, EOFError, MalformedPacket) as error:
            raise unreachable(self._path) from error
        finally:
            if not done:
                close_all(incoming.descriptors)
                self.close()

    def helper(self) -> int:
        """The process id of the helper. Raises Unreachable."""
        try:
            with self._turn:
                return peer_of(self._connected()).pid
        except OSError as error:
            raise unreachable(self._path) from error

    def _connected(self) -> socket.socket:
        if self._connection is not None and is_over(self._connection):
            self.close()
        if self._connection is None:
            self._connection = connect(self._path, blocking=True)
        return self._connection

    def close(self) -> None:
        with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def unreachable(path: Path) -> Unreachable:
    """What to raise when no helper answers at ``path``."""
    return Unreachable(f"no rootless engine answers at {path}: the agent starts it; is it running?")


def close_all(descriptors: Descriptors) -> None:
    while descriptors:
        os.close(descriptors.pop())


def frame_of(request: Request) -> bytes:
    """Raises OperationFailed for one that is too long."""
    try:
        return pack_frame(request)
    except ValueError as error:
        raise OperationFailed(f"too much for the rootless engine: {error}") from None


def settle(answer: Answer, descriptors: Descriptors, kind: Any) -> tuple[Any, Descriptors]:
    """The value and descriptors of an answer. Raises OperationFailed, then with the descriptors closed."""
    try:
        if answer.refused:
            raise OperationFailed(answer.refused)
        return value_untrusted(answer, kind), descriptors
    except MalformedPacket as error:
        close_all(descriptors)
        raise OperationFailed(f"{error}: it is of another version of Warren; stop it and start it again") from None
    except OperationFailed:
        close_all(descriptors)
        raise


def connect(path: Path, *, blocking: bool) -> socket.socket:
    """A connection that raises BlockingIOError whenever it had to wait: at all, or longer than :data:`NOW_PATIENCE_S`.
    Raises OSError.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.setblocking(blocking)
        if blocking:  # the kernel's own patience: settimeout() would not wait for a place in the queue of connections
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(NOW_PATIENCE_S), 0))
        connection.connect(str(path))
        if not is_trusted(connection):
            raise PermissionError(f"{path} is another user's")
    except OSError:
        connection.close()
        raise
    return connection


def is_over(connection: socket.socket) -> bool:
    """Whether the helper has closed it: between two requests there is nothing to read but the end."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))


def answer_in(body: bytes, descriptors: Descriptors) -> tuple[Answer, Descriptors]:
    """The answer of a frame, with its descriptors. Raises MalformedPacket, then with the descriptors closed."""
    try:
        return unpack_answer_untrusted(body), descriptors
    except MalformedPacket:
        close_all(descriptors)
        raise


class Incoming:
    """One frame, as it comes in."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._length: int | None = None
        self.descriptors: Descriptors = []

    def take(self, connection: socket.socket) -> bytes | None:
        """Read once; the frame's body when it is whole. Raises EOFError, OSError and MalformedPacket; then, and
        whenever nobody will take more, the descriptors are closed.
        """
        missing = LENGTH_BYTES - len(self._data) if self._length is None else self._length - len(self._data)
        try:
            data, ancillary, flags, _ = connection.recvmsg(
                min(missing, _READ_BYTES), _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
            )
            self.descriptors += received_descriptors(ancillary)
            if flags & socket.MSG_CTRUNC:
                raise OSError("this process has too many files open")
            if not data:
                raise EOFError
            self._data += data
            if self._length is None and len(self._data) == LENGTH_BYTES:
                self._length = frame_length_untrusted(bytes(self._data))
                self._data.clear()
        except BlockingIOError:
            raise
        except (OSError, EOFError, MalformedPacket):
            close_all(self.descriptors)
            raise
        return bytes(self._data) if self._length == len(self._data) else None


def received_descriptors(ancillary: list[tuple[int, int, bytes]]) -> Descriptors:
    """The file descriptors in what ``recvmsg`` brought beside the data."""
    return [
        struct.unpack_from("i", data, at)[0]
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for at in range(0, len(data) - 3, 4)
    ]
