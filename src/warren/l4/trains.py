"""UDP sockets that take and give *trains*: datagrams of one flow back to back in one buffer, all of ``stride`` bytes
but the last, which may be shorter (``UDP_GRO`` and ``UDP_SEGMENT`` of udp(7)). A datagram alone is a train of one.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IPPROTO_IP, _IPPROTO_IPV6 = 0, 41
_IP_PKTINFO, _IP_TRANSPARENT, _IP_RECVORIGDSTADDR = 8, 19, 20
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVORIGDSTADDR, _IPV6_TRANSPARENT = 49, 50, 74, 75

TRAIN_BYTES_MAX: Final = 65_535
"""A train and a datagram are at most this long (the length fields of UDP and IP); so is the buffer for one."""
DATAGRAMS_MAX: Final = 64
"""In one train that is sent: UDP_MAX_SEGMENTS of linux/udp.h (128 since Linux 6.9)."""
BATCH: Final = 64
"""Trains taken from one socket before the others have their turn: some 0.2 ms of work for small ones."""
_ANCILLARY_BYTES = 128
_QUEUE_BYTES = 1 << 20  # of a listener: 10 ms at 1 Gbit/s

_segment = struct.Struct("=H")
_int = struct.Struct("=i")
_cannot_segment = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})

Control = tuple[tuple[int, int, bytes], ...]
"""Control messages as ``sendmsg`` takes them."""


class TrainSocket:
    """A UDP socket, which belongs to it. What :meth:`receive` took is in ``length``, ``stride``, ``source`` and
    ``local`` until the next call; its bytes are at the beginning of the buffer.
    """

    __slots__ = ("_ancillary", "_gathers", "_segments", "length", "local", "sock", "source", "stride")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._segments = True
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            self._gathers = True
        except OSError:
            self._gathers = False
        self._ancillary = _ANCILLARY_BYTES if self._gathers else 0
        self.length = self.stride = 0
        self.source: Any = None
        self.local = b""
        """Where it was sent to, as the kernel says it; empty unless asked for."""

    def ask_where_to(self) -> None:
        """Have ``local`` tell the local address (of a socket that is bound to all of them): see :func:`answering`."""
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            self.sock.setsockopt(_IPPROTO_IP, _IP_PKTINFO, 1)
        self._ancillary = _ANCILLARY_BYTES

    def make_transparent(self) -> None:
        """Take what nftables' ``tproxy`` hands over; ``local`` then is the address it was meant for, as a sockaddr."""
        set_transparent(self.sock)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
        else:
            self.sock.setsockopt(_IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
        self._ancillary = _ANCILLARY_BYTES

    def widen(self) -> None:
        """Have a longer queue, as a socket needs that takes what all clients send."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)

    def receive(self, buffer: memoryview) -> bool:
        """Take one train; False: there is none now. Raises OSError, of a connected socket also for what ICMP reports
        about an earlier datagram; the socket stays usable. One that was cut short is passed over.
        """
        while True:
            try:
                length, ancillary, flags, self.source = self.sock.recvmsg_into((buffer,), self._ancillary)
            except BlockingIOError:
                return False
            if not flags & socket.MSG_TRUNC:
                break
        self.length = self.stride = length
        for _, kind, data in ancillary:
            if kind == _UDP_GRO:
                self.stride = _int.unpack(data)[0]
            else:
                self.local = data
        return True

    def send(self, train: memoryview | bytes, stride: int, control: Control = (), address: Any = None) -> int:
        """Send it, to ``address`` where the socket is not connected. Returns 0 or the errno; what a full queue or a
        link too narrow for it takes away is lost, as everywhere with UDP.
        """
        try:
            if len(train) > stride and self._segments:
                return self._send_segments(train, stride, control, address)
            for datagram in datagrams(train, stride):
                if address is None:
                    self.sock.send(datagram)
                else:
                    self.sock.sendmsg((datagram,), control, 0, address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _send_segments(self, train: memoryview | bytes, stride: int, control: Control, address: Any) -> int:
        per_call = min(DATAGRAMS_MAX, (TRAIN_BYTES_MAX - 100) // stride) * stride  # IP and UDP have headers, too
        messages = (*control, (_SOL_UDP, _UDP_SEGMENT, _segment.pack(stride)))
        view = memoryview(train)
        for at in range(0, len(view), per_call):
            try:
                self.sock.sendmsg((view[at : at + per_call],), messages, 0, address)
            except OSError as error:
                if error.errno not in _cannot_segment:
                    raise
                self._segments = error.errno != errno.EIO  # EIO: no checksum offload; else this stride is too long
                for datagram in datagrams(view[at : at + per_call], stride):
                    self.sock.sendmsg((datagram,), control, 0, address)
        return 0

    def close(self) -> None:
        self.sock.close()


def datagrams(train: memoryview | bytes, stride: int) -> Iterator[memoryview | bytes]:
    """The datagrams of a train."""
    if len(train) <= stride:
        yield train
    else:
        for at in range(0, len(train), stride):
            yield train[at : at + stride]


def answering(family: int, local: bytes) -> Control:
    """What sends an answer from ``local`` (after :meth:`TrainSocket.ask_where_to`), by whatever interface."""
    if not local:
        return ()
    if family == socket.AF_INET6:  # in6_pktinfo: address, interface
        return ((_IPPROTO_IPV6, _IPV6_PKTINFO, local[:16] + bytes(4)),)
    return (
        (_IPPROTO_IP, _IP_PKTINFO, bytes(4) + local[8:12] + bytes(4)),
    )  # in_pktinfo: interface, source, destination


def set_transparent(sock: socket.socket) -> None:
    """Let it be bound to addresses that are not this host's (IP_TRANSPARENT). Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(_IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(_IPPROTO_IP, _IP_TRANSPARENT, 1)
