"""Sockets of this node besides the tunnel's own: opened by the hundred to get through a hard NAT, and one of them kept.

While they are the agent's, checks leave from them here. The one by which a path was found is handed over to the data
plane, which sends the peer's packets from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from warren.engine.base import ControlPort
from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress, Way
from warren.paths.values import Base

SOCKETS_MAX: Final = 512
"""Two birthdays at a time: as many descriptors as a process usually has."""
_READS_MAX: Final = 16
_DATAGRAM_BYTES: Final = 2048

Take = Callable[[bytes, TransportAddress, Base], None]


@dataclass(slots=True)
class _Open:
    node: bytes
    base: Base
    sock: socket.socket | None
    """None: the data plane has it."""
    number: int = 0
    """The data plane's; 0: it has it not."""


class PunchSockets:
    """Single owner, one event loop. ``take`` is given what comes to the sockets that are still ours."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._open: dict[int, _Open] = {}
        self._next = 1

    def open(self, node: bytes, count: int, at: Base) -> tuple[Base, ...]:
        """``count`` sockets at the address of ``at``, or as many as the host gives."""
        made: list[Base] = []
        with contextlib.suppress(OSError):
            while len(made) < count and len(self._open) < SOCKETS_MAX:
                made.append(self._open_one(node, at))
        return tuple(made)

    def _open_one(self, node: bytes, at: Base) -> Base:
        ip = at.address
        if ip is None:
            raise OSError
        sock = socket.socket(
            socket.AF_INET if ip.version == 4 else socket.AF_INET6,
            socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
        )
        try:
            sock.bind((str(ip), 0))
            number, self._next = self._next, self._next + 1
            base = Base(kind="socket", address=ip, interface=at.interface, socket=number)
            asyncio.get_running_loop().add_reader(sock.fileno(), self._read, number)
        except BaseException:
            sock.close()
            raise
        self._open[number] = _Open(node, base, sock)
        return base

    def _read(self, number: int) -> None:
        for _ in range(_READS_MAX):
            one = self._open.get(number)
            if one is None or one.sock is None:
                return
            try:
                data, place = one.sock.recvfrom(_DATAGRAM_BYTES)
            except OSError:
                return
            self._take(data, TransportAddress(ip_address(place[0].partition("%")[0]), place[1]), one.base)

    def send(self, base: Base, remote: TransportAddress, data: bytes) -> bool:
        """False: the data plane has that socket, or nobody."""
        one = self._open.get(base.socket)
        if one is None or one.sock is None:
            return False
        with contextlib.suppress(OSError):
            one.sock.sendto(data, (str(remote.ip), remote.port))
        return True

    def hand_over(self, base: Base, port: ControlPort | None) -> Way | None:
        """How the data plane sends from the socket of ``base``, which it gets if it has it not. None: it does not."""
        one = self._open.get(base.socket)
        if one is None or port is None:
            return None
        if one.sock is not None:
            sock, one.sock = one.sock, None
            asyncio.get_running_loop().remove_reader(sock.fileno())
            try:
                one.number = port.hand_over(sock)
            except OperationFailed:
                del self._open[base.socket]
                return None
            finally:
                sock.close()
        return Way(socket=one.number)

    def way(self, base: Base) -> Way | None:
        """The same for a socket that the data plane has; None: it has it not."""
        one = self._open.get(base.socket)
        return Way(socket=one.number) if one is not None and one.number else None

    def base_of(self, number: int) -> Base | None:
        """Whose number at the data plane it is."""
        return next((one.base for one in self._open.values() if one.number == number), None)

    def done(self, node: bytes, keep: int | None, port: ControlPort | None) -> None:
        """Close those that were opened for ``node`` but the one numbered ``keep``."""
        for number, one in list(self._open.items()):
            if one.node == node and number != keep:
                self._close(number, port)

    def close(self) -> None:
        """All that the data plane has not got."""
        for number in list(self._open):
            self._close(number, None)

    def _close(self, number: int, port: ControlPort | None) -> None:
        one = self._open.pop(number)
        if one.sock is not None:
            asyncio.get_running_loop().remove_reader(one.sock.fileno())
            one.sock.close()
        elif port is not None:
            port.take_back(one.number)
