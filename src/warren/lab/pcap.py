"""The pcap file format with nanosecond time stamps, little-endian (draft-ietf-opsawg-pcap §4, §5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
"""Packets begin with their IPv4 or IPv6 header."""

_MAGIC_NANOSECONDS = 0xA1B23C4D
_VERSION = (2, 4)
# magic | major | minor | reserved | reserved | longest packet | link type
_FILE_HEADER = struct.Struct("<IHHIIII")
# seconds | nanoseconds | captured length | original length
_RECORD_HEADER = struct.Struct("<IIII")


class Record(NamedTuple):
    time_ns: int
    original_length: int
    packet: bytes


def file_header(linktype: int, longest: int) -> bytes:
    """What a file begins with; packets are cut to ``longest`` bytes."""
    return _FILE_HEADER.pack(_MAGIC_NANOSECONDS, *_VERSION, 0, 0, longest, linktype)


def record_header(time_ns: int, captured_length: int, original_length: int) -> bytes:
    """What precedes the ``captured_length`` bytes of a packet; ``time_ns`` counts from 1970."""
    return _RECORD_HEADER.pack(*divmod(time_ns, 1_000_000_000), captured_length, original_length)


def records(data: bytes) -> Iterator[Record]:
    """The packets in the bytes of a file that this module wrote. A last record that is not complete is left out.

    Raises ValueError when they are no such file.
    """
    if len(data) < _FILE_HEADER.size or _FILE_HEADER.unpack_from(data)[0] != _MAGIC_NANOSECONDS:
        raise ValueError("not a little-endian pcap file with nanosecond time stamps")
    at = _FILE_HEADER.size
    while at + _RECORD_HEADER.size <= len(data):
        seconds, nanoseconds, captured, original = _RECORD_HEADER.unpack_from(data, at)
        at += _RECORD_HEADER.size
        if at + captured > len(data):
            return
        yield Record(seconds * 1_000_000_000 + nanoseconds, original, data[at : at + captured])
        at += captured
