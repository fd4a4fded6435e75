"""TCP connections by sock_diag(7): listed by their own address, which the kernel compares, and ended.

The network namespace is that of the calling thread. Calls block, for as long as the kernel takes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from warren.errors import OperationFailed
from warren.linux.netlink_frames import (
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    error_number,
    messages,
)
from warren.model.tunnel import IPNetwork

PREFIXES_MAX: Final = 1024
"""In one question: the distances in the kernel's little programs have 16 bits."""
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_BY_BYTECODE: Final = 1  # linux/inet_diag.h: INET_DIAG_REQ_BYTECODE
_OP_JUMP, _OP_LOCAL = 1, 7  # INET_DIAG_BC_JMP, INET_DIAG_BC_S_COND
_ANY_PORT: Final = -1
# linux/tcp_states.h: all but TIME_WAIT (6), CLOSE (7) and LISTEN (10), which are nobody's connections
_STATES: Final = sum(1 << state for state in (1, 2, 3, 4, 5, 8, 9, 11, 12))
_ANY_STATE: Final = 0xFFFFFFFF
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAPPED: Final = bytes(10) + b"\xff\xff"
_BATCH: Final = 64
_PATIENCE_S: Final = 5.0
_READ_BYTES: Final = 1 << 18
_GONE: Final = frozenset({errno.ENOENT, errno.ESTALE})

_request = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states; the socket's id follows
_operation = struct.Struct("=BBH")  # inet_diag_bc_op: code, where to go on if so, and if not
_condition = struct.Struct("=BBxxi")  # inet_diag_hostcond: family, length of the prefix, port; the address follows
_attribute = struct.Struct("=HH")
_ports = struct.Struct("!HH")
_ID: Final = slice(4, 52)  # of inet_diag_msg

Found = tuple[int, bytes]
"""Family and id (inet_diag_sockid) of a socket."""


def connections(local: Sequence[IPNetwork]) -> list[Found]:
    """Those whose own address is in ``local``. Raises OperationFailed."""
    if not local:
        return []
    if len(local) > PREFIXES_MAX:
        raise OperationFailed(f"connections of more than {PREFIXES_MAX} prefixes cannot be asked for at once")
    program = _program(local)
    question = _attribute.pack(_attribute.size + len(program), _BY_BYTECODE) + program
    found: list[Found] = []
    try:
        with _door() as door:
            for family in _FAMILIES.values():
                body = _request.pack(family, socket.IPPROTO_TCP, 0, _STATES) + bytes(48) + question
                door.send(_framed(_SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, body))
                found += [(int(family), sockid) for sockid in _listed(door)]
    except OSError as error:
        raise OperationFailed(f"the kernel does not list connections: {error.strerror or error}") from None
    return found


def end(sockets: Sequence[Found]) -> int | None:
    """End these; returns how many were still there, None when this kernel cannot. Raises OperationFailed."""
    count = 0
    try:
        with _door() as door:
            for start in range(0, len(sockets), _BATCH):
                batch = sockets[start : start + _BATCH]
                door.send(b"".join(_ending(family, sockid) for family, sockid in batch))
                for number in _acknowledged(door, len(batch)):
                    if number == errno.EOPNOTSUPP:
                        return None
                    if number and number not in _GONE:
                        raise OSError(number, errno.errorcode.get(number, "?"))
                    count += not number
    except OSError as error:
        raise OperationFailed(f"the kernel does not end connections: {error.strerror or error}") from None
    return count


def ends(family: int, sockid: bytes) -> tuple[bytes, bytes, int, int]:
    """Local and remote address of 16 bytes, IPv4 mapped into IPv6; local and remote port."""
    local_port, remote_port = _ports.unpack_from(sockid)
    if family == socket.AF_INET:
        return _MAPPED + sockid[4:8], _MAPPED + sockid[20:24], local_port, remote_port
    return sockid[4:20], sockid[20:36], local_port, remote_port


def _door() -> socket.socket:
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    door.settimeout(_PATIENCE_S)
    return door


def _framed(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, number, 0) + body


def _ending(family: int, sockid: bytes) -> bytes:
    body = _request.pack(family, socket.IPPROTO_TCP, 0, _ANY_STATE) + sockid
    return _framed(_SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, 0, body)


def _listed(door: socket.socket) -> Iterator[bytes]:
    while True:
        data = door.recv(_READ_BYTES)
        for message in messages(data):
            if message.kind == NLMSG_DONE:
                return
            if message.kind == NLMSG_ERROR:
                number = error_number(data, message)
                raise OSError(number, errno.errorcode.get(number, "?"))
            yield data[message.start + _ID.start : message.start + _ID.stop]


def _acknowledged(door: socket.socket, count: int) -> Iterator[int]:
    while count > 0:
        data = door.recv(_READ_BYTES)
        for message in messages(data):
            if message.kind == NLMSG_ERROR:
                count -= 1
                yield error_number(data, message)


def _program(local: Iterable[IPNetwork]) -> bytes:
    """Whether one of the conditions holds, for the kernel (net/ipv4/inet_diag.c): going to the end says that it does,
    and beyond it that none does. A condition that holds goes on to the jump behind it, which leads to the end.
    """
    conditions = [
        _condition.pack(_FAMILIES[network.version], network.prefixlen, _ANY_PORT) + network.network_address.packed
        for network in local
    ]
    left = sum(2 * _operation.size + len(condition) for condition in conditions)
    program = b""
    for condition in conditions:
        size = _operation.size + len(condition)
        last = left == size + _operation.size
        program += _operation.pack(_OP_LOCAL, size, left + _operation.size if last else size + _operation.size)
        program += condition
        left -= size
        program += _operation.pack(_OP_JUMP, _operation.size, left)
        left -= _operation.size
    return program
