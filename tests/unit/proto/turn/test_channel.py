"""Trains of ChannelData: what goes in comes out, wherever the kernel cut; nothing hostile passes for data."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.turn.channel import (
    CHANNEL_MAX,
    CHANNEL_MIN,
    HEADER_BYTES,
    Run,
    channel_of_train,
    rechannel_train,
    unwrap_train_untrusted,
    wrap_train,
)

channels = st.integers(CHANNEL_MIN, CHANNEL_MAX)


def channel_data(channel: int, data: bytes, padding: int = 0) -> bytes:
    return struct.pack("!HH", channel, len(data)) + data + bytes(padding)


def unwrapped(train: bytes, stride: int) -> tuple[list[tuple[int, bytes]], int]:
    """Every datagram of ``train`` with its channel, and how many were malformed."""
    buffer = bytearray(train) + b"untouched"
    runs, malformed = unwrap_train_untrusted(buffer, len(train), stride)
    assert buffer[len(train) :] == b"untouched"
    found = []
    for run in runs:
        starts = range(run.at, run.end, run.stride) if run.stride else [run.at]
        found += [(run.channel, bytes(buffer[at : min(at + run.stride, run.end)])) for at in starts]
    return found, malformed


def split(train: bytes, stride: int) -> list[bytes]:
    return [train[at : at + stride] for at in range(0, len(train), stride)]


@given(st.binary(min_size=1, max_size=400), st.integers(1, 80), channels)
def test_a_wrapped_train_is_unwrapped_to_the_same_datagrams(train: bytes, stride: int, channel: int) -> None:
    wrapped = wrap_train(train, stride, channel)
    assert split(wrapped, stride + HEADER_BYTES) == [channel_data(channel, data) for data in split(train, stride)]
    assert unwrapped(wrapped, stride + HEADER_BYTES) == ([(channel, data) for data in split(train, stride)], 0)


def test_an_unwrapped_train_is_one_run() -> None:
    wrapped = bytearray(wrap_train(b"a" * 1000 + b"b" * 10, 100, 0x4001))
    assert unwrap_train_untrusted(wrapped, len(wrapped), 104) == ([Run(0x4001, 0, 1010, 100)], 0)
    assert wrapped[:1010] == b"a" * 1000 + b"b" * 10


@given(
    st.lists(st.tuples(channels | st.just(0), st.binary(min_size=1, max_size=9), st.integers(0, 3)), max_size=12),
    st.integers(16, 20),
)
def test_datagrams_of_several_channels_and_foreign_ones_come_by_channel_in_their_order(
    content: list[tuple[int, bytes, int]], stride: int
) -> None:
    # Whatever the data, each datagram but the last is filled up to the stride: as ChannelData it is then malformed.
    datagrams = [
        channel_data(channel, data, padding) if channel else b"\0" + data for channel, data, padding in content
    ]
    train = b"".join(datagram.ljust(stride, b"\1") for datagram in datagrams[:-1]) + b"".join(datagrams[-1:])
    expected: list[tuple[int, bytes]] = []
    malformed = 0
    for i, (channel, data, _) in enumerate(content):
        last = i == len(content) - 1
        if channel == 0:
            expected.append((0, datagrams[i] if last else datagrams[i].ljust(stride, b"\1")))
        elif last or stride - HEADER_BYTES - len(data) <= 3:
            expected.append((channel, data))
        else:
            malformed += 1
    order = list(dict.fromkeys(channel for channel, _ in expected))
    expected.sort(key=lambda one: order.index(one[0]))
    assert unwrapped(train, stride) == (expected, malformed)


def test_two_channels_by_turns_are_two_runs() -> None:
    train = bytearray(b"".join(channel_data(0x4000 + i % 2, bytes([i]) * 50) for i in range(10)) + b"\0\1stun")
    assert unwrap_train_untrusted(train, len(train), 54) == (
        [Run(0x4000, 0, 250, 50), Run(0x4001, 250, 500, 50), Run(0, 500, 506, 6)],
        0,
    )


@pytest.mark.parametrize("sizes", [(5, 5, 5), (5, 6, 7, 8), (8, 5, 8), (6, 6, 1), (5, 6)])
def test_padding_to_four_bytes_is_taken_off(sizes: tuple[int, ...]) -> None:
    data = [bytes([i + 1]) * size for i, size in enumerate(sizes)]
    train = b"".join(channel_data(0x4FFF, one, -len(one) % 4) for one in data)
    assert unwrapped(train, 12) == ([(0x4FFF, one) for one in data], 0)


@pytest.mark.parametrize("told", [0, 5, 10, 0xFFFF])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_length_that_does_not_fit_costs_that_datagram_only(told: int, position: int) -> None:
    datagrams = [channel_data(0x4000, b"12345678"[:size]) for size in (8, 8, 8)]
    datagrams[position] = struct.pack("!HH", 0x4000, told) + b"12345678"
    found, malformed = unwrapped(b"".join(datagrams), 12)
    if told == 5:  # the most that padding may be
        assert (found[position], malformed) == ((0x4000, b"12345"), 0)
    else:
        assert (found, malformed) == ([(0x4000, b"12345678")] * 2, 1)


def test_a_datagram_without_data_is_legal() -> None:
    assert unwrapped(channel_data(0x4000, b""), 4) == ([(0x4000, b"")], 0)
    assert unwrapped(channel_data(0x4000, b"") * 3, 4) == ([(0x4000, b"")] * 3, 0)


@given(st.binary(max_size=300), st.integers(0, 40))
def test_arbitrary_bytes_give_runs_inside_the_train(data: bytes, stride: int) -> None:
    for train in (data, b"\x40\x00" + data, wrap_train(b"x" * 50, 10, 0x4000) + data):
        buffer = bytearray(train)
        runs, _ = unwrap_train_untrusted(buffer, len(train), stride)
        assert len(buffer) == len(train)
        assert all(0 <= run.at <= run.end <= len(train) and run.stride >= 0 for run in runs)
        channel_of_train(buffer, len(buffer), stride)


@given(st.binary(min_size=1, max_size=300), st.integers(1, 60), channels, channels)
def test_a_train_moves_to_another_channel_in_place(train: bytes, stride: int, before: int, after: int) -> None:
    buffer = bytearray(wrap_train(train, stride, before))
    assert channel_of_train(buffer, len(buffer), stride + HEADER_BYTES) == before
    rechannel_train(buffer, len(buffer), stride + HEADER_BYTES, after)
    assert bytes(buffer) == wrap_train(train, stride, after)


@pytest.mark.parametrize("byte", [0, 1, 2, 3, 12, 13, 14, 15, 36, 37, 38, 39])
def test_a_train_is_of_no_channel_when_one_header_differs(byte: int) -> None:
    buffer = bytearray(wrap_train(b"12345678" * 4, 8, 0x4444))
    assert channel_of_train(buffer, len(buffer), 12) == 0x4444
    buffer[byte] ^= 0x11
    assert channel_of_train(buffer, len(buffer), 12) in (0, *([0x5544, 0x4455] if byte < 2 else []))


def test_channel_numbers_and_strides_that_are_none_are_refused() -> None:
    for stride, channel in ((10, 0x3FFF), (10, 0x5000), (0, 0x4000), (0x10000, 0x4000)):
        with pytest.raises(ValueError, match="channel number"):
            wrap_train(b"x", stride, channel)
    with pytest.raises(ValueError, match="channel number"):
        rechannel_train(bytearray(8), 8, 8, 0x5000)
