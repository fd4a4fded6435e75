"""The Internet checksum (RFC 1071) on Python's big integers.

Because 2**16 ≡ 1 (mod 65535), the ones'-complement sum of the 16-bit words of a byte string is the whole string read as
one big-endian number, modulo 65535. That is two C loops for a packet of any size.
"""

from __future__ import annotations

from typing import Final

MODULUS: Final = 65535


def word_sum(data: bytes | bytearray) -> int:
    """The sum of the big-endian 16-bit words of ``data``, an odd end padded with zero, modulo 65535."""
    total = int.from_bytes(data, "big") % MODULUS
    return (total << 8) % MODULUS if len(data) & 1 else total


def complement(total: int) -> int:
    """The checksum field (0 … 65534) that makes words summing to ``total`` valid."""
    return -total % MODULUS


def partial(total: int) -> int:
    """The field's value before a device completes it (NEEDS_CSUM): ``total`` folded to 1 … 65535, not complemented."""
    return total % MODULUS or MODULUS
