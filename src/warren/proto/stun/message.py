"""STUN messages: header, attributes, integrity and fingerprint (RFC 8489 §5, §14). All integers are big-endian.

The values of single attributes are in ``attributes``, keys and their checking in ``credentials``.
"""

from __future__ import annotations

import hmac
import struct
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from warren.errors import MalformedPacket

Buffer = bytes | bytearray | memoryview

MAGIC_COOKIE: Final = 0x2112A442
HEADER_BYTES: Final = 20
TRANSACTION_BYTES: Final = 12
MESSAGE_BYTES_MAX: Final = 2048
"""Longest message taken from a datagram: more than any path carries in one piece."""
ATTRIBUTES_MAX: Final = 64
"""Attributes in one message: three times what the richest real one has."""

_COOKIE_BYTES: Final = MAGIC_COOKIE.to_bytes(4)
_FINGERPRINT_XOR: Final = 0x5354554E  # "STUN" (§14.7)
_SHA1_BYTES: Final = 20
_SHA256_BYTES: Final = 32
_SHA256_BYTES_MIN: Final = 16  # truncated, §14.6

#  0      2        4              8                   20
#  +------+--------+--------------+-------------------+------------ ...
#  | type | length | magic cookie | transaction       | attributes
#  +------+--------+--------------+-------------------+------------ ...
_header = struct.Struct(">HHI12s")

#  0      2        4               4 + length, then up to the next multiple of 4
#  +------+--------+---------------+---------+
#  | type | length | value         | padding |
#  +------+--------+---------------+---------+
_attribute = struct.Struct(">HH")
_length = struct.Struct(">H")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")  # by length modulo 4


class Method(IntEnum):
    """RFC 8489 §18.2, RFC 8656 §17; CARRY is Warren's own."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009
    CARRY = 0x0F1
    """A signal between members, carried by a third (indications only)."""


class Class(IntEnum):
    """RFC 8489 §5."""

    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Attribute(IntEnum):
    """Below 0x8000 a receiver has to understand it or refuse the message (RFC 8489 §14)."""

    MAPPED_ADDRESS = 0x0001
    CHANGE_REQUEST = 0x0003
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    CHANNEL_NUMBER = 0x000C
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_ADDRESS_FAMILY = 0x0017
    EVEN_PORT = 0x0018
    REQUESTED_TRANSPORT = 0x0019
    DONT_FRAGMENT = 0x001A
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    RESERVATION_TOKEN = 0x0022
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    PADDING = 0x0026
    RESPONSE_PORT = 0x0027
    ADDITIONAL_ADDRESS_FAMILY = 0x8000
    ADDRESS_ERROR_CODE = 0x8001
    PASSWORD_ALGORITHMS = 0x8002
    ALTERNATE_DOMAIN = 0x8003
    ICMP = 0x8004
    SOFTWARE = 0x8022
    ALTERNATE_SERVER = 0x8023
    CACHE_TIMEOUT = 0x8027
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A
    RESPONSE_ORIGIN = 0x802B
    OTHER_ADDRESS = 0x802C


# As plain integers: members of an enum cost more in the loop over attributes.
_INTEGRITY: Final = int(Attribute.MESSAGE_INTEGRITY)
_INTEGRITY_SHA256: Final = int(Attribute.MESSAGE_INTEGRITY_SHA256)
_FINGERPRINT: Final = int(Attribute.FINGERPRINT)
_CLASSES: Final = tuple(Class)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Decoded is not trusted: ``credentials.verifies`` tells whether it comes from who knows the key.

    Of a message with integrity ``attributes`` holds only what the integrity covers, the integrity attributes
    themselves and FINGERPRINT.
    """

    method: int
    cls: Class
    transaction: bytes
    """12 bytes."""
    attributes: tuple[tuple[int, bytes], ...]
    """Types and values in their order, without padding."""
    raw: bytes = field(default=b"", repr=False)
    """As received, for the integrity; empty in a message that was not."""
    sha1_at: int = field(default=0, repr=False)
    """Where MESSAGE-INTEGRITY begins in ``raw``; 0: there is none."""
    sha256_at: int = field(default=0, repr=False)
    """Where MESSAGE-INTEGRITY-SHA256 begins in ``raw``; 0: there is none."""

    def get(self, attribute: int) -> bytes | None:
        """The value of the first such attribute; later ones do not count (§14)."""
        for kind, value in self.attributes:
            if kind == attribute:
                return value
        return None


def looks_like_stun(data: Buffer) -> bool:
    """Whether a datagram is STUN rather than WireGuard or ChannelData, as far as its first bytes tell.

    WireGuard's second byte is 0, which in STUN only method 0 (reserved) would have.
    """
    return len(data) >= HEADER_BYTES and data[0] < 0x40 and data[1] != 0 and data[4:8] == _COOKIE_BYTES


def decode_untrusted(data: Buffer, limit: int = MESSAGE_BYTES_MAX) -> Message:
    """Raises MalformedPacket unless ``data`` is exactly one message of at most ``limit`` bytes.

    Order rules: after MESSAGE-INTEGRITY only its SHA-256 sister and FINGERPRINT count, after that one only FINGERPRINT
    (§14.5, §14.6): others are dropped. Behind FINGERPRINT there is nothing, and it must be right (§14.7). Padding may
    have any value.
    """
    if type(data) is not bytes:
        data = bytes(data)
    end = len(data)
    if not HEADER_BYTES <= end <= limit:
        raise MalformedPacket("a STUN message is as long as its header at least, and not longer than a datagram")
    kind, length, magic, transaction = _header.unpack_from(data)
    if kind >= 0x4000 or magic != MAGIC_COOKIE:
        raise MalformedPacket("not a STUN message")
    if length & 3 or length != end - HEADER_BYTES:
        raise MalformedPacket("the length of a STUN message is not that of its datagram")
    attributes: list[tuple[int, bytes]] = []
    sha1_at = sha256_at = 0
    at = HEADER_BYTES
    read = _attribute.unpack_from
    left = ATTRIBUTES_MAX
    while at < end:
        attribute, length = read(data, at)  # at least 4 bytes are left: `at` and `end` are multiples of 4
        value_at = at + 4
        value_end = value_at + length
        next_at = value_end + (-length & 3)
        left -= 1
        if next_at > end or left < 0:
            raise MalformedPacket("an attribute of a STUN message is cut off, or there are too many")
        if attribute == _FINGERPRINT:
            _check_fingerprint(data, at, end)
        elif sha256_at:
            at = next_at
            continue
        elif attribute == _INTEGRITY_SHA256:
            if length & 3 or not _SHA256_BYTES_MIN <= length <= _SHA256_BYTES:
                raise MalformedPacket("MESSAGE-INTEGRITY-SHA256 has 16 to 32 bytes")
            sha256_at = at
        elif sha1_at:
            at = next_at
            continue
        elif attribute == _INTEGRITY:
            if length != _SHA1_BYTES:
                raise MalformedPacket("MESSAGE-INTEGRITY has 20 bytes")
            sha1_at = at
        attributes.append((attribute, data[value_at:value_end]))
        at = next_at
    method = kind & 0xF | kind >> 1 & 0x70 | kind >> 2 & 0xF80
    cls = _CLASSES[kind >> 4 & 1 | kind >> 7 & 2]
    return Message(method, cls, transaction, tuple(attributes), data, sha1_at, sha256_at)


def _check_fingerprint(data: bytes, at: int, end: int) -> None:
    if at + 8 != end or data[at + 2 : at + 4] != b"\0\4":
        raise MalformedPacket("FINGERPRINT is the last attribute of a STUN message and has 4 bytes")
    if zlib.crc32(data[:at]) ^ _FINGERPRINT_XOR != int.from_bytes(data[at + 4 :]):
        raise MalformedPacket("the fingerprint of a STUN message is wrong")


def encode(
    method: int,
    cls: Class,
    transaction: bytes,
    attributes: Iterable[tuple[int, bytes]] = (),
    *,
    key: bytes | None = None,
    sha256: bool = True,
    sha1: bool = False,
    fingerprint: bool = False,
) -> bytes:
    """A message. With a ``key`` it ends in MESSAGE-INTEGRITY (``sha1``), MESSAGE-INTEGRITY-SHA256 (``sha256``) or both,
    in this order; then comes FINGERPRINT, if wanted.

    ``transaction`` has 12 bytes, unpredictable ones in a request (§5). A value has less than 65,536 bytes, and so has
    the whole.
    """
    parts = [b""]
    for attribute, value in attributes:
        length = len(value)
        parts += _attribute.pack(attribute, length), value, _PADDING[length & 3]
    body = b"".join(parts)
    kind = method & 0xF | (method & 0x70) << 1 | (method & 0xF80) << 2 | (cls & 1) << 4 | (cls & 2) << 7
    # An integrity covers the header with the length up to its own end, whatever follows it (§14.5, §14.6).
    if key is not None and sha1:
        head = _header.pack(kind, len(body) + 4 + _SHA1_BYTES, MAGIC_COOKIE, transaction)
        body += _attribute.pack(_INTEGRITY, _SHA1_BYTES) + hmac.digest(key, head + body, "sha1")
    if key is not None and sha256:
        head = _header.pack(kind, len(body) + 4 + _SHA256_BYTES, MAGIC_COOKIE, transaction)
        body += _attribute.pack(_INTEGRITY_SHA256, _SHA256_BYTES) + hmac.digest(key, head + body, "sha256")
    if not fingerprint:
        return _header.pack(kind, len(body), MAGIC_COOKIE, transaction) + body
    message = _header.pack(kind, len(body) + 8, MAGIC_COOKIE, transaction) + body
    checksum = zlib.crc32(message) ^ _FINGERPRINT_XOR
    return message + _attribute.pack(_FINGERPRINT, 4) + checksum.to_bytes(4)


def integrity_of(raw: bytes, at: int, key: bytes, digest: str) -> bytes:
    """What an integrity attribute that begins ``at`` in the message ``raw`` has to contain: a ``digest`` (``sha1`` or
    ``sha256``) of full length.
    """
    end = at + 4 + int.from_bytes(raw[at + 2 : at + 4]) - HEADER_BYTES
    return hmac.digest(key, raw[:2] + _length.pack(end) + raw[4:at], digest)


def unknown_required(message: Message, known: Collection[int]) -> tuple[int, ...]:
    """The attributes that must be understood but are not in ``known``, each once: what a 420 answer lists (§6.3.1).

    The integrity attributes are always known.
    """
    unknown = {
        kind: None
        for kind, _ in message.attributes
        if kind < 0x8000 and kind not in known and kind not in {_INTEGRITY, _INTEGRITY_SHA256}
    }
    return tuple(unknown)
