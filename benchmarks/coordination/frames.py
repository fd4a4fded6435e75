"""The client's side of a WebSocket (RFC 6455) as far as these nodes need it. Sans-IO.

The library that real nodes use takes a tenth of a millisecond for a message; ten thousand nodes on the machine of the
coordinator would then mostly measure themselves. Masks are zero: the coordinator cannot tell the difference.
"""

from __future__ import annotations

import base64
import struct

_FINAL = 0x80
_MASKED = 0x80
_BINARY, _PING, _PONG = 0x2, 0x9, 0xA


class WebSocketError(ConnectionError):
    """The other side does not speak it, or does not want to now."""


class Frames:
    """One connection, from the request on. Single owner."""

    def __init__(self, host: str, path: str, subprotocol: str) -> None:
        self.request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        ).encode()
        self._buffer = bytearray()
        self._parts: list[bytes] = []
        self._upgraded = False
        self._answers: list[bytes] = []

    def receive(self, data: bytes) -> list[bytes]:
        """Take bytes; returns the messages that are complete. Raises WebSocketError when the connection is over."""
        self._buffer += data
        if not self._upgraded and not self._upgrade():
            return []
        messages: list[bytes] = []
        while (frame := self._frame()) is not None:
            first, payload = frame
            match first & 0x0F:
                case 0x8:  # RFC 6455 §11.8: 0 to 2 continuation, text, binary; 8 to 10 close, ping, pong
                    raise WebSocketError("closed by the coordinator")
                case 0x9:
                    self._answers.append(_framed(_PONG, payload))
                case 0x0 | 0x1 | 0x2:
                    self._parts.append(payload)
                    if first & _FINAL:
                        messages.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
                        self._parts.clear()
        return messages

    def take_answers(self) -> list[bytes]:
        """What has to be sent without anybody asking for it: pongs."""
        taken, self._answers = self._answers, []
        return taken

    def _upgrade(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).split(b"\r\n")
        if not head[0].startswith(b"HTTP/1.1 101"):
            raise WebSocketError(head[0].decode("latin-1"))
        del self._buffer[: end + 4]
        self._upgraded = True
        return True

    def _frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, start = buffer[1], 2
        if size == 126:
            start = 4
            size = int.from_bytes(buffer[2:4])
        elif size == 127:
            start = 10
            size = int.from_bytes(buffer[2:10])
        if len(buffer) < start + size:
            return None
        frame = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return frame


def binary(message: bytes) -> bytes:
    """A message as it goes on the wire."""
    return _framed(_BINARY, message)


def _framed(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", _FINAL | opcode, _MASKED | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", _FINAL | opcode, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _FINAL | opcode, _MASKED | 127, size)
    return head + bytes(4) + payload


PING = _framed(_PING, b"")
