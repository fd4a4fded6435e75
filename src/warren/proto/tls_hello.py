"""Which server a TLS client wants: the name in its ClientHello (RFC 8446 §4.1.2, RFC 6066 §3), read before any answer.

::

    record     type 22 (1)  version 3.x (2)  length (2)  fragment …      a message may go over several (RFC 8446 §5.1)
    handshake  type 1 (1)   length (3)
    hello      version (2)  random (32)  session <0..32>  suites <2..2^16-2>  compressions <1..2^8-1>  extensions <..>
    extension  type (2)     length (2)
    names      length (2)   { type 0 (1)  length (2)  host name … }

With Encrypted Client Hello the name is the outer one, of the server that knows how to go on.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from warren.errors import MalformedPacket

HELLO_BYTES_MAX: Final = 16_384
"""With its record headers: eight times one with a post-quantum key share, and what a client can make us hold."""
RECORDS_MAX: Final = 32
"""As many as a hello of HELLO_BYTES_MAX is in the smallest that OpenSSL makes (512 bytes); clients that cut theirs to
hide the name make a handful. All are walked again when more comes.
"""

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_HOST_NAME: Final = 0
_FRAGMENT_BYTES_MAX: Final = 1 << 14
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME_CHARACTERS_MAX: Final = 253
_ADDRESS: Final = re.compile(r"[0-9.]+")


class ServerName(NamedTuple):
    """``domain`` is in lower case, without a dot at the end; None when the client names nobody, or an IP address, which
    is no name (RFC 6066 §3).
    """

    domain: str | None


def server_name_untrusted(data: bytes | bytearray) -> ServerName | None:
    """The name in the ClientHello that a stream begins with; None while more of it is needed.

    Raises MalformedPacket as soon as it is clear that no ClientHello of up to HELLO_BYTES_MAX begins there; its text
    says what is wrong, without anything of ``data``.
    """
    message = _message(data)
    return None if message is None else ServerName(_name_in(message))


def _message(data: bytes | bytearray) -> bytes | None:
    """The ClientHello, put together from its records."""
    fragments: list[tuple[int, int]] = []
    have = at = 0
    for _ in range(RECORDS_MAX):
        head = data[at : at + _RECORD_HEAD]
        if (head and head[0] != _HANDSHAKE) or (len(head) > 1 and head[1] != 3):
            raise MalformedPacket("this is not TLS" if at == 0 else "the ClientHello breaks off")
        if len(head) < _RECORD_HEAD:
            break
        length = int.from_bytes(head[3:])
        if not 0 < length <= _FRAGMENT_BYTES_MAX:  # RFC 8446 §5.1: no empty ones
            raise MalformedPacket("the length of a record is wrong")
        at += _RECORD_HEAD
        end = min(at + length, len(data))
        fragments.append((at, end))
        have += end - at
        wanted = _wanted(data, fragments, have)
        if wanted is not None and have >= wanted:
            return b"".join(data[start:stop] for start, stop in fragments)[_MESSAGE_HEAD:wanted]
        if at + length > len(data):
            break
        at = end
    else:
        raise MalformedPacket("the ClientHello is cut into too many records")
    if len(data) >= HELLO_BYTES_MAX:
        raise MalformedPacket("the ClientHello is too long")
    return None


def _wanted(data: bytes | bytearray, fragments: list[tuple[int, int]], have: int) -> int | None:
    """How long the handshake message is, with its head; None while that has not come."""
    head = b"".join(data[start : min(stop, start + _MESSAGE_HEAD)] for start, stop in fragments[:_MESSAGE_HEAD])
    if head and head[0] != _CLIENT_HELLO:
        raise MalformedPacket("this is not a ClientHello")
    if have < _MESSAGE_HEAD:
        return None
    wanted = _MESSAGE_HEAD + int.from_bytes(head[1:_MESSAGE_HEAD])
    if wanted > HELLO_BYTES_MAX - _RECORD_HEAD:
        raise MalformedPacket("the ClientHello is too long")
    return wanted


class _Reader:
    """Vectors one after another (RFC 8446 §3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise MalformedPacket("the ClientHello is shorter than it says")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def vector(self, length_bytes: int, at_least: int = 0, at_most: int = 0xFFFF) -> bytes:
        length = int.from_bytes(self.take(length_bytes))
        if not at_least <= length <= at_most:
            raise MalformedPacket("a length in the ClientHello is wrong")
        return self.take(length)


def _name_in(message: bytes) -> str | None:
    hello = _Reader(message)
    if hello.take(2)[0] != 3:
        raise MalformedPacket("the version of the ClientHello is wrong")
    hello.take(32)
    hello.vector(1, 0, 32)
    if len(hello.vector(2, 2)) % 2:
        raise MalformedPacket("a length in the ClientHello is wrong")
    hello.vector(1, 1)
    if not hello:  # before TLS 1.3 there need not be any extensions (RFC 5246 §7.4.1.2)
        return None
    extensions = _Reader(hello.vector(2))
    if hello:
        raise MalformedPacket("something follows the ClientHello")
    names: bytes | None = None
    seen: set[int] = set()
    while extensions:
        kind = int.from_bytes(extensions.take(2))
        value = extensions.vector(2)
        if kind in seen:  # RFC 8446 §4.2
            raise MalformedPacket("an extension of the ClientHello is there twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            names = value
    return None if names is None else _host_name(names)


def _host_name(names: bytes) -> str | None:
    reader = _Reader(names)
    entries = _Reader(reader.vector(2, 1))
    if reader:
        raise MalformedPacket("something follows the names of the ClientHello")
    found: bytes | None = None
    while entries:
        kind = entries.take(1)[0]
        value = entries.vector(2, 1)
        if kind != _HOST_NAME:
            continue
        if found is not None:  # RFC 6066 §3
            raise MalformedPacket("the ClientHello names two servers")
        found = value
    if found is None:
        return None
    try:
        name = found.decode("ascii").lower().removesuffix(".")
    except UnicodeDecodeError:
        raise MalformedPacket("the name in the ClientHello is none") from None
    if ":" in name or _ADDRESS.fullmatch(name):
        return None
    if len(name) > _NAME_CHARACTERS_MAX or not all(map(_LABEL.fullmatch, name.split("."))):
        raise MalformedPacket("the name in the ClientHello is none")
    return name
