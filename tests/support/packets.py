"""Inner packets for tests: small, valid, and made by code that shares nothing with the product."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address


def rfc1071(data: bytes) -> int:
    """The Internet checksum, word by word as RFC 1071 §4.1 writes it."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in struct.iter_unpack(">H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_packet(source: str, destination: str, payload: bytes, ports: tuple[int, int] = (4000, 5000)) -> bytes:
    """A complete IPv4 or IPv6 packet with one UDP datagram."""
    src, dst = ip_address(source), ip_address(destination)
    length = 8 + len(payload)
    pseudo = src.packed + dst.packed + struct.pack(">I", length) + b"\0\0\0\x11"
    if isinstance(src, IPv4Address):
        pseudo = src.packed + dst.packed + struct.pack(">BBH", 0, 17, length)
    bare = struct.pack(">HHHH", *ports, length, 0) + payload
    checksum = rfc1071(pseudo + bare) or 0xFFFF
    udp = struct.pack(">HHHH", *ports, length, checksum) + payload
    if isinstance(src, IPv4Address):
        header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0x4000, 64, 17, 0, src.packed, dst.packed)
        return header[:10] + struct.pack(">H", rfc1071(header)) + header[12:] + udp
    return struct.pack(">IHBB", 0x60000000, length, 17, 64) + src.packed + dst.packed + udp
