"""A UDP socket that sends and receives whole trains of datagrams.

A train is a run of datagrams back to back in one buffer, all of ``stride`` bytes but the last, which may be shorter:
what ``UDP_SEGMENT`` sends and ``UDP_GRO`` receives in one call (``udp(7)``). With each train received comes the local
address it was sent to, so that answers leave from there ("sticky source"), and the ECN bits of the outer header (RFC
3168).
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import NamedTuple

_IP_TOS, _IP_PKTINFO, _IP_MTU_DISCOVER, _IP_RECVTOS = 1, 8, 10, 13
_IPV6_MTU_DISCOVER, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 23, 49, 50
_IPV6_RECVTCLASS, _IPV6_TCLASS = 66, 67
_PMTUDISC_PROBE, _PMTUDISC_OMIT = 3, 5
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IPV6_V6ONLY = int(socket.IPV6_V6ONLY)

TRAIN_BYTES_MAX = 65507
"""The largest UDP payload over IPv4 (65,535 − 20 − 8)."""
TRAIN_DATAGRAMS_MAX = 64
"""UDP_MAX_SEGMENTS of ``include/linux/udp.h`` (128 since Linux 6.9; the lower number works everywhere)."""
_SOCKET_BUFFER_BYTES = 7 << 20  # about 100 trains: a scheduling gap of 20 ms at 3 Gbit/s; wireguard-go uses the same
_ANCILLARY_BYTES = 128  # four small control messages of at most 36 bytes each

_CONTROLS_MAX = 4096  # some 100 packet sizes times a few local addresses and ECN marks; then it begins anew

Control = tuple[tuple[int, int, bytes], ...]
"""Control messages as ``sendmsg`` takes them: level, type, data."""


# Plain ints: the members of the socket module's enums compare and combine ten times slower, and this runs per train.
_IPPROTO_IP, _IPPROTO_IPV6 = int(socket.IPPROTO_IP), int(socket.IPPROTO_IPV6)
_MSG_TRUNC = int(socket.MSG_TRUNC)

_segment = struct.Struct("=H")
_int = struct.Struct("=i")
_no_room = frozenset({errno.EAGAIN, errno.ENOBUFS})
# What the kernel says when it cannot segment: EIO without checksum offload on the way, EINVAL or EMSGSIZE when a
# datagram exceeds the link.
_cannot_segment = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})


class Received(NamedTuple):
    """``length`` bytes were received: datagrams of ``stride`` bytes each."""

    length: int
    stride: int
    source: tuple[str, int] | tuple[str, int, int, int]
    local: bytes
    """Ready to be sent back as IP_PKTINFO or IPV6_PKTINFO: the address we were reached at, no interface."""
    ecn: int
    arrival: bytes
    """IP_PKTINFO or IPV6_PKTINFO as it came: the address, and the interface too."""


class UdpSocket:
    """One address family of a :class:`UdpPort`. ``segments`` and ``gathers`` tell whether GSO and GRO work."""

    __slots__ = ("_controls", "_mtu_discover", "_pktinfo", "_sock", "_tos", "family", "gathers", "segments")

    def __init__(self, sock: socket.socket, fwmark: int) -> None:
        """Take over ``sock``, which is of UDP and of one family only. Raises OSError; it is then closed."""
        self.family = sock.family
        self._controls: dict[tuple[bytes, int, int], tuple[Control, int]] = {}
        self._sock = sock
        try:
            self._set_options(fwmark)
        except OSError:
            sock.close()
            raise

    @classmethod
    def bound(cls, family: socket.AddressFamily, port: int, fwmark: int) -> UdpSocket:
        """Bind ``port`` (0: any) on all addresses. Raises OSError."""
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(_IPPROTO_IPV6, _IPV6_V6ONLY, 1)
            made = cls(sock, fwmark)
            sock.bind(("", port))
        except OSError:
            sock.close()
            raise
        return made

    def _set_options(self, fwmark: int) -> None:
        sock = self._sock
        if self.family == socket.AF_INET6:
            sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
            # Nobody on the path can authenticate an ICMP "too big": like the kernel's WireGuard, let routers fragment
            # instead.
            self._mtu_discover = (_IPPROTO_IPV6, _IPV6_MTU_DISCOVER)
            self._pktinfo, self._tos = (_IPPROTO_IPV6, _IPV6_PKTINFO), (_IPPROTO_IPV6, _IPV6_TCLASS)
        else:
            sock.setsockopt(_IPPROTO_IP, _IP_PKTINFO, 1)
            sock.setsockopt(_IPPROTO_IP, _IP_RECVTOS, 1)
            self._mtu_discover = (_IPPROTO_IP, _IP_MTU_DISCOVER)
            self._pktinfo, self._tos = (_IPPROTO_IP, _IP_PKTINFO), (_IPPROTO_IP, _IP_TOS)
        sock.setsockopt(*self._mtu_discover, _PMTUDISC_OMIT)
        for forced, polite in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER_BYTES)
            except PermissionError:
                sock.setsockopt(socket.SOL_SOCKET, polite, _SOCKET_BUFFER_BYTES)
        if fwmark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fwmark)
        self.gathers = self.segments = True
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            self.gathers = False
        try:
            sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
        except OSError:
            self.segments = False

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def set_fwmark(self, fwmark: int) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fwmark)

    def receive_into(self, buffer: bytearray | memoryview) -> Received | None:
        """Receive one train into the start of ``buffer`` (64 KB); None when there is none now or it was cut short."""
        try:
            length, ancillary, flags, source = self._sock.recvmsg_into((buffer,), _ANCILLARY_BYTES)
        except OSError:  # EAGAIN, or an ICMP error that arrived meanwhile: nobody authenticated it
            return None
        stride, local, ecn, arrival = length, b"", 0, b""
        for level, kind, data in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                stride = _int.unpack(data)[0]
            elif kind == _IP_PKTINFO and level == _IPPROTO_IP:
                local = b"\0\0\0\0" + data[4:8] + b"\0\0\0\0"  # in_pktinfo: ifindex, spec_dst, addr
                arrival = data
            elif kind == _IPV6_PKTINFO and level == _IPPROTO_IPV6:
                local = data[:16] + b"\0\0\0\0"  # in6_pktinfo: addr, ifindex
                arrival = data
            elif kind in (_IP_TOS, _IPV6_TCLASS):  # a byte on IPv4, an int on IPv6
                ecn = int.from_bytes(data, sys.byteorder) & 3
        if flags & _MSG_TRUNC:
            return None
        return Received(length, stride, source, local, ecn, arrival)

    def send(self, train: memoryview | bytes, stride: int, address: tuple[object, ...], local: bytes, ecn: int) -> int:
        """Send a train; returns 0 when all of it went, else the errno that stopped it (EAGAIN: nothing went yet).

        ``local`` and ``ecn`` as in :class:`Received`. A train of any length is cut to what one call can carry. Where
        the kernel cannot segment it, the datagrams are sent one by one.
        """
        length = len(train)
        if length > stride and self.segments:
            try:
                control, per_call = self._controls.get((local, ecn, stride)) or self._control(local, ecn, stride)
                if length <= per_call:
                    self._sock.sendmsg((train,), control, 0, address)
                    return 0
                return self._send_parts(train, per_call, control, address)
            except OSError as error:
                if error.errno not in _cannot_segment:
                    return error.errno or errno.EIO
                # Sent once more unsegmented; of what went already, the receiver drops the copy as replayed.
                self.segments = error.errno != errno.EIO
        control, _ = self._controls.get((local, ecn, 0)) or self._control(local, ecn, 0)
        try:
            return self._send_parts(train, stride, control, address)
        except OSError as error:
            return error.errno or errno.EIO

    def send_whole(self, data: bytes, address: tuple[object, ...], local: bytes) -> int:
        """Send one datagram that no one may fragment, whatever is known of the path (RFC 8899 §3); returns 0 or an
        errno, EMSGSIZE when it does not fit the interface.
        """
        control, _ = self._controls.get((local, 0, 0)) or self._control(local, 0, 0)
        try:
            self._sock.setsockopt(*self._mtu_discover, _PMTUDISC_PROBE)
            try:
                self._sock.sendmsg((data,), control, 0, address)
            finally:
                self._sock.setsockopt(*self._mtu_discover, _PMTUDISC_OMIT)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _send_parts(self, train: memoryview | bytes, size: int, control: Control, address: tuple[object, ...]) -> int:
        """Send ``train`` in calls of ``size`` bytes. Once the first went, a full buffer loses the rest, as a NIC does.

        Raises OSError when the kernel refuses a part for another reason, or the first for any.
        """
        view = memoryview(train)
        for at in range(0, len(view), size):
            try:
                self._sock.sendmsg((view[at : at + size],), control, 0, address)
            except OSError as error:
                if at == 0 or error.errno not in _no_room:
                    raise
                return errno.ENOBUFS
        return 0

    def _control(self, local: bytes, ecn: int, stride: int) -> tuple[Control, int]:
        """The control messages for these values, kept for the next train, and how much one call then carries.

        ``stride`` is 0 for a single datagram.
        """
        messages: list[tuple[int, int, bytes]] = []
        if local:
            messages.append((*self._pktinfo, local))
        if ecn:
            messages.append((*self._tos, _int.pack(ecn)))
        per_call = 0
        if stride:
            messages.append((_SOL_UDP, _UDP_SEGMENT, _segment.pack(stride)))
            per_call = min(TRAIN_DATAGRAMS_MAX, TRAIN_BYTES_MAX // stride) * stride
        if len(self._controls) >= _CONTROLS_MAX:
            self._controls.clear()
        kept = self._controls[local, ecn, stride] = tuple(messages), per_call
        return kept

    def close(self) -> None:
        self._sock.close()
