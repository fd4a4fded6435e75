from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.stun.message import (
    ATTRIBUTES_MAX,
    MESSAGE_BYTES_MAX,
    Attribute,
    Class,
    Message,
    Method,
    decode_untrusted,
    encode,
    looks_like_stun,
    unknown_required,
)

TRANSACTION = bytes(range(12))
KEY = b"a key"

transactions = st.binary(min_size=12, max_size=12)
plain_attributes = st.lists(
    st.tuples(
        st.integers(0, 0xFFFF).filter(
            lambda kind: (
                kind not in {Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT}
            )
        ),
        st.binary(max_size=40),
    ),
    max_size=12,
)


def request(*attributes: tuple[int, bytes], **options: Any) -> bytes:
    return encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, **options)


def raw(body: bytes, *, kind: int = 1, length: int | None = None, cookie: int = 0x2112A442) -> bytes:
    return struct.pack(">HHI", kind, len(body) if length is None else length, cookie) + TRANSACTION + body


@given(st.integers(0, 0xFFF), st.sampled_from(Class), transactions, plain_attributes, st.booleans())
def test_what_was_encoded_is_decoded(
    method: int, cls: Class, transaction: bytes, attributes: list[tuple[int, bytes]], fingerprint: bool
) -> None:
    data = encode(method, cls, transaction, attributes, fingerprint=fingerprint)
    message = decode_untrusted(data)
    assert (message.method, message.cls, message.transaction, message.raw) == (method, cls, transaction, data)
    assert message.attributes[: len(attributes)] == tuple(attributes)
    assert len(message.attributes) == len(attributes) + fingerprint
    for view in (bytearray(data), memoryview(data)):
        assert decode_untrusted(view) == message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_message_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedPacket):
        decode_untrusted(data)


@given(st.binary(max_size=120).map(lambda body: body[: len(body) & ~3]), st.integers(0, 0x3FFF))
def test_arbitrary_attributes_are_a_message_or_malformed(body: bytes, kind: int) -> None:
    try:
        message = decode_untrusted(raw(body, kind=kind))
    except MalformedPacket:
        return
    assert sum(4 + len(value) + (-len(value) & 3) for _, value in message.attributes) <= len(body)


@given(st.data())
def test_a_damaged_message_is_a_message_or_malformed(data: st.DataObject) -> None:
    good = request((Attribute.USERNAME, b"abcde"), (Attribute.PRIORITY, bytes(4)), key=KEY, sha1=True, fingerprint=True)
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for candidate in (damaged, damaged[:cut]):
        with contextlib.suppress(MalformedPacket):
            decode_untrusted(candidate)


def test_the_types_are_the_rfcs() -> None:
    """RFC 8489 §5, RFC 8656 §17; CARRY has a second byte that WireGuard's messages never have."""
    types = {
        (Method.BINDING, Class.REQUEST): 0x0001,
        (Method.BINDING, Class.SUCCESS): 0x0101,
        (Method.BINDING, Class.ERROR): 0x0111,
        (Method.BINDING, Class.INDICATION): 0x0011,
        (Method.ALLOCATE, Class.REQUEST): 0x0003,
        (Method.CHANNEL_BIND, Class.ERROR): 0x0119,
        (Method.DATA, Class.INDICATION): 0x0017,
        (Method.CARRY, Class.INDICATION): 0x02F1,
        (0xFFF, Class.ERROR): 0x3FFF,
    }
    for (method, cls), expected in types.items():
        assert int.from_bytes(encode(method, cls, TRANSACTION)[:2]) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw(b"")[:19],
        raw(b"", cookie=0x2112A443),
        raw(b"", kind=0x4001),
        raw(b"", kind=0x8001),
        raw(b"", length=4),
        raw(bytes(4), length=0),
        raw(bytes(3)),
        raw(b"\0\6\0\1"),  # a value of one byte and its padding are missing
        raw(b"\0\6\0\5abcd"),
        raw(b"\0\6\xff\xffabcd"),
        raw(b"\0\6\0\0" * (ATTRIBUTES_MAX + 1)),
        raw(b"\0\6" + struct.pack(">H", MESSAGE_BYTES_MAX) + bytes(MESSAGE_BYTES_MAX)),
        raw(b"\0\x08\0\x10" + bytes(16)),  # integrities of other lengths
        raw(b"\0\x08\0\x18" + bytes(24)),
        raw(b"\0\x1c\0\x0c" + bytes(12)),
        raw(b"\0\x1c\0\x12" + bytes(20)),
        raw(b"\0\x1c\0\x24" + bytes(36)),
    ],
)
def test_what_breaks_a_limit_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode_untrusted(data)


def test_as_much_as_the_limits_allow_is_decoded() -> None:
    assert len(decode_untrusted(raw(b"\0\6\0\0" * ATTRIBUTES_MAX)).attributes) == ATTRIBUTES_MAX
    padding = MESSAGE_BYTES_MAX - 24
    assert decode_untrusted(request((Attribute.PADDING, bytes(padding)))).get(Attribute.PADDING) == bytes(padding)
    with pytest.raises(MalformedPacket):
        decode_untrusted(request((Attribute.PADDING, bytes(padding))), limit=MESSAGE_BYTES_MAX - 4)


def test_padding_may_have_any_value_and_is_not_part_of_it() -> None:
    message = decode_untrusted(raw(b"\0\6\0\5abcde\xff\xfe\xfd"))
    assert message.get(Attribute.USERNAME) == b"abcde"


def test_the_first_of_equal_attributes_counts() -> None:
    message = decode_untrusted(request((Attribute.USERNAME, b"one"), (Attribute.USERNAME, b"two")))
    assert message.get(Attribute.USERNAME) == b"one"
    assert message.get(Attribute.REALM) is None


def test_after_an_integrity_only_a_stronger_one_and_the_fingerprint_count() -> None:
    late = struct.pack(">HH4s", Attribute.PRIORITY, 4, b"late")
    sha1 = struct.pack(">HH20s", Attribute.MESSAGE_INTEGRITY, 20, bytes(20))
    sha256 = struct.pack(">HH32s", Attribute.MESSAGE_INTEGRITY_SHA256, 32, bytes(32))

    def kinds(body: bytes) -> list[int]:
        return [kind for kind, _ in decode_untrusted(raw(body)).attributes]

    assert kinds(sha1 + late) == [Attribute.MESSAGE_INTEGRITY]
    assert kinds(sha1 + sha1) == [Attribute.MESSAGE_INTEGRITY]
    assert kinds(sha256 + late) == [Attribute.MESSAGE_INTEGRITY_SHA256]
    assert kinds(sha256 + sha1) == [Attribute.MESSAGE_INTEGRITY_SHA256]
    both = [Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256]
    assert kinds(sha1 + late + sha256 + late + sha256) == both
    message = request((Attribute.PRIORITY, b"1234"), key=KEY, sha1=True, fingerprint=True)
    assert [kind for kind, _ in decode_untrusted(message).attributes][1:] == [*both, Attribute.FINGERPRINT]


def test_a_fingerprint_is_right_and_last() -> None:
    good = request((Attribute.PRIORITY, b"1234"), fingerprint=True)
    assert decode_untrusted(good).get(Attribute.FINGERPRINT) == good[-4:]
    for at in (0, 9, 25, len(good) - 1):
        damaged = bytearray(good)
        damaged[at] ^= 1
        with pytest.raises(MalformedPacket):
            decode_untrusted(damaged)
    # A second attribute behind it, with a fingerprint that is right for that length.
    head = raw(b"", length=16)
    checksum = zlib.crc32(head) ^ 0x5354554E
    behind = head + struct.pack(">HHI", Attribute.FINGERPRINT, 4, checksum) + struct.pack(">HHI", 0x24, 4, 0)
    with pytest.raises(MalformedPacket):
        decode_untrusted(behind)
    with pytest.raises(MalformedPacket):
        decode_untrusted(raw(struct.pack(">HHQ", Attribute.FINGERPRINT, 8, 0)))


def test_other_protocols_of_the_port_do_not_look_like_stun() -> None:
    assert looks_like_stun(request())
    assert looks_like_stun(memoryview(encode(Method.CARRY, Class.INDICATION, TRANSACTION)))
    for first in range(1, 5):  # WireGuard, with a sender index that happens to be the cookie
        assert not looks_like_stun(bytes([first, 0, 0, 0]) + b"\x21\x12\xa4\x42" + bytes(140))
    assert not looks_like_stun(b"\x40\x00\x00\x10" + request())
    assert not looks_like_stun(request()[:19])
    assert not looks_like_stun(raw(b"", cookie=1))


def test_the_unknown_attributes_are_those_that_must_be_understood() -> None:
    attributes = (
        (0x7777, b""),
        (Attribute.PRIORITY, bytes(4)),
        (0x0001, b""),
        (0x7777, b"again"),
        (0xC000, b""),
        (Attribute.SOFTWARE, b""),
    )
    message = decode_untrusted(request(*attributes, key=KEY, sha1=True, fingerprint=True))
    assert unknown_required(message, {Attribute.PRIORITY}) == (0x7777, 0x0001)
    assert unknown_required(message, {Attribute.PRIORITY, 0x7777, 0x0001}) == ()


def test_secrets_and_raw_bytes_stay_out_of_the_representation() -> None:
    message = decode_untrusted(request(key=os.urandom(8)))
    assert "raw" not in repr(message)
    assert isinstance(message, Message)
