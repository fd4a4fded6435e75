"""The connection tracking table of a lab host, by netlink."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from warren.errors import OperationFailed
from warren.lab.host import Host

# linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h
_NETLINK_NETFILTER: Final = 12  # linux/netlink.h
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET and _DELETE
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSG: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_NFGENMSG: Final = struct.Struct("!BBH")  # family, version, resource
_NLATTR: Final = struct.Struct("=HH")  # struct nlattr: length, type
_NESTED: Final = 0x8000
_ERROR: Final = struct.Struct("=i")
_TUPLE_ORIG, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V4_DST = 1, 2
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_RECEIVE_BYTES: Final = 1 << 16
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}


@dataclass(frozen=True, slots=True)
class Flow:
    """An IPv4 flow of TCP or UDP, with its addresses as each end's packets have them before translation."""

    protocol: int
    source: tuple[IPv4Address, int]
    """Who began it, …"""
    target: tuple[IPv4Address, int]
    """… where to, …"""
    answerer: tuple[IPv4Address, int]
    """… who answers, …"""
    answered: tuple[IPv4Address, int]
    """… and where to: as the answerer sees who began it."""
    original: bytes
    """The kernel's own words for it."""

    def is_of(self, protocol: str, address: str, port: int) -> bool:
        """Whether that host and port, inside, is one of its ends."""
        end = (IPv4Address(address), port)
        return self.protocol == _PROTOCOLS[protocol] and end in (self.source, self.answerer)


def flush(host: Host) -> None:
    """Forget every flow. Raises OperationFailed when the kernel refuses."""
    _delete(host, socket.AF_UNSPEC, b"")


def forget(host: Host, flow: Flow) -> None:
    """Forget one flow. Raises OperationFailed when the kernel refuses; one that is gone is no error."""
    _delete(host, socket.AF_INET, flow.original)


def flows(host: Host) -> list[Flow]:
    """The IPv4 flows of TCP and UDP that are known."""
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(_message(_GET, _NLM_F_REQUEST | _NLM_F_DUMP, socket.AF_INET, b""))
        found: list[Flow] = []
        while True:
            for kind, body in _messages(netlink.recv(_RECEIVE_BYTES)):
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    return found
                flow = _flow(body[_NFGENMSG.size :])
                if flow is not None:
                    found.append(flow)


def _delete(host: Host, family: int, attributes: bytes) -> None:
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(_message(_DELETE, _NLM_F_REQUEST | _NLM_F_ACK, family, attributes))
        (error,) = _ERROR.unpack_from(netlink.recv(4096), _NLMSG.size)
    if -error not in (0, errno.ENOENT):
        raise OperationFailed(f"host {host.name}: cannot forget its flows: {os.strerror(-error)}")


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _NFGENMSG.pack(family, 0, 0) + attributes
    return _NLMSG.pack(_NLMSG.size + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _NLMSG.size:
        length, kind, *_ = _NLMSG.unpack_from(data)
        yield kind, data[_NLMSG.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _NLATTR.size:
        length, kind = _NLATTR.unpack_from(data)
        found[kind & ~_NESTED] = data[_NLATTR.size : length]
        data = data[(length + 3) & ~3 :]
    return found


def _flow(data: bytes) -> Flow | None:
    attributes = _attributes(data)
    protocol, source, target = _tuple(attributes[_TUPLE_ORIG])
    _, answerer, answered = _tuple(attributes[_TUPLE_REPLY])
    if protocol not in _PROTOCOLS.values():
        return None
    words = attributes[_TUPLE_ORIG]
    original = _NLATTR.pack(_NLATTR.size + len(words), _TUPLE_ORIG | _NESTED) + words
    return Flow(protocol, source, target, answerer, answered, original)


def _tuple(data: bytes) -> tuple[int, tuple[IPv4Address, int], tuple[IPv4Address, int]]:
    parts = _attributes(data)
    addresses, protocol = _attributes(parts[_TUPLE_IP]), _attributes(parts[_TUPLE_PROTO])
    ports = [int.from_bytes(protocol.get(kind, b""), "big") for kind in (_PROTO_SRC_PORT, _PROTO_DST_PORT)]
    ends = [(IPv4Address(addresses[kind]), port) for kind, port in zip((_V4_SRC, _V4_DST), ports, strict=True)]
    return protocol[_PROTO_NUM][0], ends[0], ends[1]
