"""The PROXY protocol, version 2: who the client is, said in front of a stream by the one who passed it on (HAProxy's
specification of 2020, §2.2).

::

    bytes  0-11  signature 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a
    byte   12    version (2) and command (0 LOCAL: from the proxy itself, 1 PROXY)
    byte   13    family (0 unspecified, 1 IPv4, 2 IPv6, 3 Unix) and transport (0 unspecified, 1 stream, 2 datagram)
    bytes  14-15 how many bytes follow: addresses, ports, then TLVs
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED_BYTES: Final = 16
LENGTH_MAX: Final = 4096
"""What follows the fixed part: addresses are 216 bytes at most, and TLVs of a TLS client with a certificate some
hundred; more than a page of it is somebody who wants us to wait.
"""
_VERSION_1: Final = b"PROXY "
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_BYTES: Final = {0: 0, 1: 12, 2: 36, 3: 216}
_CRC32C: Final = 0x03
"""PP2_TYPE_CRC32C, §2.2.4."""


class Header(NamedTuple):
    """What it says. Without addresses (``local``, Unix or unspecified ones) the stream's own ends count."""

    source: TransportAddress | None
    destination: TransportAddress | None
    local: bool = False
    """The one who passes it on speaks for itself (a health check)."""


def encode(source: TransportAddress | None, destination: TransportAddress | None, *, local: bool = False) -> bytes:
    """The header of a TCP stream. ``source`` None: the client has no address; ``destination`` None: the one in the
    header is unspecified. Addresses of two families are both written as IPv6 (RFC 4291 §2.5.5.2).
    """
    if local or source is None:
        return SIGNATURE + bytes((_LOCAL if local else _PROXY, 0, 0, 0))
    ips = (source.ip, IPv6Address(0) if destination is None else destination.ip)
    if source.ip.version == 4 and (destination is None or ips[1].version == 4):
        first = source.ip.packed
        second = bytes(4) if destination is None else ips[1].packed
        family = 0x11
    else:
        first, second = (_as_ipv6(ip) for ip in ips)
        family = 0x21
    ports = struct.pack("!HH", source.port, 0 if destination is None else destination.port)
    body = first + second + ports
    return SIGNATURE + struct.pack("!BBH", _PROXY, family, len(body)) + body


def missing_untrusted(data: bytes) -> int:
    """How many more bytes of the header have to be read, at least; 0: it is whole. Nothing behind the header is ever
    asked for. Raises MalformedPacket as soon as ``data`` cannot become one.
    """
    _check_beginning(data)
    if len(data) < FIXED_BYTES:
        return FIXED_BYTES - len(data)
    length: int = struct.unpack_from("!H", data, 14)[0]
    if length > LENGTH_MAX:
        raise MalformedPacket(f"the PROXY header says {length} bytes follow; {LENGTH_MAX} at most are taken")
    return max(0, FIXED_BYTES + length - len(data))


def decode_untrusted(data: bytes) -> tuple[Header, int] | None:
    """The header that ``data`` begins with and its length; None: more is needed. Raises MalformedPacket."""
    if missing_untrusted(data):
        return None
    command, kind, length = struct.unpack_from("!BBH", data, 12)
    end = FIXED_BYTES + length
    if command not in {_LOCAL, _PROXY}:
        raise MalformedPacket(f"version and command {command:#04x} are none of the PROXY protocol")
    family, transport = kind >> 4, kind & 15
    if family not in _ADDRESS_BYTES or transport > 2:
        raise MalformedPacket(f"family and transport {kind:#04x} are none of the PROXY protocol")
    if command == _LOCAL:  # §2.2: whatever else it says is to be ignored
        return Header(None, None, local=True), end
    if transport == 2:
        raise MalformedPacket("the PROXY header speaks of datagrams, this is a stream")
    size = _ADDRESS_BYTES[family] if transport else 0
    if length < size:
        raise MalformedPacket("the PROXY header is too short for its addresses")
    if kind:  # §2.2: of an unspecified one nothing may be assumed, not even TLVs
        _check_tlvs(data[:end], FIXED_BYTES + size)
    if kind not in {0x11, 0x21}:
        return Header(None, None), end
    half = 4 if family == 1 else 16
    source, destination = data[16 : 16 + half], data[16 + half : 16 + 2 * half]
    ports = struct.unpack_from("!HH", data, 16 + 2 * half)
    header = Header(TransportAddress(_ip(source), ports[0]), TransportAddress(_ip(destination), ports[1]))
    return header, end


def _check_beginning(data: bytes) -> None:
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return
    if data[: len(_VERSION_1)] == _VERSION_1[: len(data)]:
        raise MalformedPacket("the stream begins with version 1 of the PROXY protocol: set the sender to version 2")
    raise MalformedPacket("the stream does not begin with a PROXY header (version 2)")


def _check_tlvs(data: bytes, at: int) -> None:
    """§2.2: type, length, value; a checksum has to be right (§2.2.4), and there is one at most."""
    checked = False
    while at < len(data):
        if at + 3 > len(data):
            raise MalformedPacket("the PROXY header ends within a TLV")
        kind, length = struct.unpack_from("!BH", data, at)
        at += 3
        if at + length > len(data):
            raise MalformedPacket("a TLV of the PROXY header is longer than the header")
        if kind == _CRC32C:
            if length != 4 or checked:
                raise MalformedPacket("the PROXY header has no proper checksum")
            checked = True
            told: int = struct.unpack_from("!I", data, at)[0]
            if crc32c(data[:at] + bytes(4) + data[at + 4 :]) != told:
                raise MalformedPacket("the checksum of the PROXY header is wrong")
        at += length


def crc32c(data: bytes) -> int:
    """RFC 3720 appendix B.4 (Castagnoli)."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _table() -> tuple[int, ...]:
    made = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        made.append(value)
    return tuple(made)


_TABLE: Final = _table()


def _as_ipv6(ip: IPAddress) -> bytes:
    return ip.packed if isinstance(ip, IPv6Address) else bytes(10) + b"\xff\xff" + ip.packed


def _ip(packed: bytes) -> IPAddress:
    return IPv4Address(packed) if len(packed) == 4 else unmapped(IPv6Address(packed))
