"""The Internet checksum, against the words summed one by one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packets import rfc1071
from warren.proto.ip.checksum import complement, partial, word_sum


@given(st.binary(max_size=3000))
def test_the_complement_of_the_sum_is_the_checksum_of_rfc_1071(data: bytes) -> None:
    checksum = complement(word_sum(data))
    # Ones' complement has two zeros; the words' own sum shows only 0 for both.
    assert checksum == rfc1071(data) % 0xFFFF


@pytest.mark.parametrize("size", [0, 1, 2, 511, 512, 513, 514, 1368, 1369, 65535])
def test_a_sum_is_right_at_every_size_that_is_folded_differently(size: int) -> None:
    data = bytes(i * 151 & 0xFF for i in range(size))
    assert complement(word_sum(data)) == rfc1071(data) % 0xFFFF


def test_the_example_of_rfc_1071_sums_up() -> None:
    assert word_sum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_summed_alike(view: type) -> None:
    assert word_sum(view(b"\x12\x34\x56")) == 0x1234 + 0x5600


@given(st.binary(min_size=2, max_size=100).filter(any))
def test_a_partial_sum_completed_by_a_device_is_the_checksum(data: bytes) -> None:
    pseudo, rest = data[: len(data) // 4 * 2], data[len(data) // 4 * 2 :]
    field = partial(word_sum(pseudo) + 1)
    assert 1 <= field <= 0xFFFF
    assert complement(field + word_sum(rest)) == rfc1071(pseudo + struct.pack(">H", 1) + rest) % 0xFFFF
