"""Traffic between lab hosts in plain Python: a TCP transfer checked by hash, UDP echo and a numbered UDP series."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import socket
import struct
import time
from dataclasses import dataclass

from warren.errors import OperationFailed
from warren.lab.host import Host

_BLOCK_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 20
_NUMBER = struct.Struct("!Q")
_MARGIN_S = 30.0  # for starting the processes, on top of what the caller allows the network
_DATAGRAM_BYTES_MAX = 65536


@dataclass(frozen=True, slots=True)
class Transfer:
    """``seconds``: from the connection's start until the receiver has confirmed the last byte."""

    size: int
    seconds: float
    intact: bool
    """All bytes arrived and, if verified, in the right order with the right values (SHA-256)."""


@dataclass(frozen=True, slots=True)
class Series:
    """What became of ``sent`` datagrams numbered from 0: ``arrived`` has the numbers as they came."""

    sent: int
    arrived: tuple[int, ...]

    @property
    def received(self) -> int:
        """How many different ones arrived."""
        return len(set(self.arrived))

    @property
    def duplicates(self) -> int:
        return len(self.arrived) - self.received

    @property
    def late(self) -> int:
        """How many arrived after one with a greater number."""
        greatest = itertools.accumulate(self.arrived, max)
        return sum(number < most for number, most in zip(self.arrived, greatest, strict=True))


def tcp_transfer(
    sender: Host, receiver: Host, address: str, size: int, *, timeout: float = 60.0, verify: bool = True
) -> Transfer:
    """Send ``size`` bytes over one TCP connection to ``address``, which ``receiver`` must have.

    Without ``verify`` only their number is checked, and hashing costs no time. Raises OperationFailed when it takes
    more than ``timeout`` seconds, and OSError when the connection fails.
    """
    listener = receiver.socket(_family(address), socket.SOCK_STREAM)
    with listener:
        listener.bind((address, 0))
        listener.listen(1)
        receiving = receiver.begin(_receive_stream, listener, timeout, verify)
        try:
            target = (address, listener.getsockname()[1])
            seconds, sent_digest = sender.call(_send_stream, target, size, timeout, verify, timeout=timeout + _MARGIN_S)
        except BaseException:
            receiving.cancel()
            raise
        received, digest = receiving.result(_MARGIN_S)
    return Transfer(size, seconds, received == size and digest == sent_digest)


def udp_echo(
    client: Host, server: Host, address: str, *, count: int = 10, size: int = 64, timeout: float = 5.0
) -> list[float]:
    """Send ``count`` datagrams of ``size`` bytes, one after another, to an echo service on ``server``.

    Returns the round trip times in seconds of those answered within ``timeout``.
    """
    with server.socket(_family(address), socket.SOCK_DGRAM) as service:
        service.bind((address, 0))
        echoing = server.begin(_echo, service)
        try:
            limit = count * timeout + _MARGIN_S
            return client.call(_round_trips, service.getsockname()[:2], count, size, timeout, timeout=limit)
        finally:
            echoing.cancel()


def udp_series(
    sender: Host,
    receiver: Host,
    address: str,
    *,
    count: int,
    size: int = 64,
    pause_s: float = 0.0002,
    quiet_s: float = 0.6,
) -> Series:
    """Send ``count`` numbered datagrams of ``size`` bytes (at least 8), ``pause_s`` apart, and look at what arrives.

    Ends when all are sent and nothing has come for ``quiet_s`` seconds: it must exceed the delay of the path.
    """
    arrived = []
    with receiver.socket(_family(address), socket.SOCK_DGRAM) as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)  # who reads may have to wait for its turn
        sink.bind((address, 0))
        sink.settimeout(quiet_s)
        sending = sender.begin(_send_numbered, sink.getsockname()[:2], count, size, pause_s)
        try:
            is_over = False
            while not is_over:
                is_sent = sending.is_done
                try:
                    arrived.append(_NUMBER.unpack_from(sink.recv(_DATAGRAM_BYTES_MAX))[0])
                except TimeoutError:
                    is_over = is_sent
            sending.result(_MARGIN_S)
        finally:
            sending.cancel()
    return Series(count, tuple(arrived))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _send_stream(target: tuple[str, int], size: int, timeout: float, verify: bool) -> tuple[float, str]:
    digest = hashlib.sha256()
    # Numbered blocks of noise: one that is lost, doubled or moved changes the hash.
    block = bytearray(random.Random(size).randbytes(_BLOCK_BYTES))
    started = time.monotonic()
    with socket.create_connection(target, timeout) as connection:
        for at in range(0, size, _BLOCK_BYTES):
            _NUMBER.pack_into(block, 0, at)
            part = memoryview(block)[: size - at]
            connection.sendall(part)
            if verify:
                digest.update(part)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    return time.monotonic() - started, digest.hexdigest()


def _receive_stream(listener: socket.socket, timeout: float, verify: bool) -> tuple[int, str]:
    listener.settimeout(timeout + _MARGIN_S)
    connection, _ = listener.accept()
    digest = hashlib.sha256()
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    received = 0
    with connection:
        connection.settimeout(timeout)
        while count := connection.recv_into(buffer):
            received += count
            if verify:
                digest.update(view[:count])
    return received, digest.hexdigest()


def _echo(service: socket.socket) -> None:
    while True:
        data, client = service.recvfrom(_DATAGRAM_BYTES_MAX)
        service.sendto(data, client)


def _round_trips(target: tuple[str, int], count: int, size: int, timeout: float) -> list[float]:
    times = []
    with socket.socket(_family(target[0]), socket.SOCK_DGRAM) as asker:
        asker.settimeout(timeout)
        asker.connect(target)
        for number in range(count):
            question = _NUMBER.pack(number).ljust(size, b"\0")
            started = time.monotonic()
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                asker.send(question)
                while asker.recv(_DATAGRAM_BYTES_MAX) != question:
                    pass  # an answer to an earlier question, late
                times.append(time.monotonic() - started)
    return times


def _send_numbered(target: tuple[str, int], count: int, size: int, pause_s: float) -> None:
    if size < _NUMBER.size:
        raise OperationFailed(f"a numbered datagram has at least {_NUMBER.size} bytes, not {size}")
    with socket.socket(_family(target[0]), socket.SOCK_DGRAM) as sender:
        sender.connect(target)
        for number in range(count):
            sender.send(_NUMBER.pack(number).ljust(size, b"\0"))
            time.sleep(pause_s)
