"""One UDP port on IPv4 and IPv6, and the detours that datagrams take from it.

Addresses have the forms of :mod:`warren.proto.wireguard.addresses`: a detour through a channel of a TURN server is
wrapped here, and one by another socket leaves through that.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from warren.errors import OperationFailed
from warren.linux.udp import UdpSocket
from warren.proto.turn.channel import HEADER_BYTES, wrap_train
from warren.proto.wireguard.addresses import direct

_BIND_ATTEMPTS = 100  # both families must find the same port free
_SOCKADDR_LENGTH = {socket.AF_INET: 2, socket.AF_INET6: 4}
"""How Python's socket module writes their addresses: (host, port) and (host, port, flowinfo, scope)."""
_DETOUR = 6
"""The length of an address that says by which channel or socket one gets there."""


class UdpPort:
    """The same UDP port on IPv4 and IPv6; a host without one of the families has only the other.

    ``others`` are sockets by number, which detours name; they are the caller's, who may change it at any time.
    """

    def __init__(self, sockets: list[UdpSocket], port: int) -> None:
        self.sockets = sockets
        self.port = port
        self.others: Mapping[int, UdpSocket] = {}
        self._by_address_length = {_SOCKADDR_LENGTH[sock.family]: sock for sock in sockets}

    @classmethod
    def open(cls, port: int, fwmark: int = 0) -> UdpPort:
        """Bind ``port``, or with 0 one that is free in both families. Raises OperationFailed when it is taken."""
        for _ in range(_BIND_ATTEMPTS):
            sockets: list[UdpSocket] = []
            chosen = port
            try:
                for family in (socket.AF_INET, socket.AF_INET6):
                    with _family_may_be_missing():
                        sockets.append(UdpSocket.bound(family, chosen, fwmark))
                        chosen = sockets[-1].port
            except OSError as error:
                for opened in sockets:
                    opened.close()
                if error.errno == errno.EADDRINUSE and port == 0:
                    continue
                raise OperationFailed(_why_no_port(port, error)) from error
            if not sockets:
                raise OperationFailed("this host has neither IPv4 nor IPv6: there is nothing to send through")
            return cls(sockets, chosen)
        raise OperationFailed("no UDP port is free on both IPv4 and IPv6: name one with ListenPort")

    def send(self, train: memoryview | bytes, stride: int, address: tuple[object, ...], local: bytes, ecn: int) -> int:
        """As :meth:`UdpSocket.send`, by the family of ``address`` and its detour."""
        sock = self._by_address_length.get(len(address))
        if sock is not None:
            return sock.send(train, stride, address, local, ecn)
        if len(address) != _DETOUR:
            return errno.EAFNOSUPPORT
        sock, server, channel = self._detour(address)
        if sock is None:
            return errno.EBADF
        if channel:
            train, stride = wrap_train(train, stride, channel), stride + HEADER_BYTES
        return sock.send(train, stride, server, local, ecn)

    def send_whole(self, data: bytes, address: tuple[object, ...], local: bytes) -> int:
        """As :meth:`UdpSocket.send_whole`, in the same way."""
        sock, server, channel = self._detour(address)
        if sock is None:
            return errno.EBADF
        return sock.send_whole(wrap_train(data, len(data), channel) if channel else data, server, local)

    def socket_for(self, address: tuple[Any, ...]) -> UdpSocket | None:
        """The socket by which ``address`` is reached; None when there is no such."""
        return self._detour(address)[0]

    def _detour(self, address: tuple[Any, ...]) -> tuple[UdpSocket | None, tuple[object, ...], int]:
        """The socket for ``address`` (None: there is no such), where it sends to, and the channel to wrap in."""
        channel, number = address[4:] if len(address) == _DETOUR else (0, 0)
        where = direct(address)
        if not number:
            return self._by_address_length.get(len(where)), where, channel
        sock = self.others.get(number)
        if sock is not None and _SOCKADDR_LENGTH[sock.family] != len(where):
            return None, where, channel
        return sock, where, channel

    def set_fwmark(self, fwmark: int) -> None:
        for sock in self.sockets:
            sock.set_fwmark(fwmark)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@contextlib.contextmanager
def _family_may_be_missing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise


def _why_no_port(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"UDP port {port} is taken: see who has it with `ss -ulpn sport = {port}`, or choose another ListenPort"
    if error.errno == errno.EACCES:
        return f"UDP port {port} may not be bound: ports below 1024 need root or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EPERM:
        return "the firewall mark may not be set: run as root or with CAP_NET_ADMIN"
    return f"UDP port {port} cannot be bound: {error.strerror}"
