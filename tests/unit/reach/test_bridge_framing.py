"""Trains into streams and back: nothing added, nothing lost, nothing believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.stun.message import Attribute, Class, Method, encode
from warren.proto.turn.channel import wrap_train
from warren.reach.bridge_framing import Framing, LengthFraming, Train, TurnFraming

MESSAGE = encode(Method.BINDING, Class.REQUEST, bytes(12), [(int(Attribute.SOFTWARE), b"abc")])


def channel_data(data: bytes, channel: int = 0x4000) -> bytes:
    return channel.to_bytes(2) + len(data).to_bytes(2) + data


def padded(frame: bytes) -> bytes:
    return frame + bytes(-len(frame) % 4)


def datagrams(trains: list[Train]) -> list[bytes]:
    return [
        bytes(train.data[at : at + train.stride]) for train in trains for at in range(0, len(train.data), train.stride)
    ]


def begun() -> TurnFraming:
    """Of a stream in which the server has spoken."""
    framing = TurnFraming()
    framing.unpack_untrusted(bytearray(MESSAGE), 0, len(MESSAGE))
    return framing


def unpack(framing: Framing, stream: bytes, pieces: random.Random | None = None) -> list[bytes]:
    """As a bridge reads: in pieces, what is not complete is kept."""
    got, kept = [], b""
    at = 0
    while at < len(stream) or not at:
        size = pieces.randint(1, 700) if pieces else max(len(stream), 1)
        buffer = bytearray(b"junk" + kept + stream[at : at + size])
        at += size
        trains, rest = framing.unpack_untrusted(buffer, 4, len(buffer))
        got += datagrams(trains)
        kept = bytes(buffer[rest:])
    assert kept == b""
    return got


def test_a_bulk_train_of_channel_data_travels_as_it_is() -> None:
    train = bytearray(wrap_train(bytes(range(256)) * 20, 1280, 0x4000))
    packed = TurnFraming().pack(train, len(train), 1284)
    assert isinstance(packed, memoryview)
    assert bytes(packed) == bytes(train)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.integers(0))
def test_channel_data_of_any_length_is_padded_in_the_stream(payloads: list[bytes], seed: int) -> None:
    framing = begun()
    frames = [channel_data(data) for data in payloads]
    stream = b"".join(bytes(framing.pack(bytearray(frame), len(frame), len(frame))) for frame in frames)
    assert stream == b"".join(padded(frame) for frame in frames)
    assert unpack(framing, stream, random.Random(seed)) == [padded(frame) for frame in frames]


@given(st.integers(1, 200), st.binary(min_size=1, max_size=4000), st.integers(0))
def test_a_train_of_any_stride_comes_out_as_the_same_datagrams(stride: int, data: bytes, seed: int) -> None:
    framing = begun()
    train = bytearray(wrap_train(data, stride, 0x4ABC))
    stream = bytes(framing.pack(train, len(train), stride + 4))
    want = [padded(channel_data(data[at : at + stride], 0x4ABC)) for at in range(0, len(data), stride)]
    assert unpack(framing, stream, random.Random(seed)) == want


@given(st.integers(1, 200), st.binary(min_size=1, max_size=4000), st.integers(0))
def test_datagrams_behind_their_lengths_come_out_as_they_went_in(stride: int, data: bytes, seed: int) -> None:
    framing = LengthFraming()
    stream = bytes(framing.pack(bytearray(data), len(data), stride))
    want = [data[at : at + stride] for at in range(0, len(data), stride)]
    assert stream == b"".join(len(one).to_bytes(2) + one for one in want)
    assert unpack(framing, stream, random.Random(seed)) == want


def test_messages_and_channel_data_mix() -> None:
    framing = TurnFraming()
    stream = MESSAGE + padded(channel_data(b"12345")) + MESSAGE + MESSAGE + padded(channel_data(b"", 0x4001))
    assert unpack(framing, stream) == [
        MESSAGE,
        padded(channel_data(b"12345")),
        MESSAGE,
        MESSAGE,
        channel_data(b"", 0x4001),
    ]


def test_what_is_alike_comes_out_as_one_train_with_a_shorter_end() -> None:
    stream = channel_data(b"x" * 100) * 5 + channel_data(b"y" * 40) + channel_data(b"z" * 100)
    trains, rest = begun().unpack_untrusted(bytearray(stream), 0, len(stream))
    assert [(len(train.data), train.stride) for train in trains] == [(5 * 104 + 44, 104), (104, 104)]
    assert rest == len(stream)


def test_trains_of_different_channels_are_not_joined() -> None:
    stream = channel_data(b"x" * 100) + channel_data(b"y" * 40, 0x4001)
    trains, _ = begun().unpack_untrusted(bytearray(stream), 0, len(stream))
    assert len(trains) == 2


@pytest.mark.parametrize(
    "datagram",
    [
        b"\x01\x00\x00\x00" + bytes(144),  # a WireGuard handshake has no place in a stream to a TURN server
        channel_data(b"12345678")[:-1],
        channel_data(b"1234") + bytes(4),
        MESSAGE + bytes(4),
        MESSAGE[:-4],
        b"\x40",
        b"\xff" * 20,
    ],
)
def test_datagrams_that_would_confuse_the_other_end_are_left_out(datagram: bytes) -> None:
    both = bytearray(datagram + MESSAGE)
    assert bytes(TurnFraming().pack(both, len(datagram), len(datagram))) == b""


@pytest.mark.parametrize(
    "stream",
    [
        padded(channel_data(b"before anything else")),
        b"HTTP/1.1 302 Found\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x80",
        b"\x50\x00\x00\x00",
        b"\x00\x01\x00\x03" + MESSAGE[4:8],
        b"\x00\x01\x00\x00\x21\x12\xa4\x43",
        MESSAGE + b"\xff",
    ],
)
def test_a_stream_that_is_not_turn_is_refused(stream: bytes) -> None:
    with pytest.raises(MalformedPacket):
        TurnFraming().unpack_untrusted(bytearray(stream), 0, len(stream))


def test_frames_longer_than_a_datagram_can_be_are_skipped() -> None:
    stream = channel_data(bytes(65_535)) + b"\0" + MESSAGE
    assert unpack(begun(), stream) == [MESSAGE]
    stream = b"\xff\xff" + bytes(65_535) + b"\0\1x"
    assert unpack(LengthFraming(), stream) == [b"x"]


def test_empty_datagrams_behind_their_length_mean_nothing() -> None:
    assert unpack(LengthFraming(), b"\0\0\0\0\0\1a\0\0") == [b"a"]


@pytest.mark.parametrize("framing", [begun(), LengthFraming()])
@given(data=st.binary(max_size=2000))
def test_any_bytes_end_in_trains_or_a_refusal(framing: Framing, data: bytes) -> None:
    buffer = bytearray(data)
    try:
        trains, rest = framing.unpack_untrusted(buffer, 0, len(buffer))
    except MalformedPacket:
        return
    assert sum(len(train.data) for train in trains) <= rest <= len(buffer)
    assert all(train.stride > 0 for train in trains)


@pytest.mark.parametrize("framing", [begun(), LengthFraming()])
@given(data=st.binary(max_size=300), stride=st.integers(1, 300))
def test_any_datagrams_make_a_stream_that_can_be_read(framing: Framing, data: bytes, stride: int) -> None:
    buffer = bytearray(data)
    stream = bytes(framing.pack(buffer, len(data), min(stride, max(len(data), 1))))
    _, rest = framing.unpack_untrusted(bytearray(stream), 0, len(stream))
    assert rest == len(stream)
