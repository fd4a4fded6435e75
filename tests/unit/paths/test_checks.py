from __future__ import annotations

import hashlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.paths.checks import (
    Receipt,
    key_of,
    label_of,
    names,
    read_answer_untrusted,
    read_request_untrusted,
    seal_answer,
    seal_request,
)
from warren.proto.stun.attributes import pack_uint32, pack_uint64
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode, looks_like_stun

KEY = bytes(range(32))
TRANSACTION = b"transaction!"
A, B = label_of(b"a" * 32), label_of(b"b" * 32)


def request(**changes: object) -> bytes:
    values: dict[str, object] = {
        "key": KEY,
        "transaction": TRANSACTION,
        "receiver": A,
        "sender": B,
        "controlling": True,
        "nominates": False,
        "relayed": False,
        "epoch": 7,
        "order": 1,
    }
    return seal_request(**(values | changes))  # type: ignore[arg-type]


def test_a_label_is_the_beginning_of_the_hash_of_the_key() -> None:
    assert label_of(b"k" * 32) == hashlib.sha256(b"k" * 32).digest()[:8].hex()


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_a_request_says_what_was_sealed(
    controlling: bool, nominates: bool, relayed: bool, epoch: int, order: int
) -> None:
    data = request(controlling=controlling, nominates=nominates, relayed=relayed, epoch=epoch, order=order)
    assert looks_like_stun(data)
    message = decode_untrusted(data)
    assert names(message) == (A, B)
    assert key_of(message, (KEY,)) == KEY
    found = read_request_untrusted(message)
    assert (found.nominates, found.relayed, found.epoch, found.order) == (nominates, relayed, epoch, order)
    assert not found.padded


@pytest.mark.parametrize("length", [1280 + 32, 1440 + 32, 200])
def test_a_probe_is_exactly_as_long_as_wanted(length: int) -> None:
    data = request(length=length)
    assert len(data) == length
    assert read_request_untrusted(decode_untrusted(data)).padded


@pytest.mark.parametrize("length", [100, 1281])
def test_a_probe_of_an_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="cannot be made"):
        request(length=length)


def test_an_answer_is_shorter_than_any_request() -> None:
    for address in ("192.0.2.1", "2001:db8::1"):
        answer = seal_answer(KEY, TRANSACTION, TransportAddress(ip_address(address), 1), 7)
        assert len(answer) < len(request())


def test_an_answer_says_what_was_seen() -> None:
    seen = TransportAddress(ip_address("198.51.100.7"), 4242)
    message = decode_untrusted(seal_answer(KEY, TRANSACTION, seen, 9))
    assert key_of(message, (b"old" * 8, KEY)) == KEY
    assert read_answer_untrusted(message) == (seen, 9, None)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_bit_is_noticed(at: int, mask: int) -> None:
    data = bytearray(request())
    data[at % len(data)] ^= mask
    try:
        message = decode_untrusted(bytes(data))
    except MalformedPacket:
        return
    assert key_of(message, (KEY,)) is None


def test_a_request_without_integrity_or_with_sha1_is_nobodys() -> None:
    attributes = [(int(Attribute.USERNAME), f"{A}:{B}".encode())]
    bare = encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes)
    weak = encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, key=KEY, sha256=False, sha1=True)
    for data in (bare, weak):
        assert key_of(decode_untrusted(data), (KEY,)) is None


@pytest.mark.parametrize(
    "attributes",
    [
        [],
        [(int(Attribute.PRIORITY), b"\0")],
        [(int(Attribute.PRIORITY), pack_uint32(1))],
        [(int(Attribute.PRIORITY), pack_uint32(1)), (int(Attribute.ICE_CONTROLLING), pack_uint64(1))],
        [
            (int(Attribute.PRIORITY), pack_uint32(1)),
            (int(Attribute.ICE_CONTROLLING), pack_uint64(1)),
            (0xC0F1, pack_uint32(1)),
            (0x7FFF, b""),  # must be understood
        ],
    ],
)
def test_an_authentic_request_with_parts_missing_or_strange_is_refused(attributes: list[tuple[int, bytes]]) -> None:
    data = encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, key=KEY)
    with pytest.raises(MalformedPacket):
        read_request_untrusted(decode_untrusted(data))


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=8))
def test_whatever_an_authentic_member_sends_is_read_or_refused(attributes: list[tuple[int, bytes]]) -> None:
    data = encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, key=KEY)
    try:
        message = decode_untrusted(data)
        names(message)
        for read in (read_request_untrusted, read_answer_untrusted):
            read(message)
    except MalformedPacket:
        return


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (Receipt(5, 1.25), Receipt(5, 1.25)),
        (Receipt((1 << 32) + 7, 0.0), Receipt(7, 0.0)),
        (Receipt(0, 1e12), Receipt(0, 0xFFFF_FFFF / 1000)),
    ],
)
def test_an_answer_says_what_came_of_the_data(said: Receipt, heard: Receipt) -> None:
    seen = TransportAddress(ip_address("198.51.100.7"), 4242)
    message = decode_untrusted(seal_answer(KEY, TRANSACTION, seen, 9, said))
    assert read_answer_untrusted(message).receipt == heard
