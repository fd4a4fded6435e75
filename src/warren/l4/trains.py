"""*Trains*: datagrams of one sender in a row, all of ``stride`` bytes but the last, which may be shorter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

TRAIN_BYTES_MAX: Final = 65_400
"""Of a train that is sent: with the headers of IP and UDP it must not exceed 16 bits. One datagram may."""
DATAGRAMS_MAX: Final = 64
"""In one train: UDP_MAX_SEGMENTS of linux/udp.h (128 since Linux 6.9)."""

Control = tuple[tuple[int, int, bytes], ...]
"""Control messages as ``sendmsg`` takes them."""


class Train(NamedTuple):
    """What came of one sender. Each of ``parts`` is of whole datagrams, and valid until something is received again."""

    source: Any
    local: bytes
    """Where it was sent to, as the kernel says it; empty unless asked for."""
    parts: Sequence[memoryview | bytes]
    stride: int
    length: int

    def datagrams(self) -> Iterator[memoryview | bytes]:
        """Each by itself."""
        return (one for part in self.parts for one in datagrams(part, self.stride))

    def held(self) -> Train:
        """The same, for as long as one likes."""
        return self._replace(parts=(b"".join(self.parts),))


def train_of(datagram: bytes | memoryview) -> Train:
    """One datagram, to be sent."""
    return Train(None, b"", (datagram,), len(datagram), len(datagram))


def datagrams(part: memoryview | bytes, stride: int) -> Iterator[memoryview | bytes]:
    """The datagrams of a part of a train."""
    if len(part) <= stride:
        yield part
    else:
        for at in range(0, len(part), stride):
            yield part[at : at + stride]


def cut(parts: Sequence[memoryview | bytes], size: int) -> Iterator[memoryview | bytes]:
    """Pieces of at most ``size`` bytes."""
    for part in parts:
        for at in range(0, len(part), size):
            yield part[at : at + size]
