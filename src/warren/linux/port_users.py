"""At which addresses of this host a port is in use: sock_diag(7), asked for all sockets that are bound to it.

It sees the sockets of the network namespace that the calling thread is in.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TCP_LISTEN, _ALL_STATES = 1 << 10, 0xFFFFFFFF

_nlmsghdr = struct.Struct("=IHHII")  # linux/netlink.h: length, type, flags, sequence, port
_request = struct.Struct("=BBBxI")  # linux/inet_diag.h, inet_diag_req_v2: family, protocol, extensions, states
_sockid = struct.Struct("!HH16s16s4s8s")  # inet_diag_sockid: ports, addresses, interface, cookie
_message = struct.Struct("=BBBB48s16xI")  # inet_diag_msg: family, state, two more, the socket's id, four more, inode
_BUFFER_BYTES: Final = 32 << 10  # what the kernel puts into one part of a dump at most
_PARTS_MAX: Final = 256
"""Of one dump: some 40,000 sockets, far more than share a port; then it is cut short."""


def bound_at(port: int, protocol: Literal["tcp", "udp"], but: Collection[int] = ()) -> frozenset[IPAddress]:
    """The addresses at which sockets are bound to ``port`` (of TCP: and listen); the unspecified ones are themselves
    among them. IPv4-mapped ones are IPv4. Sockets with the inode numbers ``but`` are left out. Raises OSError where the
    kernel does not tell.
    """
    found: set[tuple[IPAddress, int]] = set()
    for family in (socket.AF_INET, socket.AF_INET6):
        found |= _dump(family, port, protocol)
    return frozenset(ip for ip, inode in found if inode not in but)


def _dump(family: int, port: int, protocol: str) -> set[tuple[IPAddress, int]]:
    number, states = (socket.IPPROTO_TCP, _TCP_LISTEN) if protocol == "tcp" else (socket.IPPROTO_UDP, _ALL_STATES)
    # The kernel leaves sockets with other ports out.
    body = _request.pack(family, number, 0, states) + _sockid.pack(port, 0, bytes(16), bytes(16), bytes(4), bytes(8))
    header = _nlmsghdr.pack(_nlmsghdr.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    found: set[tuple[IPAddress, int]] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as door:
        door.settimeout(1.0)  # the kernel answers within send() and recv()
        door.send(header + body)
        for _ in range(_PARTS_MAX):
            if _read(door.recv(_BUFFER_BYTES), port, found):
                break
    return found


def _read(part: bytes, port: int, found: set[tuple[IPAddress, int]]) -> bool:
    """Whether that was the last part. Raises OSError."""
    offset = 0
    while offset + _nlmsghdr.size <= len(part):
        length, kind, *_ = _nlmsghdr.unpack_from(part, offset)
        if kind == _NLMSG_DONE:
            return True
        if kind == _NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", part, offset + _nlmsghdr.size)
            raise OSError(-code, os.strerror(-code))
        if length < _nlmsghdr.size + _message.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        family, *_, sockid, inode = _message.unpack_from(part, offset + _nlmsghdr.size)
        source, _, address, *_ = _sockid.unpack(sockid)
        if source == port:
            ip = ip_address(address[:4]) if family == socket.AF_INET else unmapped(IPv6Address(address))
            found.add((ip, inode))
        offset += (length + 3) & ~3
    return False
