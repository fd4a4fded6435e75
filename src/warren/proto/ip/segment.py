"""Outbound: one frame read from TUN becomes the slots of a train, ready to be sealed.

A train is a run of datagrams back to back, all of one length (the stride) but the last. Each slot leaves room around
its packet for what WireGuard adds in place::

    | HEADROOM 16 | packet | zeros to a multiple of 16 | TAILROOM 16 |
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from warren.proto.ip.checksum import MODULUS, complement, word_sum
from warren.proto.ip.headers import (
    CWR,
    FIN,
    IPV4_HEADER,
    IPV6_HEADER,
    PSH,
    TCP,
    TCP_CSUM,
    TCP_HEADER,
    UDP,
    UDP_HEADER,
    transport_offset,
)
from warren.proto.ip.virtio import GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER, NEEDS_CSUM, VNET

HEADROOM: Final = 16
TAILROOM: Final = 16
MALFORMED: Final = -1
NO_ROOM: Final = -2
MAX_PACKET: Final = 65535
PORTS: Final = 4
"""Bytes of the ports that TCP and UDP begin with."""

_IPV4_VARYING: Final = struct.Struct("!HHIH")  # at 2: total length, identification, (fragment, TTL, protocol), checksum
_TCP_VARYING: Final = struct.Struct("!IIHH")  # behind the ports: sequence, acknowledgement, (offset, flags), window


def split(
    frame: bytes | bytearray | memoryview, length: int, out: bytearray, at: int, mtu: int
) -> tuple[int, int, int]:
    """Turn one TUN frame into slots of a train in ``out``, segmented and with every checksum complete.

    ``frame[:length]`` is a virtio header and an IP packet of at most 65,535 bytes. Slot i starts at ``out[at + i *
    stride]``; its packet is zero-padded to a multiple of 16, but not beyond ``max(mtu, packet length)`` (WireGuard
    §5.4.6). Returns ``(count, stride, end)``: the slots fill ``out[at:end]`` and all but the last are ``stride`` bytes.
    A count of 0 means that nothing was written, and the stride is the reason: MALFORMED or NO_ROOM.

    A super-packet (TCPv4, TCPv6, UDP_L4) is cut as the kernel would: rising IPv4 identification and TCP sequence, FIN
    and PSH on the last segment only, CWR on the first only. Where the headers end is read from the packet;
    ``csum_start`` must agree, ``hdr_len`` is not trusted. Raises ValueError for a length or position outside its
    buffer.
    """
    if not 0 <= length <= len(frame) or not 0 <= at <= len(out) or mtu < 0:
        raise ValueError("the frame or the position lies outside its buffer")
    if length < VNET + IPV4_HEADER:
        return 0, MALFORMED, at
    flags, gso_type, _, gso_size, csum_start, csum_offset = HEADER.unpack_from(frame)
    packet = bytes(memoryview(frame)[VNET:length])
    header = _ip_header_length(packet)
    if not header or len(packet) > MAX_PACKET:
        return 0, MALFORMED, at
    if gso_type == GSO_NONE:
        if flags & NEEDS_CSUM and (csum_start < header or csum_start + csum_offset + 2 > len(packet)):
            return 0, MALFORMED, at
        end = at + HEADROOM + padded(len(packet), mtu) + TAILROOM
        if end > len(out):
            return 0, NO_ROOM, at
        _put_single(packet, out, at, end, csum_start + csum_offset if flags & NEEDS_CSUM else 0, csum_start)
        return 1, end - at, end
    return _put_segments(packet, gso_type & ~GSO_ECN, gso_size, csum_start, out, at, mtu)


def padded(length: int, mtu: int) -> int:
    """The length of a packet with its padding: up to a multiple of 16, but not beyond the MTU (WireGuard §5.4.6)."""
    filled = length + 15 & ~15
    return filled if filled <= mtu else max(mtu, length)


def _ip_header_length(packet: bytes) -> int:
    """The length of the IPv4 header or of the fixed IPv6 header, 0 if neither fits."""
    version = packet[0] >> 4
    if version == 4:
        header = (packet[0] & 15) * 4
        return header if IPV4_HEADER <= header <= len(packet) else 0
    return IPV6_HEADER if version == 6 and len(packet) >= IPV6_HEADER else 0


def _put_single(packet: bytes, out: bytearray, at: int, end: int, field: int, start: int) -> None:
    """Write one packet as the slot ``out[at:end]``; a nonzero ``field`` is where its checksum from ``start`` goes."""
    first = at + HEADROOM
    out[first : end - TAILROOM] = packet + bytes(end - TAILROOM - first - len(packet))
    if field:
        # The field already holds the pseudo-header's sum. 0 would mean "none" to UDP, so the other zero is written.
        checksum = complement(word_sum(packet[start:])) or 0xFFFF
        out[first + field : first + field + 2] = checksum.to_bytes(2, "big")


def _put_segments(
    packet: bytes, gso_type: int, gso_size: int, csum_start: int, out: bytearray, at: int, mtu: int
) -> tuple[int, int, int]:
    """Cut a super-packet; arguments and result as in :func:`split`."""
    version = packet[0] >> 4
    if gso_type in (GSO_TCPV4, GSO_TCPV6):
        protocol, smallest = TCP, TCP_HEADER
        if version != (4 if gso_type == GSO_TCPV4 else 6):
            return 0, MALFORMED, at
    elif gso_type == GSO_UDP_L4:
        protocol, smallest = UDP, UDP_HEADER
    else:
        return 0, MALFORMED, at
    transport = transport_offset(packet, protocol)
    if not transport or transport != csum_start or transport + smallest > len(packet):
        return 0, MALFORMED, at
    size = (packet[transport + 12] >> 4) * 4 if protocol == TCP else UDP_HEADER
    headers = transport + size
    payload = len(packet) - headers
    longest = headers + min(gso_size, payload)
    if size < smallest or payload <= 0 or gso_size == 0:
        return 0, MALFORMED, at

    count = -(-payload // gso_size)
    stride = HEADROOM + padded(longest, mtu) + TAILROOM
    tail = HEADROOM + padded(headers + payload - (count - 1) * gso_size, mtu) + TAILROOM
    end = at + (count - 1) * stride + tail
    if end > len(out):
        return 0, NO_ROOM, at
    if protocol == TCP:
        _put_tcp(packet, transport, headers, gso_size, out, at, mtu)
    else:
        _put_udp(packet, transport, gso_size, out, at, mtu)
    return count, stride, end


class _IpHead:
    """Makes what comes before the changing part of a segment's transport header: the IP header and the ports."""

    __slots__ = ("_fixed", "_identification", "_ipv4", "_lead", "_middle", "_rest", "pseudo")

    def __init__(self, packet: bytes, transport: int, protocol: int) -> None:
        self._ipv4 = packet[0] >> 4 == 4
        _, self._identification, self._middle, _ = _IPV4_VARYING.unpack_from(packet, 2)
        self._rest = packet[12 if self._ipv4 else 6 : transport + PORTS]
        self._fixed = word_sum(packet[:2] + packet[6:10] + packet[12:transport])
        self.pseudo = word_sum(packet[12:20] if self._ipv4 else packet[8:40]) + protocol
        """The pseudo-header's sum (RFC 9293 §3.1, RFC 8200 §8.1) but for the length."""
        self._lead = packet[:2] if self._ipv4 else packet[:4]

    def make(self, length: int, index: int) -> bytes:
        """The head of segment ``index``, a packet of ``length`` bytes."""
        if not self._ipv4:
            return self._lead + (length - IPV6_HEADER).to_bytes(2, "big") + self._rest
        identification = self._identification + index & 0xFFFF
        checksum = -(self._fixed + length + identification) % MODULUS
        return self._lead + _IPV4_VARYING.pack(length, identification, self._middle, checksum) + self._rest


@lru_cache(maxsize=256)
def _tcp_layout(transport: int, headers: int, size: int, padding: int) -> struct.Struct:
    """A whole slot: head; sequence, acknowledgement, offset and flags, window, checksum; the rest; payload; zeros."""
    return struct.Struct(f"!{transport + PORTS}sIIHHH{headers - transport - 18}s{size}s{padding}x")


@lru_cache(maxsize=256)
def _udp_layout(transport: int, size: int, padding: int) -> struct.Struct:
    """A whole slot: head; length, checksum; payload; zeros."""
    return struct.Struct(f"!{transport + PORTS}sHH{size}s{padding}x")


def _put_tcp(packet: bytes, transport: int, headers: int, gso_size: int, out: bytearray, at: int, mtu: int) -> None:
    """Write the slots of a TCP super-packet from ``out[at]``; the caller has made sure that they fit."""
    head = _IpHead(packet, transport, TCP)
    tail = packet[transport + TCP_CSUM + 2 : headers]
    sequence, acknowledgement, last_flags, window = _TCP_VARYING.unpack_from(packet, transport + PORTS)
    fixed = head.pseudo - transport + word_sum(packet[transport : transport + PORTS] + tail)
    fixed += acknowledgement + window
    flags = last_flags & ~(FIN | PSH)
    length = headers + gso_size
    layout = _tcp_layout(transport, headers, gso_size, padded(length, mtu) - length)
    final = len(packet) - gso_size
    first = at + HEADROOM
    for index, position in enumerate(range(headers, len(packet), gso_size)):
        if position >= final:
            length = headers + len(packet) - position
            layout = _tcp_layout(transport, headers, length - headers, padded(length, mtu) - length)
            flags = last_flags if index == 0 else last_flags & ~CWR
        payload = packet[position : position + gso_size]
        checksum = -(fixed + length + sequence + flags + word_sum(payload)) % MODULUS
        start = head.make(length, index)
        layout.pack_into(out, first, start, sequence, acknowledgement, flags, window, checksum, tail, payload)
        sequence = sequence + gso_size & 0xFFFFFFFF
        flags &= ~CWR
        first += layout.size + TAILROOM + HEADROOM


def _put_udp(packet: bytes, transport: int, gso_size: int, out: bytearray, at: int, mtu: int) -> None:
    """Write the slots of a UDP super-packet from ``out[at]``; the caller has made sure that they fit."""
    head = _IpHead(packet, transport, UDP)
    fixed = head.pseudo + word_sum(packet[transport : transport + PORTS])
    first = at + HEADROOM
    for index, position in enumerate(range(transport + UDP_HEADER, len(packet), gso_size)):
        payload = packet[position : position + gso_size]
        size = UDP_HEADER + len(payload)
        length = transport + size
        # The length counts twice: in the pseudo-header and in the header. 0 would mean "no checksum" (RFC 768).
        checksum = -(fixed + 2 * size + word_sum(payload)) % MODULUS or 0xFFFF
        layout = _udp_layout(transport, len(payload), padded(length, mtu) - length)
        layout.pack_into(out, first, head.make(length, index), size, checksum, payload)
        first += layout.size + TAILROOM + HEADROOM
