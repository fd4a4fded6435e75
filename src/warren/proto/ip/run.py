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

MAX_TCP_SEGMENTS: Final = 65535
"""No bound: a frame is full before."""
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

    constant: int
    """Mask: all that stays the same."""
    compared: int
    """Mask: everything but the checksums."""
    identification: int
    """How far to shift an identification into place."""
    sequence: int
    """How far to shift a sequence number into place."""
    ip_header: int
    """How far to shift an IPv4 header out; 0 for IPv6."""


@lru_cache(maxsize=64)
def _layout(protocol: int, offset: int, headers: int) -> _Layout:
    def shift(at: int, size: int) -> int:
        return (headers - at - size) * 8

    tcp, ipv4 = protocol == TCP, offset == IPV4_HEADER
    compared = (1 << headers * 8) - 1 & ~(0xFFFF << shift(offset + (TCP_CSUM if tcp else UDP_CSUM), 2))
    constant, identification, sequence = compared, 0, 0
    if ipv4:
        identification = shift(IDENTIFICATION, 2)
        compared &= ~(0xFFFF << shift(IPV4_CSUM, 2))
        constant = compared & ~(0xFFFF << identification)
    if tcp:
        sequence = shift(offset + SEQUENCE, 4)
        constant &= ~(0xFFFFFFFF << sequence)
    return _Layout(constant, compared, identification, sequence, shift(offset, 0) if ipv4 else 0)


class Run:
    """An open run and its frame, which lies in an arena at [start, end) and may grow up to ``limit``.

    Begun with a mergeable packet without PSH, of which ``data`` has the bytes.
    """

    __slots__ = (
        "_addresses", "_advance", "_compared", "_constant", "_expected", "_headers", "_identification_shift",
        "_ip_shift", "_most", "_pseudo", "_sequence_shift", "_total", "end", "identification", "index", "limit",
        "packet", "segments", "sequence", "size", "start", "step",
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
        self._most = MAX_UDP_SEGMENTS if packet.protocol == UDP else MAX_TCP_SEGMENTS
        # What `follows` needs, in the form in which it is quick.
        self._headers = packet.headers
        self._total = packet.total
        self._addresses = addresses_offset(packet.offset)
        self._pseudo = packet.protocol + packet.total - packet.offset
        self._advance = self.size if packet.protocol == TCP else 0
        layout = _layout(packet.protocol, packet.offset, packet.headers)
        self._compared, self._identification_shift, self._sequence_shift, self._ip_shift = layout[1:]
        self._constant = int.from_bytes(data[first : first + packet.headers]) & layout.constant
        self._expect(packet.sequence, packet.identification)

    def _expect(self, sequence: int, identification: int) -> None:
        """Expect what comes after a full packet of these numbers."""
        self.identification = identification = identification + self.step & 0xFFFF
        self.sequence = sequence = sequence + self._advance & 0xFFFFFFFF
        self._expected = (
            self._constant | sequence << self._sequence_shift | identification << self._identification_shift
        )

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
        self._grow(frames, data[first + packet.headers : first + packet.total])
        self._expect(packet.sequence, packet.identification)
        return self.segments < self._most and not packet.pushed and packet.total == self.packet.total

    def follows(self, data: bytes, first: int, length: int) -> bool:
        """Whether the ``length`` bytes at ``data[first:]`` begin with just the packet that comes next in a long run.

        This is the quick way for most packets: one comparison for all header fields, and the checksums. False says
        little: a shorter or otherwise peculiar packet may be admitted all the same.
        """
        header = int.from_bytes(data[first : first + self._headers])
        if header & self._compared != self._expected or length < self._total or self.end + self.size > self.limit:
            return False
        if self._ip_shift and (header >> self._ip_shift) % MODULUS:
            return False
        if header & 0xFFFF == 0 and self.packet.protocol == UDP:
            return False
        return (word_sum(data[first + self._addresses : first + self._total]) + self._pseudo) % MODULUS == 0

    def extend(self, frames: memoryview, data: bytes, first: int) -> bool:
        """Append a packet that follows; return whether more may."""
        self._grow(frames, data[first + self._headers : first + self._total])
        self._expect(self.sequence, self.identification)
        return self.segments < self._most

    def _grow(self, frames: memoryview, payload: bytes) -> None:
        start = self.end
        self.end = end = start + len(payload)
        frames[start:end] = payload
        self.segments += 1

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


def addresses_offset(offset: int) -> int:
    """Where the addresses are in an IP header of this length. The transport header is right behind them."""
    return 12 if offset == IPV4_HEADER else 8


def checksums_valid(data: bytes, first: int, total: int, offset: int, protocol: int) -> bool:
    """Whether the TCP or UDP checksum of the packet ``data[first:first + total]``, and an IPv4 header's, hold."""
    if offset == IPV4_HEADER and word_sum(data[first : first + IPV4_HEADER]):
        return False
    # The addresses sum up with the rest in one go.
    return (word_sum(data[first + addresses_offset(offset) : first + total]) + protocol + total - offset) % MODULUS == 0
