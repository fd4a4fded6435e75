"""Packets that ask whether a door is open, made by code that shares nothing with the product.

Each is complete, with valid checksums, so that whoever drops it has decided to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from tests.support.packets import rfc1071

TCP, UDP, ICMP4, ICMP6 = 6, 17, 1, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY = 0, 43, 44, 51, 60, 135
SYN, ACK, RST = 0x02, 0x10, 0x04
_SOURCE_PORT = 40_000


class Header(NamedTuple):
    """An IPv6 extension header: its number and its bytes after the next-header byte."""

    number: int
    rest: bytes


OPTIONS = b"\0\x01\x04\0\0\0\0"
"""What follows the next-header byte of a hop-by-hop or destination options header with nothing in it but padding."""


def ip_packet(source: str, destination: str, protocol: int, payload: bytes, headers: Sequence[Header] = ()) -> bytes:
    """``payload`` from ``source`` to ``destination``, IPv6 extension headers before it."""
    src, dst = ip_address(source), ip_address(destination)
    if isinstance(src, IPv6Address):
        chain, first = b"", protocol
        for header in reversed(headers):
            chain, first = bytes([first]) + header.rest + chain, header.number
        return (
            struct.pack(">IHBB", 0x60000000, len(chain) + len(payload), first, 64)
            + src.packed
            + dst.packed
            + chain
            + payload
        )
    fixed = (0x45, 0, 20 + len(payload), 1, 0x4000, 64, protocol)
    bare = struct.pack(">BBHHHBBH4s4s", *fixed, 0, src.packed, dst.packed)
    return struct.pack(">BBHHHBBH4s4s", *fixed, rfc1071(bare), src.packed, dst.packed) + payload


def fragments4(packet: bytes, first_bytes: int) -> tuple[bytes, bytes]:
    """An IPv4 packet in two, the first with that many bytes (a multiple of 8) of payload."""
    pieces = ((packet[20 : 20 + first_bytes], 0x2000), (packet[20 + first_bytes :], first_bytes // 8))
    result = []
    for piece, field in pieces:
        bare = packet[:2] + struct.pack(">HHH", 20 + len(piece), 7, field) + packet[8:10] + b"\0\0" + packet[12:20]
        result.append(bare[:10] + struct.pack(">H", rfc1071(bare)) + bare[12:] + piece)
    return result[0], result[1]


def fragment_header(offset: int, more: bool, identification: int = 7) -> Header:
    """IPv6 (RFC 8200 §4.5); ``offset`` in bytes, a multiple of 8."""
    return Header(FRAGMENT, b"\0" + struct.pack(">HI", offset | more, identification))


def fragments6(
    source: str, destination: str, protocol: int, payload: bytes, first_bytes: int, identification: int = 7
) -> tuple[bytes, bytes]:
    """An IPv6 packet in two fragments."""
    first = fragment_header(0, more=True, identification=identification)
    second = fragment_header(first_bytes, more=False, identification=identification)
    return (
        ip_packet(source, destination, protocol, payload[:first_bytes], [first]),
        ip_packet(source, destination, protocol, payload[first_bytes:], [second]),
    )


def udp(source: str, destination: str, port: int, *, source_port: int = _SOURCE_PORT, data: bytes = b"") -> bytes:
    """A UDP datagram, without its IP header."""
    bare = struct.pack(">HHHH", source_port, port, 8 + len(data), 0) + data
    checksum = _checksum(source, destination, UDP, bare) or 0xFFFF
    return bare[:6] + struct.pack(">H", checksum) + bare[8:]


def tcp(
    source: str,
    destination: str,
    port: int,
    *,
    source_port: int = _SOURCE_PORT,
    flags: int = SYN,
    sequence: int = 1000,
    acknowledge: int = 0,
    data: bytes = b"",
) -> bytes:
    """A TCP segment, without its IP header."""
    bare = struct.pack(">HHIIBBHHH", source_port, port, sequence, acknowledge, 0x50, flags, 64_000, 0, 0) + data
    return bare[:16] + struct.pack(">H", _checksum(source, destination, TCP, bare)) + bare[18:]


def echo(source: str, destination: str, *, identifier: int = 1, data: bytes = b"") -> bytes:
    """An ICMP or ICMPv6 echo request, without its IP header."""
    if ip_address(source).version == 4:
        bare = struct.pack(">BBHHH", 8, 0, 0, identifier, 1) + data
        return bare[:2] + struct.pack(">H", rfc1071(bare)) + bare[4:]
    bare = struct.pack(">BBHHH", 128, 0, 0, identifier, 1) + data
    return bare[:2] + struct.pack(">H", _checksum(source, destination, ICMP6, bare)) + bare[4:]


def port_unreachable(source: str, about: bytes) -> bytes:
    """The ICMP error that ``source`` sends to the sender of the packet ``about``."""
    if about[0] >> 4 == 4:
        destination = str(ip_address(about[12:16]))
        bare = struct.pack(">BBHI", 3, 3, 0, 0) + about
        return ip_packet(source, destination, ICMP4, bare[:2] + struct.pack(">H", rfc1071(bare)) + bare[4:])
    destination = str(ip_address(about[8:24]))
    bare = struct.pack(">BBHI", 1, 4, 0, 0) + about
    checksum = struct.pack(">H", _checksum(source, destination, ICMP6, bare))
    return ip_packet(source, destination, ICMP6, bare[:2] + checksum + bare[4:])


def _checksum(source: str, destination: str, protocol: int, bare: bytes) -> int:
    src, dst = ip_address(source), ip_address(destination)
    if src.version == 4:
        return rfc1071(src.packed + dst.packed + struct.pack(">BBH", 0, protocol, len(bare)) + bare)
    return rfc1071(src.packed + dst.packed + struct.pack(">II", len(bare), protocol) + bare)
