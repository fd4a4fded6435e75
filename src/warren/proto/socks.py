"""SOCKS version 5 (RFC 1928): what a client says to a server, and what it is told; without authentication.

::

    greeting   VER=5  NMETHODS  METHODS…
    choice     VER=5  METHOD
    request    VER=5  CMD  RSV=0  ATYP  DST.ADDR  DST.PORT
    reply      VER=5  REP  RSV=0  ATYP  BND.ADDR  BND.PORT
    datagram   RSV=0  RSV=0  FRAG  ATYP  DST.ADDR  DST.PORT  DATA…

Fields are of one byte, ports of two; an address is 4 or 16 bytes, or a length and so many bytes of a name.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

VERSION: Final = 5
NO_AUTHENTICATION: Final = 0x00
NO_METHOD: Final = 0xFF
CONNECT, BIND, UDP_ASSOCIATE = 1, 2, 3

GRANTED: Final = 0
FAILED: Final = 1
NOT_ALLOWED: Final = 2
HOST_UNREACHABLE: Final = 4
CONNECTION_REFUSED: Final = 5
TTL_EXPIRED: Final = 6
COMMAND_NOT_SUPPORTED: Final = 7
ADDRESS_NOT_SUPPORTED: Final = 8

REQUEST_BYTES_MAX: Final = 4 + 1 + 255 + 2

_IPV4, _NAME, _IPV6 = 1, 3, 4
_HOST_NAME: Final = re.compile(rb"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_UNSPECIFIED: Final = TransportAddress(IPv4Address(0), 0)


class Request(NamedTuple):
    """What a client asks for. ``host`` is an address, or a name that is to be resolved here."""

    command: int
    """CONNECT, BIND, UDP_ASSOCIATE, or one that nobody has defined."""
    host: IPAddress | str
    port: int


class Datagram(NamedTuple):
    """Where a client's datagram is to go; its payload begins at ``offset``."""

    host: IPAddress | str
    port: int
    offset: int


def greeting_untrusted(data: bytes) -> tuple[bytes, int] | None:
    """The methods a client offers and how many bytes said so; None: more is needed. Raises MalformedPacket (§3)."""
    if not data:
        return None
    _check_version(data)
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    end = 2 + data[1]
    return data[2:end], end


def request_untrusted(data: bytes) -> tuple[Request, int] | None:
    """A client's request and its length; None: more is needed. Raises MalformedPacket (§4), of which the argument's
    first word is ``address`` when the kind of address is one that nobody has defined.
    """
    if not data:
        return None
    _check_version(data)
    if len(data) < 4:
        return None
    if data[2]:
        raise MalformedPacket("a reserved byte of a SOCKS request is not zero")
    place = _place(data, 3)
    if place is None:
        return None
    host, port, end = place
    return Request(data[1], host, port), end


def datagram_untrusted(data: bytes) -> Datagram:
    """Raises MalformedPacket (§7); also for a fragment, which those who do not put them together must drop."""
    if len(data) < 4 or data[0] or data[1]:
        raise MalformedPacket("no header of a SOCKS datagram")
    if data[2]:
        raise MalformedPacket("a fragment of a SOCKS datagram")
    place = _place(data, 3)
    if place is None:
        raise MalformedPacket("the header of a SOCKS datagram is cut short")
    host, port, end = place
    if not port:
        raise MalformedPacket("a SOCKS datagram for port 0")
    return Datagram(host, port, end)


def choice(method: int) -> bytes:
    """The server's choice of a method (§3)."""
    return bytes((VERSION, method))


def reply(code: int, bound: TransportAddress | None = None) -> bytes:
    """The server's answer to a request (§6)."""
    return bytes((VERSION, code, 0)) + _pack(bound or _UNSPECIFIED)


def datagram_header(source: TransportAddress) -> bytes:
    """What goes in front of a datagram from ``source`` on its way to the client (§7)."""
    return bytes(3) + _pack(source)


def _check_version(data: bytes) -> None:
    if data[0] != VERSION:
        older = "version 4" if data[0] == 4 else "anything but version 5"
        raise MalformedPacket(f"version: this is {older} of SOCKS")


def _place(data: bytes, at: int) -> tuple[IPAddress | str, int, int] | None:
    """Host, port and where they end; None: more is needed."""
    kind = data[at]
    at += 1
    host: IPAddress | str
    if kind == _NAME:
        if len(data) <= at:
            return None
        at, length = at + 1, data[at]
    elif kind in (_IPV4, _IPV6):
        length = 4 if kind == _IPV4 else 16
    else:
        raise MalformedPacket("address: its kind is not one of RFC 1928")
    end = at + length + 2
    if len(data) < end:
        return None
    raw = bytes(data[at : at + length])
    if kind == _NAME:
        host = _name(raw)
    elif kind == _IPV4:
        host = IPv4Address(raw)
    else:
        host = unmapped(IPv6Address(raw))
    return host, int.from_bytes(data[end - 2 : end]), end


def _name(raw: bytes) -> IPAddress | str:
    """A host name; some clients put addresses there as text."""
    text = raw.decode("ascii", "replace")
    try:
        address = ip_address(text)
    except ValueError:
        pass
    else:
        if isinstance(address, IPv4Address) or address.scope_id is None:
            return unmapped(address)  # judged as what the kernel would connect to
    if not _HOST_NAME.fullmatch(raw):
        raise MalformedPacket("what stands for a host name is none")
    return text


def _pack(place: TransportAddress) -> bytes:
    kind = _IPV4 if place.ip.version == 4 else _IPV6
    return bytes((kind,)) + place.ip.packed + place.port.to_bytes(2)
