"""Trains of ChannelData: what carries data between a client and a TURN server (RFC 8656 §12.4).

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-------------------------------+-------------------------------+
    |   Channel number 0x4000–4FFF  |      Length of the data       |
    +-------------------------------+-------------------------------+
    |                             data                              |

Over UDP nothing follows the data, or padding to a multiple of four bytes. A train is a run of datagrams back to back,
all of ``stride`` bytes but the last, which may be shorter: what ``UDP_SEGMENT`` sends and ``UDP_GRO`` receives. These
functions run for every train, so they ask the interpreter for a few operations over all datagrams, not many for each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER_BYTES: Final = 4
CHANNEL_MIN: Final = 0x4000
CHANNEL_MAX: Final = 0x4FFF
PADDING_BYTES_MAX: Final = 3

_header = struct.Struct("!HH")
_first_byte_min, _first_byte_max = CHANNEL_MIN >> 8, CHANNEL_MAX >> 8


class Run(NamedTuple):
    """Datagrams of a train that belong together: ``buffer[at:end]``, ``stride`` bytes each, the last may be shorter.

    ``channel`` is what they were wrapped in; 0: they are no ChannelData, and whole. ``stride`` is 0 for one datagram
    of no bytes at all, which is legal (RFC 8656 §12.6).
    """

    channel: int
    at: int
    end: int
    stride: int


def wrap_train(train: bytes | bytearray | memoryview, stride: int, channel: int) -> bytes:
    """Each datagram of ``train`` as ChannelData of ``channel``, unpadded: a train with a stride of
    ``stride + HEADER_BYTES``. Raises ValueError for a channel number or a stride that is none.
    """
    size = len(train)
    if not CHANNEL_MIN <= channel <= CHANNEL_MAX or not 0 < stride <= 0xFFFF:
        raise ValueError("a train is wrapped with a channel number 0x4000 to 0x4FFF and a stride of 1 to 65535")
    if size <= stride:
        return _header.pack(channel, size) + train
    view = memoryview(train)
    datagrams = [view[at : at + stride] for at in range(0, size, stride)]
    parts: list[bytes | memoryview] = [_header.pack(channel, stride)] * (2 * len(datagrams))
    parts[1::2] = datagrams
    parts[-2] = _header.pack(channel, len(datagrams[-1]))
    return b"".join(parts)


def channel_of_train(buffer: bytearray, length: int, stride: int) -> int:
    """The channel when the whole train ``buffer[:length]`` is well-formed ChannelData of one channel, with as much
    data in every datagram but the last; else 0. Such a train goes on with :func:`rechannel_train`.
    """
    return _uniform(buffer, length, stride)[0]


def _uniform(buffer: bytearray, length: int, stride: int) -> tuple[int, int, int]:
    """The channel, the size of the data, and that of the last datagram's; the channel is 0 when they are not alike."""
    if stride < HEADER_BYTES or length < HEADER_BYTES:
        return 0, 0, 0
    channel, size = _header.unpack_from(buffer)
    if not CHANNEL_MIN <= channel <= CHANNEL_MAX:
        return 0, 0, 0
    if length <= stride:
        return (channel, size, size) if 0 <= length - HEADER_BYTES - size <= PADDING_BYTES_MAX else (0, 0, 0)
    whole, rest = divmod(length, stride)
    end = whole * stride
    if not 0 <= stride - HEADER_BYTES - size <= PADDING_BYTES_MAX or not all(
        buffer[byte:end:stride].count(buffer[byte]) == whole for byte in range(HEADER_BYTES)
    ):
        return 0, 0, 0
    if not rest:
        return channel, size, size
    if rest < HEADER_BYTES:
        return 0, 0, 0
    last_channel, last = _header.unpack_from(buffer, end)
    alike = last_channel == channel and last <= size and 0 <= rest - HEADER_BYTES - last <= PADDING_BYTES_MAX
    return (channel, size, last) if alike else (0, 0, 0)


def rechannel_train(buffer: bytearray, length: int, stride: int, channel: int) -> None:
    """Write another channel number into every header of the train ``buffer[:length]``, which is ChannelData.

    Raises ValueError for a channel number that is none.
    """
    if not CHANNEL_MIN <= channel <= CHANNEL_MAX:
        raise ValueError("a channel number is 0x4000 to 0x4FFF")
    count = -(-length // stride)
    buffer[0:length:stride] = bytes((channel >> 8,)) * count
    buffer[1:length:stride] = bytes((channel & 0xFF,)) * count


def unwrap_train_untrusted(buffer: bytearray, length: int, stride: int) -> tuple[list[Run], int]:
    """Take the headers out of the train ``buffer[:length]``, in place: its datagrams move together towards the front.

    Returns the runs, those of one channel together and in the order of arrival, and how many datagrams were malformed
    (a length field that does not fit) and left out. What is no ChannelData is a run with channel 0. Bytes outside of
    the runs are undefined afterwards. Never raises for what is in the datagrams.
    """
    channel, size, last = _uniform(buffer, length, stride)
    if channel == 0 or size == 0:
        return _unwrap_one_by_one(buffer, length, stride)
    if length <= stride:
        return [Run(channel, HEADER_BYTES, HEADER_BYTES + size, size)], 0
    with memoryview(buffer)[:length] as view:
        starts = range(HEADER_BYTES, length, stride)
        data = b"".join([view[start : start + size] for start in starts])
    end = len(starts) * size - size + last
    buffer[: len(data)] = data
    return [Run(channel, 0, end, size)], 0


def _unwrap_one_by_one(buffer: bytearray, length: int, stride: int) -> tuple[list[Run], int]:
    by_channel: dict[int, list[tuple[int, int]]] = {}  # where the data begins, and its size
    malformed = 0
    for start in range(0, length, max(stride, 1)):
        end = min(start + stride, length)
        channel, at, size = 0, start, end - start
        if _first_byte_min <= buffer[start] <= _first_byte_max:
            channel, told = _header.unpack_from(buffer, start) if size >= HEADER_BYTES else (0, 0xFFFF)
            at, size = start + HEADER_BYTES, told
            if not 0 <= end - at - size <= PADDING_BYTES_MAX:
                malformed += 1
                continue
        by_channel.setdefault(channel, []).append((at, size))
    with memoryview(buffer) as view:
        data = b"".join([view[at : at + size] for pieces in by_channel.values() for at, size in pieces])
    buffer[: len(data)] = data
    return list(_runs(by_channel)), malformed


def _runs(by_channel: dict[int, list[tuple[int, int]]]) -> Iterator[Run]:
    """The runs of data that lie back to back from the start of a buffer."""
    end = 0
    for channel, pieces in by_channel.items():
        at, stride = end, 0
        for _, size in pieces:
            # A datagram of another size than those before it may only be shorter, and is then the last.
            if end > at and (size == 0 or size > stride or (end - at) % stride):
                yield Run(channel, at, end, stride)
                at = end
            if end == at:
                stride = size
            end += size
            if size == 0:
                yield Run(channel, at, at, 0)
        if end > at:
            yield Run(channel, at, end, stride)
