"""What runs on the two ends of a forward: a server that does what the first byte of a stream says, and its clients."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from warren.errors import OperationFailed

UP, DOWN, ECHO, BRIEF, IDLE = b"u", b"d", b"e", b"b", b"i"
_BLOCK = 1 << 18
_PATIENCE_S = 20.0
_COUNT = struct.Struct("!Q")
_SECONDS = struct.Struct("!d")


@dataclass(frozen=True, slots=True)
class Moved:
    payload_bytes: int
    seconds: float


# The server


def serve(address: str, port: int) -> None:
    """Until it is killed."""
    held = []
    with socket.socket(socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(4096)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            what = connection.recv(1)
            if what == BRIEF:
                with contextlib.suppress(OSError):
                    connection.send(what)
                connection.close()
            elif what == IDLE:
                connection.send(what)
                held.append(connection)
            else:
                threading.Thread(target=_attend, args=(connection, what), daemon=True).start()


def _attend(connection: socket.socket, what: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        if what == UP:
            connection.sendall(_COUNT.pack(_drain(connection)))
        elif what == DOWN:
            _flood(connection, _SECONDS.unpack(connection.recv(8, socket.MSG_WAITALL))[0])
        elif what == ECHO:
            while data := connection.recv(4096):
                connection.sendall(data)


def _drain(connection: socket.socket) -> int:
    """Bytes until the end; the kernel throws them away without a copy (MSG_TRUNC, tcp(7))."""
    buffer = bytearray(_BLOCK)
    total = 0
    while count := connection.recv_into(buffer, _BLOCK, socket.MSG_TRUNC):
        total += count
    return total


def _flood(connection: socket.socket, seconds: float) -> None:
    block = bytes(_BLOCK)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(block)


# The clients


def _connected(address: str, port: int, what: bytes) -> socket.socket:
    sock = socket.create_connection((address, port), _PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(what)
    return sock


def transfer(address: str, port: int, seconds: float, streams: int, down: bool) -> Moved:
    """``streams`` at once; what arrived, until the last byte of the last of them did."""
    found: list[int] = []

    def one() -> None:
        with _connected(address, port, DOWN + _SECONDS.pack(seconds) if down else UP) as sock:
            sock.settimeout(seconds + _PATIENCE_S)
            if down:
                found.append(_drain(sock))
            else:
                _flood(sock, seconds)
                sock.shutdown(socket.SHUT_WR)
                found.append(_COUNT.unpack(sock.recv(_COUNT.size, socket.MSG_WAITALL))[0])

    began = time.monotonic()
    threads = [threading.Thread(target=one) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) != streams:
        raise OperationFailed("a stream broke")
    return Moved(sum(found), time.monotonic() - began)


def round_trips(address: str, port: int, count: int) -> list[float]:
    """Seconds of each of ``count`` echoes of 64 bytes, one after the other on one stream."""
    found = []
    with _connected(address, port, ECHO) as sock:
        data = bytes(64)
        for _ in range(count + 50):
            began = time.perf_counter()
            sock.sendall(data)
            if len(sock.recv(64, socket.MSG_WAITALL)) != 64:
                raise OperationFailed("the echo ended")
            found.append(time.perf_counter() - began)
    return found[50:]


def brief_streams(address: str, port: int, seconds: float, at_once: int) -> float:
    """How many a second are opened, used for one byte each way, and closed, ``at_once`` at the same time."""
    end = time.monotonic() + seconds
    counts = [0] * at_once

    def one(index: int) -> None:
        while time.monotonic() < end:
            with _connected(address, port, BRIEF) as sock:
                if sock.recv(1) != BRIEF:
                    raise OperationFailed("a stream broke")
            counts[index] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(index,)) for index in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def hold(address: str, port: int, count: int, meeting: str) -> None:
    """Open ``count`` streams on which nothing moves any more; say so in ``meeting``; end when told to there."""
    held = []
    for _ in range(count):
        sock = _connected(address, port, IDLE)
        if sock.recv(1) != IDLE:
            raise OperationFailed("a stream broke")
        held.append(sock)
    Path(meeting, "held").touch()
    end = time.monotonic() + 60
    while not Path(meeting, "done").exists() and time.monotonic() < end:
        time.sleep(0.05)
    for sock in held:
        sock.close()
