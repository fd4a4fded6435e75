"""The codec of the control port: every value survives it, and whatever else comes is malformed."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.identity.keys import PublicKey
from warren.model.datagrams import DATAGRAM_BYTES_MAX, ControlDatagram, PathWanted, PeerHeard
from warren.model.tunnel import TransportAddress, Way
from warren.proto.control_port import (
    MESSAGE_BYTES_MAX,
    HandOver,
    Hello,
    Message,
    TakeBack,
    pack,
    unpack_untrusted,
)

remotes = st.builds(TransportAddress, st.ip_addresses(), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1))
ways = st.builds(
    Way,
    source=st.none() | st.ip_addresses(),
    interface=st.integers(0, 2**31 - 1),
    channel=st.integers(0, 0xFFFF),
    socket=st.integers(0, 0xFFFF),
)
keys = st.builds(PublicKey, st.binary(min_size=32, max_size=32))
numbers = st.integers(0, 255)
messages = st.one_of(
    st.builds(ControlDatagram, st.binary(max_size=200), remotes, ways, st.booleans()),
    st.builds(PeerHeard, keys, remotes, ways),
    st.builds(PathWanted, keys),
    st.builds(Hello, st.lists(numbers, max_size=8).map(tuple)),
    st.builds(HandOver, numbers),
    st.builds(TakeBack, numbers),
)


@given(messages)
def test_a_message_survives_the_socket(message: Message) -> None:
    packed = pack(message)
    assert len(packed) <= MESSAGE_BYTES_MAX
    assert unpack_untrusted(packed) == message


@given(messages, st.binary(max_size=60), st.integers(0, 60))
def test_arbitrary_bytes_are_a_message_or_malformed(message: Message, noise: bytes, at: int) -> None:
    for data in (noise, pack(message)[:at], pack(message) + noise, pack(message)[:at] + noise):
        with contextlib.suppress(MalformedPacket):
            assert pack(unpack_untrusted(data)) == data


def test_an_interface_that_no_kernel_has_is_malformed() -> None:
    packed = pack(ControlDatagram(b"x", TransportAddress(ip_address("192.0.2.1"), 9), Way(interface=2**31)))
    with pytest.raises(MalformedPacket):
        unpack_untrusted(packed)


def test_the_longest_datagram_fits_and_a_longer_one_is_refused() -> None:
    remote = TransportAddress(ip_address("192.0.2.1"), 3478)
    longest = ControlDatagram(bytes(DATAGRAM_BYTES_MAX), remote)
    assert unpack_untrusted(pack(longest)) == longest
    with pytest.raises(ValueError, match="at most 2048 bytes"):
        pack(ControlDatagram(bytes(DATAGRAM_BYTES_MAX + 1), remote))
    with pytest.raises(MalformedPacket):
        unpack_untrusted(pack(longest) + b"x")
