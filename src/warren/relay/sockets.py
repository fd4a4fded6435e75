"""UDP sockets of a relay, which move whole trains (see ``linux/udp``): its port, one for each client, one for each
relayed address.

A client's own socket is bound to the relay's port like the first and *connected* to the client, so that the kernel
sorts what arrives. Each client then has a receive buffer of its own, and who sends too much fills nobody else's.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

from warren.linux.udp import TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX
from warren.proto.turn.server_values import SocketAddress

_IP_TOS, _IP_PKTINFO, _IP_MTU_DISCOVER, _IP_RECVTOS = 1, 8, 10, 13
_IPV6_MTU_DISCOVER, _IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVTCLASS, _IPV6_TCLASS = 23, 49, 50, 66, 67
_PMTUDISC_PROBE, _PMTUDISC_OMIT = 3, 5
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IPPROTO_IP, _IPPROTO_IPV6 = int(socket.IPPROTO_IP), int(socket.IPPROTO_IPV6)
_MSG_TRUNC: Final = int(socket.MSG_TRUNC)

PORT_BUFFER_BYTES: Final = 4 << 20
"""Of the relay's own port, which carries requests only: thousands of them."""
DATA_BUFFER_BYTES: Final = 2 << 20
"""Of one client or one relayed address: some 30 full trains, 5 ms at 3 Gbit/s; it is memory only while it is full."""
_ANCILLARY_BYTES = 96
_CONTROLS_MAX = 1024

_ECN_AT = 0 if sys.byteorder == "little" else -1
_segment = struct.Struct("=H")
_int = struct.Struct("=i")
_cannot_segment = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})

Control = tuple[tuple[int, int, bytes], ...]


class Arrived(NamedTuple):
    """``length`` bytes: datagrams of ``stride`` bytes each, the last may be shorter."""

    length: int
    stride: int
    source: SocketAddress
    local: bytes
    """The address they were sent to, ready to answer from; empty on a socket that has one address only."""
    ecn: int


class TrainSocket:
    """One UDP socket. Whoever opened it closes it."""

    __slots__ = ("_controls", "_pktinfo", "_sock", "_tos", "family", "segments")

    def __init__(self, family: int, buffer_bytes: int) -> None:
        self.family = family
        """4 or 6."""
        self._controls: dict[tuple[int, int, bytes], Control] = {}
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self._sock = socket.socket(kind, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.segments = True
        try:
            self._set_options(buffer_bytes)
        except OSError:
            self._sock.close()
            raise

    def _set_options(self, buffer_bytes: int) -> None:
        sock = self._sock
        if self.family == 6:
            sock.setsockopt(_IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
            self._pktinfo, self._tos = (_IPPROTO_IPV6, _IPV6_PKTINFO), (_IPPROTO_IPV6, _IPV6_TCLASS)
        else:
            sock.setsockopt(_IPPROTO_IP, _IP_RECVTOS, 1)
            self._pktinfo, self._tos = (_IPPROTO_IP, _IP_PKTINFO), (_IPPROTO_IP, _IP_TOS)
        self._set_path_mtu_discovery(_PMTUDISC_OMIT)
        for forced, polite in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, buffer_bytes)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, polite, buffer_bytes)
        with contextlib.suppress(OSError):
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        try:
            sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
        except OSError:
            self.segments = False

    def _set_path_mtu_discovery(self, how: int) -> None:
        if self.family == 6:
            self._sock.setsockopt(_IPPROTO_IPV6, _IPV6_MTU_DISCOVER, how)
        else:
            self._sock.setsockopt(_IPPROTO_IP, _IP_MTU_DISCOVER, how)

    def bind(self, host: str, port: int, *, shared: bool = False) -> None:
        """``host`` may be empty: all addresses. A shared port can be bound again, by sockets of the same user."""
        if shared:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._sock.bind((host, port))

    def tell_local(self) -> None:
        """Have each train received say which address it was sent to."""
        if self.family == 6:
            self._sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            self._sock.setsockopt(_IPPROTO_IP, _IP_PKTINFO, 1)

    def connect(self, remote: SocketAddress) -> None:
        self._sock.connect(remote)

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def address(self) -> SocketAddress:
        address: SocketAddress = self._sock.getsockname()
        return address

    def receive_into(self, buffer: memoryview) -> Arrived | None:
        """One train into the start of ``buffer`` (64 KB); None when there is none now."""
        try:
            length, ancillary, flags, source = self._sock.recvmsg_into((buffer,), _ANCILLARY_BYTES)
        except OSError:  # EAGAIN, or an ICMP error that arrived meanwhile: nobody authenticated it
            return None
        stride, local, ecn = length, b"", 0
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                stride = _int.unpack(data)[0]
            elif kind in (_IP_TOS, _IPV6_TCLASS):
                ecn = data[_ECN_AT] & 3  # a byte on IPv4, an int on IPv6
            elif kind == _IP_PKTINFO and level == _IPPROTO_IP:
                local = b"\0\0\0\0" + data[4:8] + b"\0\0\0\0"  # in_pktinfo: ifindex, spec_dst, addr
            elif kind == _IPV6_PKTINFO and level == _IPPROTO_IPV6:
                local = data[:16] + b"\0\0\0\0"  # in6_pktinfo: addr, ifindex
        if flags & _MSG_TRUNC:
            return None
        return Arrived(length, stride, source, local, ecn)

    def send(
        self,
        train: bytes | bytearray | memoryview,
        stride: int,
        address: SocketAddress | None = None,
        local: bytes = b"",
        ecn: int = 0,
    ) -> int:
        """Send a train to ``address`` (None: to whom it is connected); returns 0, or the errno that stopped it.

        What the kernel cannot take now is lost, as it would be in a router.
        """
        length = len(train)
        try:
            if length <= stride:
                control = self._controls.get((0, ecn, local)) or self._control(0, ecn, local)
                self._sock.sendmsg((train,), control, 0, address)
                return 0
            per_call = min(TRAIN_DATAGRAMS_MAX, TRAIN_BYTES_MAX // stride) * stride
            if not per_call:
                return errno.EMSGSIZE
            if self.segments:
                control = self._controls.get((stride, ecn, local)) or self._control(stride, ecn, local)
                if length <= per_call:
                    self._sock.sendmsg((train,), control, 0, address)
                    return 0
                view = memoryview(train)
                for at in range(0, length, per_call):
                    self._sock.sendmsg((view[at : at + per_call],), control, 0, address)
                return 0
        except OSError as error:
            if length <= stride or error.errno not in _cannot_segment:
                return error.errno or errno.EIO
            self.segments = error.errno != errno.EIO
        return self._send_one_by_one(train, stride, address, local, ecn)

    def _send_one_by_one(
        self, train: bytes | bytearray | memoryview, stride: int, address: SocketAddress | None, local: bytes, ecn: int
    ) -> int:
        control = self._control(0, ecn, local)
        view = memoryview(train)
        try:
            for at in range(0, len(view), stride):
                self._sock.sendmsg((view[at : at + stride],), control, 0, address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def send_whole(self, data: bytes, address: SocketAddress) -> int:
        """One datagram that is lost rather than fragmented (RFC 8656 §14)."""
        self._set_path_mtu_discovery(_PMTUDISC_PROBE)
        try:
            self._sock.sendto(data, address)
        except OSError as error:
            return error.errno or errno.EIO
        finally:
            self._set_path_mtu_discovery(_PMTUDISC_OMIT)
        return 0

    def _control(self, stride: int, ecn: int, local: bytes) -> Control:
        """The control messages for these values, kept for the next train; ``stride`` 0: a single datagram."""
        messages: list[tuple[int, int, bytes]] = []
        if local:
            messages.append((*self._pktinfo, local))
        if ecn:
            messages.append((*self._tos, _int.pack(ecn)))
        if stride:
            messages.append((_SOL_UDP, _UDP_SEGMENT, _segment.pack(stride)))
        if len(self._controls) >= _CONTROLS_MAX:
            self._controls.clear()
        control = self._controls[stride, ecn, local] = tuple(messages)
        return control

    def close(self) -> None:
        self._sock.close()


@contextlib.contextmanager
def closed_on_error(sock: TrainSocket) -> Iterator[TrainSocket]:
    """What is set up inside is closed should that fail."""
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def open_port(family: int, host: str, port: int) -> TrainSocket:
    """The relay's own port, on which anybody may speak. Raises OSError."""
    with closed_on_error(TrainSocket(family, PORT_BUFFER_BYTES)) as sock:
        sock.tell_local()
        sock.bind(host, port, shared=True)
        return sock


def open_client(
    family: int, host: str, port: int, remote: SocketAddress, buffer_bytes: int = DATA_BUFFER_BYTES
) -> TrainSocket:
    """The socket of one client of that port. Raises OSError.

    Between bind and connect datagrams of others can get into it: look at the source of what it receives.
    """
    with closed_on_error(TrainSocket(family, buffer_bytes)) as sock:
        sock.bind(host, port, shared=True)
        sock.connect(remote)
        return sock


def open_relayed(family: int, host: str, port: int, buffer_bytes: int = DATA_BUFFER_BYTES) -> TrainSocket:
    """The socket of a relayed address. Raises OSError."""
    with closed_on_error(TrainSocket(family, buffer_bytes)) as sock:
        sock.bind(host, port)
        return sock


def host_of(local: bytes) -> str:
    """The address in the ancillary data that datagrams came with."""
    if len(local) == 12:
        return socket.inet_ntop(socket.AF_INET, local[4:8])
    return socket.inet_ntop(socket.AF_INET6, local[:16]) if local else ""
