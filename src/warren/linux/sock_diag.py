"""Whose a socket of this host is: sock_diag(7), asked for exactly one socket.

It sees the sockets of the network namespace that the calling thread is in.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Literal

from warren.model.tunnel import TransportAddress

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NO_COOKIE = b"\xff" * 8
_ALL_STATES = 0xFFFFFFFF

_nlmsghdr = struct.Struct("=IHHII")  # linux/netlink.h: length, type, flags, sequence, port
_request = struct.Struct("=BBBxI")  # linux/inet_diag.h, inet_diag_req_v2: family, protocol, extensions, states
_sockid = struct.Struct("!HH16s16s4s8s")  # inet_diag_sockid: ports, addresses, interface, cookie
_message = struct.Struct("=BBBB48sIIIII")  # inet_diag_msg: family, state …, the socket's id, …, uid, inode
_BUFFER_BYTES: Final = 4096  # a message is some 200 bytes with its attributes


def owner_of(local: TransportAddress, remote: TransportAddress, protocol: Literal["tcp", "udp"] = "tcp") -> int | None:
    """The user ID of the process whose socket is bound to ``local`` and (TCP: connected to; UDP: reached by)
    ``remote``, as they are seen by that process; None when there is none.

    A socket that its process has closed, though TCP still winds it up, is nobody's: the kernel says root of those.
    """
    family = socket.AF_INET if local.ip.version == 4 else socket.AF_INET6
    number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    # The kernel looks a UDP socket up as for a datagram that arrives: who sent it comes first (net/ipv4/udp_diag.c).
    first, second = (local, remote) if protocol == "tcp" else (remote, local)
    body = _request.pack(family, number, 0, _ALL_STATES) + _sockid.pack(
        first.port, second.port, first.ip.packed, second.ip.packed, bytes(4), _NO_COOKIE
    )
    header = _nlmsghdr.pack(_nlmsghdr.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as door:
            door.settimeout(1.0)  # the kernel answers within send()
            door.send(header + body)
            answer = door.recv(_BUFFER_BYTES)
    except OSError:
        return None
    return _owner(answer, local)


def _owner(answer: bytes, local: TransportAddress) -> int | None:
    if len(answer) < _nlmsghdr.size + _message.size or _nlmsghdr.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    *_, sockid, _, _, _, uid, inode = _message.unpack_from(answer, _nlmsghdr.size)
    if not inode or int.from_bytes(sockid[:2]) != local.port:
        return None
    return int(uid)
