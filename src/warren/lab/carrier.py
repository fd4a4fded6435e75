"""The process behind an impaired link: reads packets from one TUN, asks the direction, writes them to the other."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import socket
import time
from dataclasses import asdict
from typing import Any

from warren.lab.direction import Counters, Direction
from warren.lab.impairment import Impairment

MESSAGE_BYTES_MAX = 1 << 16

_PACKET_BYTES_MAX = 65535
_BATCH_PACKETS = 64  # read at a time from one side before the other has its turn
_LINGER_S = 0.0001
"""Packets due so soon after one another leave together: waking for each of them would cost half the throughput."""
_FIRST_FD = 3


def carry(tuns: tuple[int, int], directions: tuple[Direction, Direction], control: socket.socket) -> None:
    """Carry packets between two non-blocking TUN devices, with ``directions[i]`` for what is read from ``tuns[i]``.

    Returns when the other end of ``control`` is closed or an interface has been deleted. Each message on it is a
    request, see :func:`encode_request`.
    """
    fds = [_low(fd) for fd in (*tuns, control.fileno())]
    try:
        with contextlib.suppress(OSError):
            _serve((fds[0], fds[1]), directions, control, fds[2])
    finally:
        for fd in fds:
            os.close(fd)


def _serve(ends: tuple[int, int], directions: tuple[Direction, Direction], control: socket.socket, inbox: int) -> None:
    lanes = ((ends[0], ends[1], directions[0]), (ends[1], ends[0], directions[1]))
    while True:
        # select, because its timeout has microseconds where poll's and epoll's has milliseconds.
        readable, _, _ = select.select((*ends, inbox), (), (), _pause(directions))
        for source, target, direction in lanes:
            if source in readable:
                _read(source, target, direction)
            for packet in direction.take_transmits(time.monotonic()):
                _write(target, packet)
        if inbox in readable:
            request = control.recv(MESSAGE_BYTES_MAX)
            if not request:
                return
            control.send(_answer(request, directions))


def encode_request(impairments: tuple[Impairment | None, Impairment | None]) -> bytes:
    """A message that asks to change the impairments that are not None, and in any case for the counters."""
    return json.dumps([impairment and asdict(impairment) for impairment in impairments]).encode()


def decode_answer(answer: bytes) -> tuple[Counters, Counters]:
    """The counters of both directions from the answer to a request."""
    first, second = (Counters(**counters) for counters in json.loads(answer))
    return first, second


def _answer(request: bytes, directions: tuple[Direction, Direction]) -> bytes:
    wanted: list[dict[str, Any] | None] = json.loads(request)
    for direction, impairment in zip(directions, wanted, strict=True):
        if impairment is not None:
            direction.set(Impairment(**impairment))
    return json.dumps([asdict(direction.counters) for direction in directions]).encode()


def _low(fd: int) -> int:
    """The same file under a number that select can take, however many the parent had open."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD, _FIRST_FD)


def _pause(directions: tuple[Direction, Direction]) -> float | None:
    deadlines = [at for direction in directions if (at := direction.next_deadline()) is not None]
    return max(0.0, min(deadlines) - time.monotonic()) + _LINGER_S if deadlines else None


def _read(source: int, target: int, direction: Direction) -> None:
    """Take a batch of packets from one side. Raises OSError when its interface has been deleted."""
    counters = direction.counters
    try:
        if direction.is_idle:
            for _ in range(_BATCH_PACKETS):
                packet = os.read(source, _PACKET_BYTES_MAX)
                counters.received += 1
                counters.transmitted += _write(target, packet)
        else:
            for _ in range(_BATCH_PACKETS):
                direction.receive(os.read(source, _PACKET_BYTES_MAX), time.monotonic())
    except BlockingIOError:
        return


def _write(target: int, packet: bytes) -> bool:
    try:
        os.write(target, packet)
    except OSError:  # the interface is down: what is sent into a pulled cable is gone
        return False
    return True
