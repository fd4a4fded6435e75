"""Frames of a stream: cut as they come, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.stun.message import Class, Method, encode
from warren.relay.streams import Garbage, Message, Train, frame_train, take_frames_untrusted

BINDING = encode(Method.BINDING, Class.REQUEST, bytes(12))


def data_of(frames: list[Message | Train]) -> list[bytes | tuple[int, bytes]]:
    """Each message and each datagram by itself."""
    found: list[bytes | tuple[int, bytes]] = []
    for frame in frames:
        if isinstance(frame, Message):
            found.append(frame.data)
        else:
            starts = range(0, len(frame.data) or 1, frame.stride or 1)
            found += [(frame.channel, frame.data[at : at + frame.stride]) for at in starts]
    return found


@given(
    st.lists(
        st.one_of(st.just(BINDING), st.tuples(st.sampled_from([0x4000, 0x4FFF, 0x7FFF]), st.binary(max_size=9))),
        max_size=12,
    ),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_what_was_framed_comes_out_whatever_the_pieces(items: list[bytes | tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(one if isinstance(one, bytes) else frame_train(one[0], one[1], len(one[1])) for one in items)
    inbox = bytearray()
    found: list[bytes | tuple[int, bytes]] = []
    at = 0
    for number in range(len(stream) + 1):
        step = cuts[number % len(cuts)]
        inbox += stream[at : at + step]
        at += step
        found += data_of(take_frames_untrusted(inbox, message_bytes_max=2048))
        if at >= len(stream):
            break
    assert found == items
    assert not inbox


def test_frames_of_one_size_are_one_train() -> None:
    inbox = bytearray(frame_train(0x4001, b"abcdeABCDE12", 5))
    assert take_frames_untrusted(inbox, message_bytes_max=2048) == [
        Train(0x4001, b"abcdeABCDE", 5),
        Train(0x4001, b"12", 2),
    ]


@pytest.mark.parametrize(
    "data", [b"\x80\0\0\0", b"\xff\xff\xff\xff", b"\0\1\0\3", b"\0\1\0\0\0\0\0\0", b"\0\1\x20\0\x21\x12\xa4\x42"]
)
def test_what_cannot_be_turn_is_garbage(data: bytes) -> None:
    with pytest.raises(Garbage):
        take_frames_untrusted(bytearray(data), message_bytes_max=2048)


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_garbage(data: bytes) -> None:
    inbox = bytearray(data)
    try:
        take_frames_untrusted(inbox, message_bytes_max=2048)
    except Garbage:
        return
    assert len(inbox) <= len(data)
