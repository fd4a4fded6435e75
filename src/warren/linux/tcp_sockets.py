"""The TCP connections of a network namespace: which there are, how each was opened, and ending some of them.

A connection is ended as ``ss -K`` does it (SOCK_DESTROY, linux/sock_diag.h): its program gets ECONNABORTED, and the
other end a reset. It is named by the kernel's cookie, so that none which came later to the same ports is meant.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from warren.errors import MalformedPacket
from warren.linux import conntrack, tcp_diag
from warren.model.tunnel import IPNetwork

END_MAX: Final = 4096
"""In one call: some ten milliseconds, in which a change of mind may come in between."""
_ROW: Final = struct.Struct("=B48sB16s16sH")
_FAMILIES: Final = frozenset({int(socket.AF_INET), int(socket.AF_INET6)})
_NO_COOKIE: Final = b"\xff" * 8


class Opened:
    """What connection tracking knows of how a connection was opened."""

    UNTOLD: Final = 0
    """It cannot be asked here."""
    UNKNOWN: Final = 1
    """It has no such connection, so no address of it was translated here."""
    KNOWN: Final = 2


class TcpSocket(NamedTuple):
    """One end of a connection. Addresses are 16 bytes; of IPv4 as IPv6 maps it (RFC 4291 §2.5.5.2)."""

    family: int
    """Of the socket: one of AF_INET6 may speak IPv4."""
    id: bytes
    """linux/inet_diag.h, inet_diag_sockid."""
    opened: int = Opened.UNTOLD
    source: bytes = bytes(16)
    """Who opened it, and where to, as the first packet was sent: before any translation of addresses."""
    destination: bytes = bytes(16)
    port: int = 0
    """Of ``destination``."""

    @property
    def ends(self) -> tuple[bytes, bytes, int, int]:
        """Local and remote address, local and remote port."""
        return tcp_diag.ends(self.family, self.id)


class TcpSockets(Protocol):
    """Errors: OperationFailed, also for a helper that does not answer."""

    async def connections(self, local: Sequence[IPNetwork]) -> Sequence[TcpSocket]:
        """Those whose own address is in ``local``; neither listeners nor what only waits for its name to be free."""

    async def end(self, sockets: Sequence[TcpSocket]) -> int | None:
        """End these, at most :data:`END_MAX`, as far as they are still there; returns how many were. None: this kernel
        cannot (it was built without CONFIG_INET_DIAG_DESTROY).
        """


class KernelTcp:
    """Of the network namespace that this process is in."""

    async def connections(self, local: Sequence[IPNetwork]) -> Sequence[TcpSocket]:
        return await asyncio.to_thread(connections_now, local)

    async def end(self, sockets: Sequence[TcpSocket]) -> int | None:
        return await asyncio.to_thread(end_now, sockets)


def connections_now(local: Sequence[IPNetwork]) -> list[TcpSocket]:
    """Takes some ten microseconds for each. Raises OperationFailed."""
    found = tcp_diag.connections(local)
    origins = conntrack.origins([tcp_diag.ends(family, sockid) for family, sockid in found])
    if origins is None:
        return [TcpSocket(family, sockid) for family, sockid in found]
    return [
        TcpSocket(family, sockid, Opened.UNKNOWN)
        if origin is None
        else TcpSocket(family, sockid, Opened.KNOWN, *origin)
        for (family, sockid), origin in zip(found, origins, strict=True)
    ]


def end_now(sockets: Sequence[TcpSocket]) -> int | None:
    """Raises OperationFailed."""
    return tcp_diag.end([(one.family, one.id) for one in sockets])


def pack_sockets(sockets: Iterable[TcpSocket]) -> bytes:
    return b"".join(_ROW.pack(*one) for one in sockets)


def sockets_untrusted(data: bytes) -> list[TcpSocket]:
    """The inverse. Raises MalformedPacket; none of them is without a cookie, which would mean any socket."""
    if len(data) % _ROW.size:
        raise MalformedPacket("that is no list of connections")
    found = [TcpSocket._make(row) for row in _ROW.iter_unpack(data)]
    if any(one.family not in _FAMILIES or one.id[-8:] == _NO_COOKIE for one in found):
        raise MalformedPacket("that is no connection")
    return found
