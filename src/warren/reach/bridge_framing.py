"""How datagrams travel in a stream: as TURN has it (RFC 8656 §3.1, §12.5), or each behind its length (RFC 4571).

Whole trains go through at once. A train is a run of datagrams back to back, all of ``stride`` bytes but the last, which
may be shorter; a bulk transfer makes nothing else, so what is alike is not looked at one by one.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, Protocol

from warren.errors import MalformedPacket
from warren.proto.stun.message import HEADER_BYTES as STUN_HEADER_BYTES
from warren.proto.stun.message import MAGIC_COOKIE
from warren.proto.turn.channel import CHANNEL_MAX, CHANNEL_MIN, channel_of_train
from warren.proto.turn.channel import HEADER_BYTES as CHANNEL_HEADER_BYTES

DATAGRAM_BYTES_MAX: Final = 65_507
"""What a datagram on the loopback interface can carry; longer frames are skipped."""
FRAME_BYTES_MAX: Final = STUN_HEADER_BYTES + 0xFFFF + 3

_length = struct.Struct(">H")
_COOKIE: Final = MAGIC_COOKIE.to_bytes(4)
_CHANNEL_FIRST: Final = range(CHANNEL_MIN >> 8, (CHANNEL_MAX >> 8) + 1)


class Train(NamedTuple):
    """Datagrams for the data plane; ``data`` may be a view of the buffer they were read from."""

    data: memoryview | bytes
    stride: int


class Framing(Protocol):
    def pack(self, buffer: bytearray, length: int, stride: int) -> memoryview | bytes:
        """The train ``buffer[:length]`` as bytes of a stream; datagrams that cannot travel so are left out. A view of
        ``buffer`` where nothing is to be changed.
        """
        ...

    def unpack_untrusted(self, buffer: bytearray, start: int, end: int) -> tuple[list[Train], int]:
        """The trains in ``buffer[start:end]``, and where what is not complete yet begins.

        Raises MalformedPacket when the stream is not what it should be; nothing in it can then be found any more.
        """
        ...


class TurnFraming:
    """STUN messages as they are; ChannelData padded to multiples of four bytes. One object for each stream."""

    def __init__(self) -> None:
        self._begun = False

    def pack(self, buffer: bytearray, length: int, stride: int) -> memoryview | bytes:
        if stride & 3 == 0 and length & 3 == 0 and channel_of_train(buffer, length, stride):
            return memoryview(buffer)[:length]
        frames = []
        for at in range(0, length, stride or 1):
            end = min(at + stride, length)
            size = _frame_size(buffer, at, end)
            if buffer[at] in _CHANNEL_FIRST:
                unpadded = CHANNEL_HEADER_BYTES + int.from_bytes(buffer[at + 2 : at + 4]) if size else 0
                if size and unpadded <= end - at <= size:
                    frames.append(bytes(buffer[at : at + unpadded]) + bytes(size - unpadded))
            elif size == end - at:
                frames.append(bytes(buffer[at:end]))
        return b"".join(frames)

    def unpack_untrusted(self, buffer: bytearray, start: int, end: int) -> tuple[list[Train], int]:
        trains: list[Train] = []
        view = memoryview(buffer)
        while True:
            size = _frame_size(buffer, start, end)
            if not size:
                if end - start >= CHANNEL_HEADER_BYTES or (end > start and not _may_begin(buffer[start])):
                    raise MalformedPacket("what comes in the stream is not TURN")
                return trains, start
            if not self._begun:
                # No channel is bound before a STUN message said so. "HTTP" would be ChannelData, too.
                if buffer[start] in _CHANNEL_FIRST:
                    raise MalformedPacket("what comes in the stream is not TURN")
                self._begun = True
            at = start + size
            if at > end:
                return trains, start
            if size <= DATAGRAM_BYTES_MAX:
                if buffer[start] in _CHANNEL_FIRST:
                    at = _end_of_run(buffer, start, at, size, end)
                trains.append(Train(view[start:at], size))
            start = at


def _may_begin(byte: int) -> bool:
    return byte < 0x40 or byte in _CHANNEL_FIRST


def _frame_size(buffer: bytearray, at: int, end: int) -> int:
    """How long the frame that begins ``at`` is in a stream; 0 when too little of it is there to tell, or it is none."""
    if end - at < CHANNEL_HEADER_BYTES:
        return 0
    first, length = buffer[at] << 8 | buffer[at + 1], buffer[at + 2] << 8 | buffer[at + 3]
    if CHANNEL_MIN <= first <= CHANNEL_MAX:
        return CHANNEL_HEADER_BYTES + (length + 3 & ~3)
    cookie = buffer[at + 4 : min(at + 8, end)]
    if first < 0x4000 and length & 3 == 0 and _COOKIE.startswith(cookie):
        return STUN_HEADER_BYTES + length
    return 0


def _end_of_run(buffer: bytearray, start: int, at: int, size: int, end: int) -> int:
    """Where the train of ChannelData ends whose first frame is ``buffer[start:at]``: equal headers, and one that is
    shorter.
    """
    head = buffer[start : start + CHANNEL_HEADER_BYTES]
    while buffer[at : at + CHANNEL_HEADER_BYTES] == head and at + size <= end:
        at += size
    if buffer[at : at + 2] == head[:2]:
        last = _frame_size(buffer, at, end)
        if 0 < last < size and at + last <= end:
            at += last
    return at


class LengthFraming:
    """Two bytes of length before each datagram. A length of nothing keeps the connection open and means nothing."""

    def pack(self, buffer: bytearray, length: int, stride: int) -> memoryview | bytes:
        view = memoryview(buffer)
        datagrams = [view[at : min(at + stride, length)] for at in range(0, length, stride or 1)]
        parts: list[bytes | memoryview] = [_length.pack(stride)] * (2 * len(datagrams))
        parts[1::2] = datagrams
        if datagrams:
            parts[-2] = _length.pack(len(datagrams[-1]))
        return b"".join(parts)

    def unpack_untrusted(self, buffer: bytearray, start: int, end: int) -> tuple[list[Train], int]:
        trains: list[Train] = []
        view = memoryview(buffer)
        while start + 2 <= end:
            head = buffer[start : start + 2]
            size = head[0] << 8 | head[1]
            at = start + 2 + size
            if at > end:
                break
            if 0 < size <= DATAGRAM_BYTES_MAX:
                datagrams = [view[start + 2 : at]]
                while buffer[at : at + 2] == head and at + 2 + size <= end:
                    datagrams.append(view[at + 2 : at + 2 + size])
                    at += 2 + size
                last = int.from_bytes(buffer[at : at + 2]) if at + 2 <= end else 0
                if 0 < last < size and at + 2 + last <= end:
                    datagrams.append(view[at + 2 : at + 2 + last])
                    at += 2 + last
                trains.append(Train(b"".join(datagrams) if len(datagrams) > 1 else datagrams[0], size))
            start = at
        return trains, start
