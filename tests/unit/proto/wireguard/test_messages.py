from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.wireguard.messages import (
    CookieReply,
    Initiation,
    Response,
    pack_cookie_reply,
    pack_initiation,
    pack_response,
    unpack_cookie_reply_untrusted,
    unpack_initiation_untrusted,
    unpack_response_untrusted,
)

UNPACK = [
    (unpack_initiation_untrusted, 1, 148),
    (unpack_response_untrusted, 2, 92),
    (unpack_cookie_reply_untrusted, 3, 64),
]
MACS = bytes(range(32))


def test_the_layouts_are_the_papers() -> None:
    noise = bytes(range(100, 208))
    assert pack_initiation(Initiation(0x04030201, noise)) == bytes([1, 0, 0, 0, 1, 2, 3, 4]) + noise
    noise = bytes(range(48))
    message = pack_response(Response(0x04030201, 0x08070605, noise))
    assert message == bytes([2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]) + noise
    reply = pack_cookie_reply(CookieReply(0x04030201, bytes(24), bytes(range(32))))
    assert reply == bytes([3, 0, 0, 0, 1, 2, 3, 4]) + bytes(24) + bytes(range(32))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(min_size=108, max_size=108))
def test_what_was_packed_is_unpacked(sender: int, receiver: int, noise: bytes) -> None:
    initiation = Initiation(sender, noise)
    assert unpack_initiation_untrusted(pack_initiation(initiation) + MACS) == initiation
    response = Response(sender, receiver, noise[:48])
    assert unpack_response_untrusted(pack_response(response) + MACS) == response
    reply = CookieReply(receiver, noise[:24], noise[24:56])
    assert unpack_cookie_reply_untrusted(pack_cookie_reply(reply)) == reply


exact_sizes = st.sampled_from([148, 92, 64]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@pytest.mark.parametrize(("unpack", "kind", "size"), UNPACK)
@given(data=st.one_of(st.binary(max_size=200), exact_sizes))
def test_arbitrary_bytes_are_malformed_or_of_the_right_type(
    unpack: Callable[[bytes], Any], kind: int, size: int, data: bytes
) -> None:
    try:
        unpack(data)
    except MalformedPacket:
        assert len(data) != size or data[:4] != bytes([kind, 0, 0, 0])
    else:
        assert len(data) == size
        assert data[:4] == bytes([kind, 0, 0, 0])


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_type_and_reserved_bytes_must_be_exact(at: int) -> None:
    message = bytearray(pack_initiation(Initiation(1, bytes(108))) + MACS)
    message[at] ^= 4
    with pytest.raises(MalformedPacket):
        unpack_initiation_untrusted(message)
