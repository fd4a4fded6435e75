"""The frames of netlink(7), for the few questions that are asked of the kernel a hundred thousand times."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
HEADER: Final = struct.Struct("=IHHII")
"""linux/netlink.h, nlmsghdr: length, type, flags, sequence, port."""
_ATTRIBUTE: Final = struct.Struct("=HH")  # nlattr: length, type
_NUMBER: Final = struct.Struct("=i")
_TYPE_MASK: Final = 0x3FFF  # without the bits for "nested" and "network byte order"


class Message(NamedTuple):
    kind: int
    number: int
    """The sequence number of what it answers."""
    start: int
    """Where its body begins and ends."""
    end: int


def messages(data: bytes) -> Iterator[Message]:
    """What the kernel has said in one datagram; a message that is cut off ends it."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, number, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            return
        yield Message(kind, number, at + HEADER.size, at + length)
        at += _aligned(length)


def attributes(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, beginning and end of each attribute in that part of ``data``."""
    while start + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > end:
            return
        yield kind & _TYPE_MASK, start + _ATTRIBUTE.size, start + length
        start += _aligned(length)


def error_number(data: bytes, message: Message) -> int:
    """The errno(3) of an NLMSG_ERROR; 0 says that all is well."""
    return -int(_NUMBER.unpack_from(data, message.start)[0])


def _aligned(length: int) -> int:
    return (length + 3) & ~3
