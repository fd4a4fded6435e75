"""What a data plane and its controller say to each other on a socket that keeps messages apart (``unix(7)``,
SOCK_SEQPACKET): one value, one message. All integers are big-endian.

::

    0      1      2                25                   50
    +------+------+----------------+--------------------+-----------
    |   1  |flags | remote (23)    | way (25)           | data          a control datagram, either way
    |   2  |   0  | remote (23)    | way (25)           | key (32)      PeerHeard, from the data plane
    |   3  |   0  | key (32)                                            PathWanted, from the data plane
    |   4  |number|                                                     Hello, from the data plane: sockets it has
    |   5  |number|                                                     HandOver, with the socket (SCM_RIGHTS)
    |   6  |number|                                                     TakeBack
    +------+------+

A remote is family (4 or 6), address (16), port (2) and scope (4); a way is family (0: no source), source (16),
interface (4), channel (2) and socket (2). An IPv4 address is followed by zeros. In Hello a byte of its own follows for
each socket, and the number is how many.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from warren.errors import MalformedPacket
from warren.identity.keys import PublicKey
from warren.model.datagrams import DATAGRAM_BYTES_MAX, ControlDatagram, PathWanted, PeerHeard
from warren.model.tunnel import IPAddress, TransportAddress, Way

_DATAGRAM, _HEARD, _WANTED, _HELLO, _HAND_OVER, _TAKE_BACK = range(1, 7)
_DONT_FRAGMENT: Final = 1
_KEY_BYTES: Final = 32
_INTERFACE_MAX: Final = 0x7FFFFFFF
"""An interface index is a positive ``int`` (``ip(7)``)."""

_head = struct.Struct("!BB")
_routed = struct.Struct("!BB B16sHI B16sIHH")
MESSAGE_BYTES_MAX: Final = _routed.size + DATAGRAM_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message: the data plane listens to you, and has these sockets of whoever was there before."""

    sockets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HandOver:
    """The socket in the same message is number ``number`` from now on."""

    number: int


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Close socket ``number``."""

    number: int


Message = ControlDatagram | PeerHeard | PathWanted | Hello | HandOver | TakeBack


def pack(message: Message) -> bytes:
    """Raises ValueError for a datagram longer than DATAGRAM_BYTES_MAX, and for a number beyond a byte."""
    match message:
        case ControlDatagram(data, remote, way, dont_fragment):
            if len(data) > DATAGRAM_BYTES_MAX:
                raise ValueError(f"a control datagram has at most {DATAGRAM_BYTES_MAX} bytes")
            return _pack_routed(_DATAGRAM, _DONT_FRAGMENT if dont_fragment else 0, remote, way) + data
        case PeerHeard(public_key, remote, way):
            return _pack_routed(_HEARD, 0, remote, way) + public_key.raw
        case PathWanted(public_key):
            return _head.pack(_WANTED, 0) + public_key.raw
        case Hello(sockets):
            return _head.pack(_HELLO, len(sockets)) + bytes(sockets)
        case HandOver(number):
            return bytes((_HAND_OVER, number))
        case TakeBack(number):
            return bytes((_TAKE_BACK, number))


def _pack_routed(kind: int, flags: int, remote: TransportAddress, way: Way) -> bytes:
    source = way.source
    return _routed.pack(
        kind, flags,
        remote.ip.version, remote.ip.packed, remote.port, remote.scope,
        source.version if source is not None else 0, source.packed if source is not None else b"",
        way.interface, way.channel, way.socket,
    )  # fmt: skip


def unpack_untrusted(data: bytes) -> Message:
    """The inverse of :func:`pack`. Raises MalformedPacket."""
    if len(data) < _head.size:
        raise MalformedPacket("a message on the control port has a kind and one byte more")
    kind, number = _head.unpack_from(data)
    rest = data[_head.size :]
    if kind in (_DATAGRAM, _HEARD):
        return _unpack_routed(kind, data)
    if kind == _WANTED and number == 0 and len(rest) == _KEY_BYTES:
        return PathWanted(PublicKey(rest))
    if kind == _HELLO and len(rest) == number:
        return Hello(tuple(rest))
    if kind in (_HAND_OVER, _TAKE_BACK) and not rest:
        return HandOver(number) if kind == _HAND_OVER else TakeBack(number)
    raise MalformedPacket("a message on the control port is of no known kind, or too long or short for it")


def _unpack_routed(kind: int, data: bytes) -> ControlDatagram | PeerHeard:
    if not _routed.size <= len(data) <= MESSAGE_BYTES_MAX:
        raise MalformedPacket("a datagram on the control port is cut short or too long")
    _, flags, family, ip, port, scope, source_family, source, *way = _routed.unpack_from(data)
    if family == 0 or flags > _DONT_FRAGMENT or way[0] > _INTERFACE_MAX:
        raise MalformedPacket("a datagram on the control port goes nowhere, or has unknown flags or interfaces")
    remote = TransportAddress(_address(family, ip), port, scope)
    route = Way(_address(source_family, source) if source_family else None, *way)
    rest = data[_routed.size :]
    if kind == _DATAGRAM:
        return ControlDatagram(rest, remote, route, bool(flags))
    if flags or len(rest) != _KEY_BYTES:
        raise MalformedPacket("a peer has a key of 32 bytes")
    return PeerHeard(PublicKey(rest), remote, route)


def _address(family: int, packed: bytes) -> IPAddress:
    if family == 6:
        return IPv6Address(packed)
    if family == 4 and not any(packed[4:]):
        return IPv4Address(packed[:4])
    raise MalformedPacket("an address on the control port is neither IPv4 nor IPv6")
