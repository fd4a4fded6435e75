"""A run: consecutive packets of one flow that are being merged into one frame."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

from warren.proto.ip.checksum import MODULUS, complement, partial, word_sum
from warren.proto.ip.headers import (
    ACK,
    IPV4_HEADER,
    IPV6_HEADER,
    PSH,
    TCP,
    TCP_CSUM,
    TCP_HEADER,
    UDP,
    UDP_CSUM,
    UDP_HEADER,
)
from warren.proto.ip.virtio import GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER, NEEDS_CSUM, VNET

IDENTIFICATION: Final = 4
"""Offset of the identification in the IPv4 header."""
IPV4_CSUM: Final = 10
TCP_FLAGS: Final = 13
SEQUENCE: Final = 4
"""Offset of the sequence number in the TCP header."""

_TCP4: Final = struct.Struct("!HxxHI2x12sIQ")  # up to TOS, id, (fragment, TTL, protocol), flow, sequence, rest
_TCP6: Final = struct.Struct("!IxxH36sIQ")  # up to flow label, (next header, hop limit), flow, sequence, rest
_UDP4: Final = struct.Struct("!HxxHI2x12sHH")  # as above up to flow, length, checksum
_UDP6: Final = struct.Struct("!IxxH36sHH")

MAX_UDP_SEGMENTS: Final = 64
"""Datagrams merged into one: what the kernel's own GRO allows (UDP_GRO_CNT_MAX), as it charges a socket for each."""

_NO_OPTIONS: Final = 0x45
_DF: Final = 0x4000 << 16
"""Don't Fragment, in the four bytes (fragment, TTL, protocol)."""
_FRAGMENT: Final = 0xBFFF << 16
"""The reserved bit, More Fragments and the offset: all but DF."""

# "rest" are the eight bytes from the TCP acknowledgement to the window.
_REST_PSH: Final = PSH << 16
_REST_FLAGS_SHIFT: Final = 16
_REST_FLAGS_BUT_PSH: Final = 0xFFF & ~PSH
_REST_OFFSET_SHIFT: Final = 28


class Packet(NamedTuple):
    """What decides whether a TCP or UDP packet may be merged, and with what."""

    protocol: int
    offset: int
    """The length of the IP header."""
    headers: int
    """The length of IP and transport header."""
    total: int
    """The length of the packet."""
    flow: bytes
    """Addresses and ports; marked for UDP."""
    fixed: tuple[int | bytes, ...]
    """All other fields that the packets of a run have in common."""
    sequence: int
    """The TCP sequence number; 0 for UDP."""
    identification: int
    """The IPv4 identification; 0 for IPv6."""
    steps: tuple[int, ...]
    """By how much it may rise from one packet to the next: 1, or 0 for IPv6 and atomic packets (RFC 6864)."""
    pushed: bool
    """TCP's PSH: no packet may follow in the same run."""
    mergeable: bool


def parse(data: bytes, first: int, total: int, udp: bool) -> Packet | None:
    """Look into the whole packet ``data[first:first + total]``; None if no flow can be told.

    That is so for all but TCP and UDP, for IPv4 fragments and options and for IPv6 extension headers. ``udp`` says
    whether UDP is to be merged at all.
    """
    if data[first] >> 4 == 6:
        offset, protocol = IPV6_HEADER, data[first + 6]
    elif data[first] == _NO_OPTIONS:
        offset, protocol = IPV4_HEADER, data[first + 9]
    else:
        return None
    if protocol == TCP and total >= offset + TCP_HEADER:
        return _parse_tcp(data, first, total, offset)
    if protocol == UDP and total >= offset + UDP_HEADER:
        return _parse_udp(data, first, total, offset, udp)
    return None


def _parse_tcp(data: bytes, first: int, total: int, offset: int) -> Packet | None:
    if offset == IPV4_HEADER:
        lead, identification, middle, flow, sequence, rest = _TCP4.unpack_from(data, first)
        if middle & _FRAGMENT:
            return None
        steps = (1, 0) if middle & _DF else (1,)
    else:
        lead, middle, flow, sequence, rest = _TCP6.unpack_from(data, first)
        identification, steps = 0, (0,)
    headers = offset + (rest >> _REST_OFFSET_SHIFT & 15) * 4
    tail = data[first + offset + TCP_CSUM + 2 : first + headers]  # urgent pointer and options
    mergeable = (
        rest >> _REST_FLAGS_SHIFT & _REST_FLAGS_BUT_PSH == ACK
        and offset + TCP_HEADER <= headers < total
        and checksums_valid(data, first, total, offset, TCP)
    )
    fixed = (lead, middle, rest & ~_REST_PSH, tail)
    pushed = rest & _REST_PSH != 0
    return Packet(TCP, offset, headers, total, flow, fixed, sequence, identification, steps, pushed, mergeable)


def _parse_udp(data: bytes, first: int, total: int, offset: int, udp: bool) -> Packet | None:
    if offset == IPV4_HEADER:
        lead, identification, middle, flow, length, checksum = _UDP4.unpack_from(data, first)
        if middle & _FRAGMENT:
            return None
        steps = (1, 0) if middle & _DF else (1,)
    else:
        lead, middle, flow, length, checksum = _UDP6.unpack_from(data, first)
        identification, steps = 0, (0,)
    headers = offset + UDP_HEADER
    mergeable = (
        udp
        and checksum != 0
        and headers < total
        and length == total - offset
        and checksums_valid(data, first, total, offset, UDP)
    )
    return Packet(UDP, offset, headers, total, flow + b"u", (lead, middle), 0, identification, steps, False, mergeable)


class _Layout(NamedTuple):
    """Where the fields are that change within a run, in IP and transport header read as one big-endian number."""

    compared: int
    """Mask: everything but the checksums."""
    constant: int
    """Mask: of that, everything but identification and sequence number."""
    identification: int
    """How far to shift the identification into place."""
    sequence: int
    transport: int
    """How many bits follow the IP header."""


@lru_cache(maxsize=64)
def _layout(protocol: int, offset: int, headers: int) -> _Layout:
    def shift(at: int, size: int) -> int:
        return (headers - at - size) * 8

    checksum = offset + (TCP_CSUM if protocol == TCP else UDP_CSUM)
    ipv4 = offset == IPV4_HEADER
    compared = (1 << headers * 8) - 1 & ~(0xFFFF << shift(checksum, 2))
    if ipv4:
        compared &= ~(0xFFFF << shift(IPV4_CSUM, 2))
    identification = shift(IDENTIFICATION, 2) if ipv4 else 0
    sequence = shift(offset + SEQUENCE, 4) if protocol == TCP else 0
    changing = (0xFFFF << identification if ipv4 else 0) | (0xFFFFFFFF << sequence if protocol == TCP else 0)
    return _Layout(compared, compared & ~changing, identification, sequence, shift(offset, 0))


class Run:
    """An open run and its frame, which lies in an arena at [start, end) and may grow up to ``limit``.

    Begun with a mergeable packet without PSH, of which ``data`` has the bytes.
    """

    __slots__ = (
        "_advance", "_constant", "_expected", "_layout", "end", "identification", "index", "limit", "packet",
        "segments", "sequence", "size", "start", "step",
    )  # fmt: skip

    def __init__(self, packet: Packet, data: bytes, first: int, index: int, start: int, end: int, limit: int) -> None:
        self.packet = packet
        """The first one."""
        self.index = index
        """The frame's place in the order of frames."""
        self.start = start
        self.end = end
        self.limit = limit
        self.size = packet.total - packet.headers
        """The payload of each packet but perhaps the last (gso_size)."""
        self.segments = 1
        self.step = packet.steps[0]
        """By how much the identification rises; settled by the second packet."""
        self._advance = self.size if packet.protocol == TCP else 0
        self._layout = _layout(packet.protocol, packet.offset, packet.headers)
        self._constant = int.from_bytes(data[first : first + packet.headers]) & self._layout.constant
        self._expect(packet.sequence, packet.identification)

    def _expect(self, sequence: int, identification: int) -> None:
        """Expect what comes after a full packet of these numbers."""
        self.identification = identification = identification + self.step & 0xFFFF
        self.sequence = sequence = sequence + self._advance & 0xFFFFFFFF
        layout = self._layout
        self._expected = self._constant | sequence << layout.sequence | identification << layout.identification

    def admits(self, packet: Packet) -> bool:
        """Whether a packet of this flow may be appended."""
        first = self.packet
        if (
            not packet.mergeable
            or packet.sequence != self.sequence
            or packet.fixed != first.fixed
            or packet.total > first.total
            or self.end + packet.total - packet.headers > self.limit
        ):
            return False
        if self.segments > 1:
            return packet.identification == self.identification
        return packet.identification - first.identification & 0xFFFF in packet.steps

    def append(self, frames: memoryview, packet: Packet, data: bytes, first: int) -> bool:
        """Append a packet that is admitted; return whether more may follow."""
        if self.segments == 1:
            self.step = packet.identification - self.packet.identification & 0xFFFF
        if packet.pushed:
            frames[self.start + VNET + packet.offset + TCP_FLAGS] |= PSH
        more = self._grow(frames, data, first + packet.headers, packet.total - packet.headers)
        self._expect(packet.sequence, packet.identification)
        return more and not packet.pushed and packet.total == self.packet.total

    def follows(self, data: bytes, first: int, length: int) -> bool:
        """Whether the ``length`` bytes at ``data[first:]`` begin with just the packet that comes next in a long run.

        This is the quick way for most packets: one comparison for all header fields, and the checksums. False says
        little: a shorter or otherwise peculiar packet may be admitted all the same.
        """
        packet = self.packet
        if length < packet.total or self.end + self.size > self.limit:
            return False
        layout = self._layout
        header = int.from_bytes(data[first : first + packet.headers])
        if header & layout.compared != self._expected:
            return False
        if packet.offset == IPV4_HEADER and (header >> layout.transport) % MODULUS:
            return False
        if packet.protocol == UDP and header & 0xFFFF == 0:
            return False
        return transport_valid(data, first, packet.total, packet.offset, packet.protocol)

    def extend(self, frames: memoryview, data: bytes, first: int) -> bool:
        """Append a packet that follows; return whether more may."""
        more = self._grow(frames, data, first + self.packet.headers, self.size)
        self._expect(self.sequence, self.identification)
        return more

    def _grow(self, frames: memoryview, data: bytes, payload: int, size: int) -> bool:
        end = self.end + size
        frames[self.end : end] = data[payload : payload + size]
        self.end = end
        self.segments += 1
        return self.packet.protocol == TCP or self.segments < MAX_UDP_SEGMENTS

    def finish(self, frames: memoryview) -> None:
        """Make a frame of several packets a super-packet, its checksum left to the device to complete."""
        if self.segments == 1:
            return
        first = self.packet
        packet = self.start + VNET
        transport = packet + first.offset
        length = self.end - packet
        segment = length - first.offset
        tcp = first.protocol == TCP
        if first.offset == IPV4_HEADER:
            gso_type = GSO_TCPV4 if tcp else GSO_UDP_L4
            addresses = frames[packet + 12 : packet + 20]
            _put16(frames, packet + 2, length)
            _put16(frames, packet + IPV4_CSUM, 0)
            _put16(frames, packet + IPV4_CSUM, complement(word_sum(frames[packet:transport])))
        else:
            gso_type = GSO_TCPV6 if tcp else GSO_UDP_L4
            addresses = frames[packet + 8 : packet + 40]
            _put16(frames, packet + 4, segment)
        csum_offset = TCP_CSUM if tcp else UDP_CSUM
        if not tcp:
            _put16(frames, transport + 4, segment)
        _put16(frames, transport + csum_offset, partial(word_sum(addresses) + first.protocol + segment))
        HEADER.pack_into(frames, self.start, NEEDS_CSUM, gso_type, first.headers, self.size, first.offset, csum_offset)


def _put16(frames: memoryview, at: int, value: int) -> None:
    frames[at : at + 2] = value.to_bytes(2, "big")


def transport_valid(data: bytes, first: int, total: int, offset: int, protocol: int) -> bool:
    """Whether the TCP or UDP checksum of the packet ``data[first:first + total]`` holds."""
    # The addresses lie right before the transport header: the two sum up in one go.
    addresses = first + (12 if offset == IPV4_HEADER else 8)
    return (word_sum(data[addresses : first + total]) + protocol + total - offset) % MODULUS == 0


def checksums_valid(data: bytes, first: int, total: int, offset: int, protocol: int) -> bool:
    """Whether the transport checksum, and that of an IPv4 header, hold."""
    if offset == IPV4_HEADER and word_sum(data[first : first + IPV4_HEADER]):
        return False
    return transport_valid(data, first, total, offset, protocol)
