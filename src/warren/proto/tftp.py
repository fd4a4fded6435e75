"""TFTP (RFC 1350, RFC 2347): as much of it as is needed to carry it through a helper.

The first packet of a transfer goes to a port that everybody knows; the server answers from another one, its *transfer
identifier* (RFC 1350 §4), and the rest goes there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from warren.errors import MalformedPacket

READ, WRITE, DATA, ACK, ERROR, OACK = range(1, 7)

REQUEST_BYTES_MAX: Final = 512  # RFC 2347
PACKET_BYTES_MAX: Final = 4 + 65_464  # RFC 2348: the largest block

_MODES: Final = frozenset({b"netascii", b"octet", b"mail"})


class Request(NamedTuple):
    """The beginning of a transfer. ``filename`` is whatever the client said."""

    write: bool
    filename: bytes
    mode: bytes
    """In lower case."""
    options: tuple[tuple[bytes, bytes], ...]


def request_untrusted(data: bytes) -> Request:
    """Raises MalformedPacket for what does not begin a transfer (RFC 1350 §5, RFC 2347)."""
    if not 2 <= len(data) <= REQUEST_BYTES_MAX or data[0] or data[1] not in (READ, WRITE):
        raise MalformedPacket("no request of TFTP")
    texts = data[2:].split(b"\0")
    if texts.pop() or len(texts) < 2 or len(texts) % 2:
        raise MalformedPacket("a request of TFTP with a broken end")
    filename, mode = texts[0], texts[1].lower()
    if not filename or mode not in _MODES:
        raise MalformedPacket("a request of TFTP without a file or a mode")
    return Request(data[1] == WRITE, filename, mode, tuple(zip(texts[2::2], texts[3::2], strict=True)))


def transfer_opcode_untrusted(data: bytes | memoryview, *, from_server: bool) -> int:
    """What kind of packet of a running transfer it is. Raises MalformedPacket when it cannot be one (RFC 1350 §5)."""
    if not 2 <= len(data) <= PACKET_BYTES_MAX or data[0]:
        raise MalformedPacket("no packet of TFTP")
    opcode = data[1]
    if opcode == OACK and from_server:  # RFC 2347: it may be empty
        return opcode
    if opcode not in (DATA, ACK, ERROR) or len(data) < 4:
        raise MalformedPacket("no packet of a transfer")
    return opcode


def error(text: str, *, bytes_max: int) -> bytes:
    """An error "not defined, see the message", cut to ``bytes_max`` (at least 5)."""
    return bytes((0, ERROR, 0, 0)) + text.encode("ascii", "replace")[: bytes_max - 5] + b"\0"
