"""The wire layout of the three handshake messages (WireGuard §5.4.2, §5.4.3, §5.4.7). All integers are little-endian.

Data messages (§5.4.6) are not parsed here but in place, by ``transport``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from warren.errors import MalformedPacket
from warren.proto.wireguard.constants import (
    COOKIE_REPLY,
    COOKIE_REPLY_BYTES,
    INITIATION,
    INITIATION_BYTES,
    RESPONSE,
    RESPONSE_BYTES,
)

Buffer = bytes | bytearray | memoryview

#  0      4        8           40               88                  116     132    148
#  +------+--------+-----------+----------------+-------------------+-------+------+
#  |  1   | sender | ephemeral | static (sealed)| timestamp (sealed)| mac1  | mac2 |
#  +------+--------+-----------+----------------+-------------------+-------+------+
_initiation = struct.Struct("<II108s")  # the Noise message, ephemeral to timestamp, as one

#  0      4        8          12          44               60      76     92
#  +------+--------+----------+-----------+----------------+-------+------+
#  |  2   | sender | receiver | ephemeral | empty (sealed) | mac1  | mac2 |
#  +------+--------+----------+-----------+----------------+-------+------+
_response = struct.Struct("<III48s")

#  0      4          8        32                64
#  +------+----------+--------+-----------------+
#  |  3   | receiver | nonce  | cookie (sealed) |
#  +------+----------+--------+-----------------+
_cookie_reply = struct.Struct("<II24s32s")


class Initiation(NamedTuple):
    """The first handshake message, not yet authenticated. ``noise`` is the Noise message in it (108 bytes)."""

    sender: int
    noise: bytes


class Response(NamedTuple):
    """The second handshake message, not yet authenticated. ``noise`` is the Noise message in it (48 bytes)."""

    sender: int
    receiver: int
    noise: bytes


class CookieReply(NamedTuple):
    """What a responder under load answers instead (§5.4.7). ``sealed`` is the encrypted cookie and its tag (32
    bytes).
    """

    receiver: int
    nonce: bytes
    sealed: bytes


def pack_initiation(message: Initiation) -> bytes:
    """The message up to, but without, its two MACs (116 bytes); ``cookie.CookieJar.add_macs`` completes it."""
    return _initiation.pack(INITIATION, *message)


def unpack_initiation_untrusted(data: Buffer) -> Initiation:
    """Raises MalformedPacket when ``data`` is anything but 148 bytes of type 1."""
    if len(data) != INITIATION_BYTES:
        raise MalformedPacket("a handshake initiation is 148 bytes")
    kind, sender, noise = _initiation.unpack_from(data)
    if kind != INITIATION:
        raise MalformedPacket("not a handshake initiation")
    return Initiation(sender, noise)


def pack_response(message: Response) -> bytes:
    """The message up to, but without, its two MACs (60 bytes)."""
    return _response.pack(RESPONSE, *message)


def unpack_response_untrusted(data: Buffer) -> Response:
    """Raises MalformedPacket when ``data`` is anything but 92 bytes of type 2."""
    if len(data) != RESPONSE_BYTES:
        raise MalformedPacket("a handshake response is 92 bytes")
    kind, sender, receiver, noise = _response.unpack_from(data)
    if kind != RESPONSE:
        raise MalformedPacket("not a handshake response")
    return Response(sender, receiver, noise)


def pack_cookie_reply(message: CookieReply) -> bytes:
    return _cookie_reply.pack(COOKIE_REPLY, *message)


def unpack_cookie_reply_untrusted(data: Buffer) -> CookieReply:
    """Raises MalformedPacket when ``data`` is anything but 64 bytes of type 3."""
    if len(data) != COOKIE_REPLY_BYTES:
        raise MalformedPacket("a cookie reply is 64 bytes")
    kind, receiver, nonce, sealed = _cookie_reply.unpack(data)
    if kind != COOKIE_REPLY:
        raise MalformedPacket("not a cookie reply")
    return CookieReply(receiver, nonce, sealed)
