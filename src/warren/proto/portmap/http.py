"""The little of HTTP/1.1 (RFC 9112) that talking to a gateway takes: one request, one answer, then the end.

Nothing is followed (a redirect is an answer like any other), nothing is kept, everything has a ceiling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from warren.errors import MalformedPacket

HEAD_BYTES_MAX: Final = 8192
HEADERS_MAX: Final = 64
BODY_BYTES_MAX: Final = 128 * 1024
_CHUNK_LINE_MAX: Final = 64
_BYTES_MAX: Final = HEAD_BYTES_MAX + 2 * BODY_BYTES_MAX  # of everything, so that crumbs and preludes end too
_USER_AGENT: Final = "Linux UPnP/1.1 Warren"


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    """Names in lower case; of several of one name the first."""
    body: bytes = field(default=b"", repr=False)


def pack_get(host: str, path: str) -> bytes:
    """``host`` and ``path`` have been checked: no spaces or control characters."""
    return _pack(f"GET {path} HTTP/1.1", host, (), b"")


def pack_soap(host: str, path: str, action: str, body: bytes) -> bytes:
    headers = ('Content-Type: text/xml; charset="utf-8"', f'SOAPAction: "{action}"', f"Content-Length: {len(body)}")
    return _pack(f"POST {path} HTTP/1.1", host, headers, body)


def _pack(first: str, host: str, headers: tuple[str, ...], body: bytes) -> bytes:
    lines = (first, f"Host: {host}", f"User-Agent: {_USER_AGENT}", "Connection: close", *headers, "", "")
    return "\r\n".join(lines).encode("ascii") + body


def unpack_head_untrusted(data: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers out of everything before the empty line; also of an SSDP answer. Raises MalformedPacket."""
    if len(data) > HEAD_BYTES_MAX:
        raise MalformedPacket(f"an HTTP head of {len(data)} bytes")
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    words = lines[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not (len(words[1]) == 3 and words[1].isdigit()):
        raise MalformedPacket("an HTTP answer without a status")
    if len(lines) > HEADERS_MAX:
        raise MalformedPacket(f"{len(lines)} lines of HTTP headers")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.setdefault(name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
    return int(words[1]), headers


class ResponseReader:
    """Puts one answer together. FINISHED or failed it takes nothing more; a failure is final."""

    __slots__ = ("_at_end", "_body", "_buffer", "_chunked", "_head", "_left", "_received")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body = bytearray()
        self._head: tuple[int, dict[str, str]] | None = None
        self._left: int | None = None  # bytes of the body, or of the present chunk; None: until the end
        self._chunked = False
        self._at_end = False
        self._received = 0

    def receive_untrusted(self, data: bytes) -> bool:
        """Take bytes as they come; True when the answer is whole. Raises MalformedPacket."""
        if self._at_end:
            return True
        self._received += len(data)
        if self._received > _BYTES_MAX:
            raise MalformedPacket("an HTTP answer that does not end")
        self._buffer += data
        while self._head is None:
            if not self._read_head_untrusted():
                return False
        if self._chunked:
            self._read_chunks_untrusted()
        else:
            self._read_body_untrusted()
        return self._at_end

    def end_untrusted(self) -> Response:
        """The connection has ended, or the answer is whole. Raises MalformedPacket when something is missing."""
        if self._head is None or (not self._at_end and (self._chunked or self._left)):
            raise MalformedPacket("an HTTP answer that breaks off")
        self._at_end = True
        status, headers = self._head
        return Response(status, headers, bytes(self._body))

    def _read_head_untrusted(self) -> bool:
        ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := self._buffer.find(mark)) >= 0]
        if not ends:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise MalformedPacket("an HTTP head that does not end")
            return False
        at, mark = min(ends)
        status, headers = unpack_head_untrusted(bytes(self._buffer[:at]))
        del self._buffer[: at + mark]
        if 100 <= status < 200:  # RFC 9110 §15.2: the answer proper follows
            if status == 101:
                raise MalformedPacket("an HTTP answer that wants another protocol")
            return bool(self._buffer)
        coding = headers.get("transfer-encoding", "").lower()
        if coding not in {"", "identity", "chunked"} or headers.get("content-encoding", "identity") != "identity":
            raise MalformedPacket("an HTTP answer that is encoded")
        self._head = status, headers
        self._chunked = coding == "chunked"
        length = headers.get("content-length")
        if self._chunked:
            self._left = 0
        elif length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= 9 and int(length) <= BODY_BYTES_MAX):
                raise MalformedPacket(f"an HTTP answer of {length[:20]!r} bytes")
            self._left = int(length)
        if status in {204, 304}:
            self._left, self._at_end = 0, True
        return True

    def _read_body_untrusted(self) -> None:
        take = len(self._buffer) if self._left is None else min(self._left, len(self._buffer))
        self._keep_untrusted(take)
        if self._left is not None:
            self._left -= take
            self._at_end = self._left == 0

    def _read_chunks_untrusted(self) -> None:
        """RFC 9112 §7.1; trailers are not waited for."""
        while not self._at_end:
            if self._left:
                take = min(self._left, len(self._buffer))
                self._keep_untrusted(take)
                self._left -= take
                if self._left:
                    return
                self._left = None  # the line break behind the chunk
            at = self._buffer.find(b"\n")
            if at < 0:
                if len(self._buffer) > _CHUNK_LINE_MAX:
                    raise MalformedPacket("an HTTP chunk without a size")
                return
            line = bytes(self._buffer[:at]).strip()
            del self._buffer[: at + 1]
            if self._left is None:
                if line:
                    raise MalformedPacket("an HTTP chunk that is longer than it says")
                self._left = 0
                continue
            size = line.partition(b";")[0].strip()
            if not 1 <= len(size) <= 6 or any(byte not in b"0123456789abcdefABCDEF" for byte in size):
                raise MalformedPacket("an HTTP chunk without a size")
            self._left = int(size, 16)
            self._at_end = self._left == 0

    def _keep_untrusted(self, count: int) -> None:
        if len(self._body) + count > BODY_BYTES_MAX:
            raise MalformedPacket(f"an HTTP answer of more than {BODY_BYTES_MAX} bytes")
        self._body += self._buffer[:count]
        del self._buffer[:count]
