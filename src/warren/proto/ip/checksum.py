"""The Internet checksum (RFC 1071) on Python's big integers.

Because 2**16 ≡ 1 (mod 65535), the ones'-complement sum of the 16-bit words of a byte string is the whole string read as
one big-endian number, modulo 65535. That is two C loops for a packet of any size.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 65535


# Dividing a long number costs more than all the rest, so it is first folded in halves: 2**bits ≡ 1 as well. Multiples
# of 240 are whole words (16 bits) and whole digits of CPython's integers (30 bits), which shift faster.
_HALF: Final = 5760
_HALF_MASK: Final = (1 << _HALF) - 1
_QUARTER: Final = 2880
_QUARTER_MASK: Final = (1 << _QUARTER) - 1
_EIGHTH: Final = 1440
_EIGHTH_MASK: Final = (1 << _EIGHTH) - 1
_WORTH_FOLDING: Final = 512


def word_sum(data: bytes | bytearray | memoryview) -> int:
    """The sum of the big-endian 16-bit words of ``data``, an odd end padded with zero, modulo 65535."""
    total = int.from_bytes(data)
    if len(data) > _WORTH_FOLDING:
        total = (total >> _HALF) + (total & _HALF_MASK)
        total = (total >> _QUARTER) + (total & _QUARTER_MASK)
        total = (total >> _EIGHTH) + (total & _EIGHTH_MASK)
    return (total << 8 if len(data) & 1 else total) % MODULUS


def complement(total: int) -> int:
    """The checksum field (0 … 65534) that makes words summing to ``total`` valid."""
    return -total % MODULUS


def partial(total: int) -> int:
    """The field's value before a device completes it (NEEDS_CSUM): ``total`` folded to 1 … 65535, not complemented."""
    return total % MODULUS or MODULUS
