"""What runs on the two ends of a forward: a server that does what the first byte of a stream says, and its clients.

With ``certificate`` or ``tls`` they speak TLS, a full handshake for each stream.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from warren.errors import OperationFailed

UP, DOWN, ECHO, BRIEF, IDLE, CHECKED = b"u", b"d", b"e", b"b", b"i", b"c"
NAME = "site.test"
"""That TLS clients ask for."""
CHECKED_BYTES = 4096
_BLOCK = 1 << 18
_PATIENCE_S = 20.0
_COUNT = struct.Struct("!Q")
_SECONDS = struct.Struct("!d")


@dataclass(frozen=True, slots=True)
class Moved:
    payload_bytes: int
    seconds: float


# The server


def serve(address: str, port: int, certificate: Path | None = None) -> None:
    """Until it is killed. ``certificate``: a file with the key, too."""
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    held: list[socket.socket] = []
    with socket.socket(socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(4096)
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                _answer(connection, connection.recv(1), held)
            else:
                threading.Thread(target=_answer_tls, args=(context, connection), daemon=True).start()


def _answer(connection: socket.socket, what: bytes, held: list[socket.socket]) -> None:
    """What is short is done at once."""
    if what == IDLE:
        connection.send(what)
        held.append(connection)
    elif what in {BRIEF, CHECKED}:
        with connection, contextlib.suppress(OSError):
            if what == CHECKED:
                what = hashlib.sha256(connection.recv(CHECKED_BYTES, socket.MSG_WAITALL)).digest()
            connection.send(what)
    else:
        threading.Thread(target=_attend, args=(connection, what), daemon=True).start()


def _answer_tls(context: ssl.SSLContext, connection: socket.socket) -> None:
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
        what = tls.recv(1)
        if what == BRIEF:
            tls.sendall(what)
        else:
            _attend(tls, what)


def _attend(connection: socket.socket, what: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        if what == UP:
            connection.sendall(_COUNT.pack(_drain(connection)))
        elif what == DOWN:
            _flood(connection, _SECONDS.unpack(_exactly(connection, _SECONDS.size))[0])
        elif what == ECHO:
            while data := connection.recv(4096):
                connection.sendall(data)


def _drain(connection: socket.socket) -> int:
    """Bytes until the end; without TLS the kernel throws them away without a copy (MSG_TRUNC, tcp(7))."""
    buffer = bytearray(_BLOCK)
    total = 0
    flags = 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_TRUNC
    while count := connection.recv_into(buffer, _BLOCK, flags):
        total += count
    return total


def _flood(connection: socket.socket, seconds: float) -> None:
    block = bytes(_BLOCK)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(block)


def _exactly(connection: socket.socket, count: int) -> bytes:
    """Raises OperationFailed when the stream ends before that."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OperationFailed("a stream broke")
        data += more
    return data


# The clients


def trusting() -> ssl.SSLContext:
    """Whoever answers: what is measured is the way there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connected(address: str, port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
    sock = socket.create_connection((address, port), _PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if tls is None else tls.wrap_socket(sock, server_hostname=NAME)


def _begun(address: str, port: int, what: bytes, tls: ssl.SSLContext | None = None) -> socket.socket:
    sock = connected(address, port, tls)
    sock.sendall(what)
    return sock


def transfer(address: str, port: int, seconds: float, streams: int, down: bool, tls: bool = False) -> Moved:
    """``streams`` at once; what arrived, until the last byte of the last of them did. With TLS ``down`` alone."""
    found: list[int] = []
    context = trusting() if tls else None

    def one() -> None:
        with _begun(address, port, DOWN + _SECONDS.pack(seconds) if down else UP, context) as sock:
            sock.settimeout(seconds + _PATIENCE_S)
            if down:
                found.append(_drain(sock))
            else:
                _flood(sock, seconds)
                sock.shutdown(socket.SHUT_WR)
                found.append(_COUNT.unpack(_exactly(sock, _COUNT.size))[0])

    began = time.monotonic()
    threads = [threading.Thread(target=one) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) != streams:
        raise OperationFailed("a stream broke")
    return Moved(sum(found), time.monotonic() - began)


def round_trips(address: str, port: int, count: int, tls: bool = False) -> list[float]:
    """Seconds of each of ``count`` echoes of 64 bytes, one after the other on one stream."""
    found = []
    with _begun(address, port, ECHO, trusting() if tls else None) as sock:
        data = bytes(64)
        for _ in range(count + 50):
            began = time.perf_counter()
            sock.sendall(data)
            _exactly(sock, 64)
            found.append(time.perf_counter() - began)
    return found[50:]


def brief_streams(address: str, port: int, seconds: float, at_once: int, tls: bool = False) -> float:
    """How many a second are opened, used for one byte each way, and closed, ``at_once`` at the same time."""
    context = trusting() if tls else None

    def one() -> None:
        with _begun(address, port, BRIEF, context) as sock:
            if sock.recv(1) != BRIEF:
                raise OperationFailed("a stream broke")

    return rate(one, seconds, at_once)


def rate(one: Callable[[], None], seconds: float, at_once: int) -> float:
    """How often a second ``one`` is done by ``at_once`` threads. Raises OperationFailed when it once failed."""
    end = time.monotonic() + seconds
    counts = [0] * at_once
    failures: list[Exception] = []

    def again(index: int) -> None:
        try:
            while time.monotonic() < end and not failures:
                one()
                counts[index] += 1
        except Exception as error:  # noqa: BLE001 - told below, of another thread
            failures.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=again, args=(index,)) for index in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise OperationFailed(f"a stream broke: {failures[0]}")
    return sum(counts) / (time.monotonic() - began)


def checked_streams(address: str, port: int, count: int, at_once: int) -> float:
    """Seconds for ``count`` streams, each with bytes of its own of which the hash comes back."""

    def one(_: int) -> None:
        data = os.urandom(CHECKED_BYTES)
        with _begun(address, port, CHECKED + data) as sock:
            if _exactly(sock, 32) != hashlib.sha256(data).digest():
                raise OperationFailed("a stream has the bytes of another")

    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        for _ in threads.map(one, range(count)):
            pass
    return time.monotonic() - began


def hold(address: str, port: int, count: int, meeting: str) -> None:
    """Open ``count`` streams on which nothing moves any more; say so in ``meeting``; end when told to there."""
    held = []
    for _ in range(count):
        sock = _begun(address, port, IDLE)
        if sock.recv(1) != IDLE:
            raise OperationFailed("a stream broke")
        held.append(sock)
    Path(meeting, "held").touch()
    end = time.monotonic() + 60
    while not Path(meeting, "done").exists() and time.monotonic() < end:
        time.sleep(0.05)
    for sock in held:
        sock.close()
