"""Where data connections go, as commands and replies write it (RFC 959 §5.3.2, RFC 2428 §2 and §3)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, ip_address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.ip import unmapped
from warren.model.tunnel import TransportAddress

_NUMBERS: Final = re.compile(rb"([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})")
_EPSV: Final = re.compile(rb"\(([!-/:-~])\1\1([0-9]{1,5})\1\)")
_EPRT: Final = re.compile(rb"([!-/:-~])([0-9]{1,5})\1([0-9A-Fa-f:.]{2,45})\1([0-9]{1,5})\1")
_PROTOCOLS: Final = {1: 4, 2: 6}  # address family numbers, RFC 2428 §2


class OtherProtocol(MalformedPacket):
    """Well-formed, but neither of IPv4 nor of IPv6: answered by 522."""


def decode_port_untrusted(argument: bytes) -> TransportAddress:
    """The argument of PORT, ``h1,h2,h3,h4,p1,p2``. Raises MalformedPacket."""
    match = _NUMBERS.fullmatch(argument.strip())
    if match is None:
        raise MalformedPacket("PORT: not six numbers")
    return _six(match)


def decode_eprt_untrusted(argument: bytes) -> TransportAddress:
    """The argument of EPRT, ``|2|2001:db8::7|5282|`` with any delimiter. Raises MalformedPacket, or OtherProtocol."""
    match = _EPRT.fullmatch(argument.strip())
    if match is None:
        raise MalformedPacket("EPRT: not protocol, address and port")
    version = _PROTOCOLS.get(int(match[2]))
    if version is None:
        raise OtherProtocol("EPRT: a protocol of its own")
    try:
        address = ip_address(match[3].decode("ascii"))
    except ValueError:
        raise MalformedPacket("EPRT: no address") from None
    if address.version != version:
        raise MalformedPacket("EPRT: an address of another protocol")
    return TransportAddress(unmapped(address), _port(int(match[4])))


def pasv_reply_untrusted(text: bytes) -> TransportAddress:
    """What a 227 says. The parentheses are no part of it that can be relied on (RFC 1123 §4.1.2.6). Raises
    MalformedPacket.
    """
    match = _NUMBERS.search(text)
    if match is None:
        raise MalformedPacket("227: no six numbers")
    return _six(match)


def epsv_reply_untrusted(text: bytes) -> int:
    """The port in a 229. Raises MalformedPacket, also when an address is named (RFC 2428 §3 leaves it empty)."""
    match = _EPSV.search(text)
    if match is None:
        raise MalformedPacket("229: no port")
    return _port(int(match[2]))


def encode_pasv(where: TransportAddress) -> bytes:
    """``h1,h2,h3,h4,p1,p2``, for a 227 or PORT; of IPv4 alone."""
    return b",".join(b"%d" % octet for octet in (*where.ip.packed, *divmod(where.port, 256)))


def _six(match: re.Match[bytes]) -> TransportAddress:
    numbers = [int(group) for group in match.groups()]
    if max(numbers) > 255:
        raise MalformedPacket("a number above 255")
    return TransportAddress(IPv4Address(bytes(numbers[:4])), _port(numbers[4] << 8 | numbers[5]))


def _port(port: int) -> int:
    if not 1 <= port <= 65_535:
        raise MalformedPacket("no such port")
    return port
