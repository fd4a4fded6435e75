"""How connections were opened, as connection tracking has it: nfnetlink, asked for exactly these.

It is what the policy's table in nftables is judged by, so who asks here judges as that does. Only what is tracked in
the network namespace of the calling thread is known. Calls block, for as long as the kernel takes.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from typing import Final

from warren.errors import OperationFailed
from warren.linux.netlink_frames import HEADER, NLM_F_REQUEST, NLMSG_ERROR, attributes, error_number, messages

_NETLINK_NETFILTER: Final = 12
_GET: Final = 1 << 8 | 1  # linux/netfilter/nfnetlink{,_conntrack}.h: NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_NEW: Final = 1 << 8
_NESTED: Final = 0x8000
_TUPLE, _IP, _PROTOCOL = 1, 1, 2  # CTA_TUPLE_ORIG; in it CTA_TUPLE_IP, CTA_TUPLE_PROTO
_DESTINATION_PORT: Final = 3  # CTA_PROTO_DST_PORT
_SOURCE_V4, _DESTINATION_V4, _SOURCE_V6, _DESTINATION_V6 = 1, 2, 3, 4  # CTA_IP_…
_GENERIC_BYTES: Final = 4  # nfgenmsg: family, version, resource
_MAPPED: Final = bytes(10) + b"\xff\xff"
_BATCH: Final = 64
"""Answers are some 300 bytes, and wait in a buffer that is a hundred times that."""
_PATIENCE: Final = struct.pack("@ll", 5, 0)  # the kernel's own: settimeout() would ask it twice for each answer
_READ_BYTES: Final = 1 << 13
"""An answer is a datagram of its own."""

# A tuple is its addresses (an attribute each), then protocol, source port and destination port; the latter two are
# big-endian, everything else is the host's.
_attribute = struct.Struct("=HH")
_ports = struct.Struct("=HHB3xHHH2xHHH2x")

Origin = tuple[bytes, bytes, int]
"""Who opened it, and where to: two addresses of 16 bytes (IPv4 mapped into IPv6) and the destination's port, as the
first packet was sent.
"""


def origins(connections: Sequence[tuple[bytes, bytes, int, int]]) -> list[Origin | None] | None:
    """Of each of these TCP connections, given as local and remote address, local and remote port, of this host's end;
    None for one that is not tracked. None altogether: this kernel, or these rights, do not tell.

    Raises OperationFailed when the kernel does not answer.
    """
    found: list[Origin | None] = [None] * len(connections)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
            for start in range(0, len(connections), _BATCH):
                batch = connections[start : start + _BATCH]
                door.send(b"".join(_question(start + index, *one) for index, one in enumerate(batch)))
                if not _take(door, len(batch), found):
                    return None
    except BlockingIOError:
        raise OperationFailed("the kernel does not say how connections were opened") from None
    except OSError:
        return None
    return found


def _take(door: socket.socket, count: int, found: list[Origin | None]) -> bool:
    """Read the answers to ``count`` questions; returns whether they are answers."""
    while count > 0:
        data = door.recv(_READ_BYTES)
        for message in messages(data):
            count -= 1
            if message.kind == NLMSG_ERROR:
                if error_number(data, message) != errno.ENOENT:
                    return False
            elif message.kind == _NEW and message.number < len(found):
                found[message.number] = _origin(data, message.start + _GENERIC_BYTES, message.end)
    return True


def _question(number: int, local: bytes, remote: bytes, local_port: int, remote_port: int) -> bytes:
    """For the connection of which this is one direction: what leaves here, as the program here sends it. Whoever opened
    it, and whatever was translated on the way in, that is how its packets leave.
    """
    if local.startswith(_MAPPED):
        family, kinds, local, remote = socket.AF_INET, (_SOURCE_V4, _DESTINATION_V4), local[12:], remote[12:]
    else:
        family, kinds = socket.AF_INET6, (_SOURCE_V6, _DESTINATION_V6)
    addresses = b"".join(
        _attribute.pack(_attribute.size + len(address), kind) + address
        for kind, address in zip(kinds, (local, remote), strict=True)
    )
    ports = _ports.pack(5, 1, socket.IPPROTO_TCP, 6, 2, socket.htons(local_port), 6, 3, socket.htons(remote_port))
    parts = _nested(_IP, addresses) + _nested(_PROTOCOL, ports)
    body = bytes((family, 0, 0, 0)) + _nested(_TUPLE, parts)
    return HEADER.pack(HEADER.size + len(body), _GET, NLM_F_REQUEST, number, 0) + body


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute.pack(_attribute.size + len(content), kind | _NESTED) + content


def _origin(data: bytes, start: int, end: int) -> Origin | None:
    for kind, begin, until in attributes(data, start, end):
        if kind == _TUPLE:
            return _read(data, begin, until)
    return None


def _read(data: bytes, start: int, end: int) -> Origin | None:
    source = destination = b""
    port = 0
    for part, begin, until in attributes(data, start, end):
        for kind, first, last in attributes(data, begin, until):
            value = data[first:last]
            if part == _IP:
                if kind in (_SOURCE_V4, _SOURCE_V6):
                    source = value
                elif kind in (_DESTINATION_V4, _DESTINATION_V6):
                    destination = value
            elif part == _PROTOCOL and kind == _DESTINATION_PORT:
                port = int.from_bytes(value)
    whole = {len(source), len(destination)} in ({4}, {16})
    return (_sixteen(source), _sixteen(destination), port) if whole else None


def _sixteen(address: bytes) -> bytes:
    return _MAPPED + address if len(address) == 4 else address
