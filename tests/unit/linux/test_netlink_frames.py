"""Netlink's frames: taken apart as the kernel puts them together, and never beyond their end."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from warren.linux.netlink_frames import HEADER, NLMSG_ERROR, Message, attributes, error_number, messages


def message(kind: int, number: int, body: bytes) -> bytes:
    framed = HEADER.pack(HEADER.size + len(body), kind, 0, number, 0) + body
    return framed + bytes(-len(framed) % 4)


def test_messages_come_in_order_with_their_bodies() -> None:
    data = message(20, 7, b"abcde") + message(NLMSG_ERROR, 8, struct.pack("=i", -2))
    first, second = messages(data)
    assert (first.kind, first.number, data[first.start : first.end]) == (20, 7, b"abcde")
    assert (second.kind, second.number, error_number(data, second)) == (NLMSG_ERROR, 8, 2)


def test_attributes_come_without_the_bits_of_their_type() -> None:
    data = struct.pack("=HH", 5, 1) + b"a" + bytes(3) + struct.pack("=HH", 8, 2 | 0xC000) + b"abcd"
    assert [(kind, data[start:end]) for kind, start, end in attributes(data, 0, len(data))] == [(1, b"a"), (2, b"abcd")]


@given(st.binary(max_size=100))
def test_any_bytes_are_taken_apart_within_their_bounds(data: bytes) -> None:
    for one in messages(data):
        assert isinstance(one, Message)
        assert 0 <= one.start <= one.end <= len(data)
        for _, start, end in attributes(data, one.start, one.end):
            assert one.start <= start <= end <= one.end
