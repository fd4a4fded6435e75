"""Explicit congestion notification through the tunnel (RFC 6040, normal mode). Pure Python: congestion is rare."""

from __future__ import annotations

from array import array
from typing import Final

from warren.proto.ip.checksum import complement
from warren.proto.ip.headers import packet_length
from warren.proto.ip.segment import HEADROOM, TAILROOM

NOT_ECT: Final = 0
ECT_1: Final = 1
ECT_0: Final = 2
CE: Final = 3

_DROP: Final = -1
_DECAPSULATE: Final = {
    # RFC 6040 §4.2, figure 4; what is not listed leaves the inner field as it is.
    (NOT_ECT, CE): _DROP,
    (ECT_0, ECT_1): ECT_1,
    (ECT_0, CE): CE,
    (ECT_1, CE): CE,
}


def inner_ecn(packet: bytes | bytearray | memoryview, at: int) -> int:
    """The ECN field (0 … 3) of the IP packet at ``packet[at:]``, 0 if there is none.

    It goes into the outer header as it is, beside a DSCP of 0 (RFC 6040 §4.1).
    """
    if at < 0 or len(packet) - at < 2:
        return NOT_ECT
    version = packet[at] >> 4
    if version == 4:
        return packet[at + 1] & 3
    return packet[at + 1] >> 4 & 3 if version == 6 else NOT_ECT


def decapsulate(
    buffer: bytearray | memoryview, at: int, end: int, stride: int, lengths: array[int], outer_ecn: int
) -> int:
    """Carry the outer ECN field of an opened train over to its packets; return how many had to be dropped.

    Arguments as for ``Coalescer.add``; a dropped packet's ``lengths[i]`` becomes 0. Malformed packets are left alone.
    Only an ``outer_ecn`` of ECT(1) or CE changes anything.
    """
    dropped = 0
    for i, slot in enumerate(range(at, end, stride)):
        length = lengths[i]
        first = slot + HEADROOM
        limit = min(slot + stride, end) - TAILROOM
        if length <= 0 or first + length > limit or not packet_length(buffer, first, first + length):
            continue
        inner = inner_ecn(buffer, first)
        outcome = _DECAPSULATE.get((inner, outer_ecn), inner)
        if outcome == _DROP:
            lengths[i] = 0
            dropped += 1
        elif outcome != inner:
            _set_ecn(buffer, first, outcome)
    return dropped


def _set_ecn(packet: bytearray | memoryview, at: int, ecn: int) -> None:
    if packet[at] >> 4 == 6:
        packet[at + 1] = packet[at + 1] & 0xCF | ecn << 4
        return
    before = packet[at + 1]
    packet[at + 1] = before & 0xFC | ecn
    # RFC 1624: the checksum's complement moves with the word; a checksum that was wrong stays wrong.
    checksum = complement(0xFFFF - (packet[at + 10] << 8 | packet[at + 11]) + packet[at + 1] - before)
    packet[at + 10], packet[at + 11] = checksum >> 8, checksum & 0xFF
