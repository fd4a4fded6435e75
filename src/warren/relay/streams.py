"""Clients by TCP and TLS: STUN messages and ChannelData one after the other in a stream (RFC 8656 §3.1, §12.5)."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from typing import Final, NamedTuple

from warren.proto.stun.message import HEADER_BYTES
from warren.proto.turn.server_values import CHANNELS, Client

READ_BYTES: Final = 1 << 17
OUTBOX_BYTES_MAX: Final = 1 << 20
"""What waits for a slow client; more is lost, as on any slow link. 0.8 s at 10 Mbit/s."""
UNPROVEN_MESSAGE_BYTES_MAX: Final = 2048
PROVEN_MESSAGE_BYTES_MAX: Final = 65_535 + HEADER_BYTES
_COOKIE: Final = b"\x21\x12\xa4\x42"
_frame = struct.Struct("!HH")


class Garbage(Exception):
    """What came is no TURN: the connection is of no use any more."""


class Message(NamedTuple):
    """A STUN message, whole."""

    data: bytes


class Train(NamedTuple):
    """Data of one channel: datagrams of ``stride`` bytes, the last may be shorter."""

    channel: int
    data: bytes
    stride: int


def take_frames_untrusted(inbox: bytearray, *, message_bytes_max: int) -> list[Message | Train]:
    """Take what is complete out of the front of ``inbox``. Raises Garbage for what cannot be TURN.

    Consecutive frames of one channel and size become one train.
    """
    frames: list[Message | Train] = []
    at, end = 0, len(inbox)
    while end - at >= 4:
        kind, size = _frame.unpack_from(inbox, at)
        if kind < CHANNELS.start:
            whole = HEADER_BYTES + size
            if size & 3 or whole > message_bytes_max or (end - at >= 8 and inbox[at + 4 : at + 8] != _COOKIE):
                raise Garbage("neither STUN nor ChannelData")
            if end - at < whole:
                break
            frames.append(Message(bytes(inbox[at : at + whole])))
            at += whole
            continue
        if kind >= CHANNELS.stop:
            raise Garbage("neither STUN nor ChannelData")
        step = 4 + size + (-size & 3)
        if end - at < step:
            break
        count = 1
        head = inbox[at : at + 4]
        while size and end - at >= (count + 1) * step and inbox[at + count * step : at + count * step + 4] == head:
            count += 1
        stop = at + count * step
        pieces = [inbox[start + 4 : start + 4 + size] for start in range(at, stop, step)]
        frames.append(Train(kind, b"".join(pieces), size))
        at = stop
    del inbox[:at]
    return frames


def frame_train(channel: int, train: bytes | bytearray | memoryview, stride: int) -> bytes:
    """Datagrams as frames of a stream: each padded to a multiple of four bytes (RFC 8656 §12.5)."""
    view = memoryview(train)
    parts: list[bytes | memoryview] = []
    for at in range(0, len(view) or 1, stride or 1):
        datagram = view[at : at + stride]
        parts += _frame.pack(channel, len(datagram)), datagram, b"\0\0\0"[: -len(datagram) & 3]
    return b"".join(parts)


class Stream:
    """One connection. ``client`` names it to the server; ``since`` is when it began."""

    __slots__ = (
        "_handshaking",
        "_outbox",
        "_sock",
        "_waiting_bytes",
        "client",
        "inbox",
        "lost",
        "proven",
        "share",
        "since",
        "wants_write",
    )

    def __init__(self, sock: socket.socket, client: Client, since: float) -> None:
        self._sock = sock
        self._handshaking = isinstance(sock, ssl.SSLSocket)
        self._outbox: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self.client = client
        self.since = since
        self.inbox = bytearray()
        self.lost = 0
        """Messages that found no room."""
        self.proven = False
        self.share: object = None
        self.wants_write = False
        """Whether to call :meth:`flush` when the socket has room."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self, limit: int) -> int:
        """Read up to about ``limit`` bytes into the inbox; returns how many. Raises Garbage, or OSError at the end."""
        if self._handshaking:
            try:
                self._sock.do_handshake()  # type: ignore[attr-defined]
            except ssl.SSLWantReadError:
                return 0
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return 0
            self._handshaking = False
        got = 0
        while got < limit:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            except ssl.SSLWantWriteError:
                self.wants_write = True
                break
            if not data:
                raise ConnectionResetError
            self.inbox += data
            got += len(data)
        return got

    @property
    def message_bytes_max(self) -> int:
        return PROVEN_MESSAGE_BYTES_MAX if self.proven else UNPROVEN_MESSAGE_BYTES_MAX

    @property
    def holds_more(self) -> bool:
        """Decrypted bytes wait inside, of which ``epoll`` knows nothing."""
        return isinstance(self._sock, ssl.SSLSocket) and not self._handshaking and self._sock.pending() > 0

    def send(self, data: bytes) -> bool:
        """Send now or later; False when it is lost because too much waits. Raises OSError at the end."""
        if self._waiting_bytes + len(data) > OUTBOX_BYTES_MAX:
            self.lost += 1
            return False
        self._outbox.append(memoryview(data))
        self._waiting_bytes += len(data)
        if not self.wants_write:
            self.flush()
        return True

    def flush(self) -> None:
        """Raises OSError at the end."""
        self.wants_write = False
        if self._handshaking:
            return
        try:
            while self._outbox:
                first = self._outbox[0]
                sent = self._sock.send(first)
                self._waiting_bytes -= sent
                if sent == len(first):
                    self._outbox.popleft()
                else:
                    self._outbox[0] = first[sent:]
        except (BlockingIOError, ssl.SSLWantWriteError):
            self.wants_write = True
        except ssl.SSLWantReadError:
            pass

    def close(self) -> None:
        self._sock.close()
