"""Damaging one bit of an IP packet where the receiver's stack, or the program behind it, will meet it."""

from __future__ import annotations

import random

_UDP = 17
_UDP_HEADER_BYTES = 8
_UDP_CHECKSUM_AT = 6
_IPV4_HEADER_BYTES, _IPV6_HEADER_BYTES = 20, 40


def flip_one_bit(packet: bytes, rng: random.Random, *, pass_udp: bool) -> bytes:
    """A copy of an IP packet with one bit behind its IP header inverted; itself when nothing is behind it.

    With ``pass_udp`` the bit of a UDP datagram is one of its payload and the checksum is made to agree. Draws twice
    from ``rng``, whatever the packet.
    """
    where, bit = rng.random(), 1 << rng.getrandbits(3)
    if len(packet) < _IPV4_HEADER_BYTES:
        return packet
    header, protocol = _transport(packet)
    repairs = pass_udp and protocol == _UDP and len(packet) > header + _UDP_HEADER_BYTES
    start = header + _UDP_HEADER_BYTES if repairs else header
    if start >= len(packet):
        return packet
    damaged = bytearray(packet)
    at = start + int(where * (len(packet) - start))
    damaged[at] ^= bit
    if repairs:
        _repair_udp_checksum(damaged, header, at, packet[at])
    return bytes(damaged)


def _transport(packet: bytes) -> tuple[int, int]:
    """Where the transport header begins, and its protocol (for IPv6 that of the first header)."""
    if packet[0] >> 4 == 4:
        return (packet[0] & 0x0F) * 4, packet[9]
    return _IPV6_HEADER_BYTES, packet[6]


def _repair_udp_checksum(packet: bytearray, header: int, at: int, before: int) -> None:
    """Make the UDP checksum agree with the byte at ``at``, which was ``before``. RFC 1624 §3, equation 3."""
    field = header + _UDP_CHECKSUM_AT
    checksum = int.from_bytes(packet[field : field + 2])
    if checksum == 0:  # RFC 768: the sender made none
        return
    shift = 0 if (at - header) % 2 else 8
    total = (~checksum & 0xFFFF) + (~(before << shift) & 0xFFFF) + (packet[at] << shift)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    packet[field : field + 2] = (~total & 0xFFFF or 0xFFFF).to_bytes(2)
