"""Envelopes: what a signature covers, and that no bytes at all do more than fail to be one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.networks import signing_key
from warren.errors import MalformedPacket
from warren.identity.signing import VerifyKey
from warren.model.envelope import (
    ENVELOPE_BYTES_MAX,
    KIND_CHARACTERS_MAX,
    PAYLOAD_BYTES_MAX,
    Envelope,
    is_signed_by,
    pack_envelope,
    seal,
    signed_bytes,
    unpack_envelope_untrusted,
)

KEY = signing_key("a")
KINDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=KIND_CHARACTERS_MAX)


@given(kind=KINDS, payload=st.binary(max_size=200))
def test_what_was_packed_unpacks_and_is_signed(kind: str, payload: bytes) -> None:
    envelope = seal(kind, payload, KEY)
    assert unpack_envelope_untrusted(pack_envelope(envelope)) == envelope
    assert is_signed_by(envelope, KEY.verify_key)
    assert not is_signed_by(envelope, signing_key("b").verify_key)


@given(st.binary(max_size=400))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\x81\xa7payload\xc6\xff\xff\xff\xff")
@example(b"\x81\xa4kind\xa2\xff\xfe")
@example(b"\x81\xa1x" + b"\x91" * 10_000)
def test_any_bytes_only_fail_to_be_an_envelope(data: bytes) -> None:
    try:
        envelope = unpack_envelope_untrusted(data)
    except MalformedPacket:
        return
    assert not is_signed_by(envelope, KEY.verify_key)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    envelope = seal("node", b"payload", KEY)
    packed = bytearray(pack_envelope(envelope))
    packed[at % len(packed)] ^= 1 << bit
    try:
        changed = unpack_envelope_untrusted(bytes(packed))
    except MalformedPacket:
        return
    assert not is_signed_by(changed, KEY.verify_key)


def test_a_cut_or_lengthened_envelope_is_none() -> None:
    packed = pack_envelope(seal("node", b"payload", KEY))
    for length in range(len(packed)):
        with pytest.raises(MalformedPacket):
            unpack_envelope_untrusted(packed[:length])
    with pytest.raises(MalformedPacket):
        unpack_envelope_untrusted(packed + b"\0")


def test_a_signature_is_for_one_kind_payload_and_signer() -> None:
    envelope = seal("node", b"payload", KEY)
    for other in (
        {"kind": "membership"},
        {"kind": "nod"},
        {"payload": b"payloaD"},
        {"payload": b""},
        {"signer": signing_key("b").verify_key.raw},
    ):
        assert not is_signed_by(msgspec.structs.replace(envelope, **other), KEY.verify_key)
    assert not is_signed_by(
        msgspec.structs.replace(envelope, signature=signing_key("b").sign(signed_bytes("node", b"payload"))),
        KEY.verify_key,
    )


def test_a_signature_over_something_else_is_none_over_a_document() -> None:
    for message in (b"payload", b"node\0payload", b"warren document 1\0payload", b"warren enrol 1\0node\0payload"):
        envelope = Envelope(kind="node", payload=b"payload", signer=KEY.verify_key.raw, signature=KEY.sign(message))
        assert not is_signed_by(envelope, KEY.verify_key)


@given(one=st.tuples(KINDS, st.binary(max_size=8)), other=st.tuples(KINDS, st.binary(max_size=8)))
@example(one=("node", b"s"), other=("nodes", b""))
def test_two_documents_never_have_the_same_bytes_to_sign(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)


def changed(**values: object) -> bytes:
    whole = msgspec.structs.asdict(seal("node", b"payload", KEY))
    return msgspec.msgpack.encode({**whole, **values})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", ""),
        ("kind", "x" * (KIND_CHARACTERS_MAX + 1)),
        ("kind", "no\0de"),
        ("kind", "node\n"),
        ("kind", "nöde"),
        ("kind", 1),
        ("payload", "text"),
        ("payload", None),
        ("signer", bytes(31)),
        ("signer", bytes(33)),
        ("signature", bytes(63)),
        ("signature", bytes(65)),
        ("signature", b""),
    ],
)
def test_each_field_has_its_form(field: str, value: object) -> None:
    with pytest.raises(MalformedPacket):
        unpack_envelope_untrusted(changed(**{field: value}))


@pytest.mark.parametrize("field", ["kind", "payload", "signer", "signature"])
def test_no_field_may_be_missing(field: str) -> None:
    whole = msgspec.structs.asdict(seal("node", b"payload", KEY))
    del whole[field]
    with pytest.raises(MalformedPacket):
        unpack_envelope_untrusted(msgspec.msgpack.encode(whole))


def test_fields_of_later_versions_are_passed_over() -> None:
    assert is_signed_by(unpack_envelope_untrusted(changed(colour="blue")), KEY.verify_key)


def test_size_has_a_limit() -> None:
    largest = seal("x" * KIND_CHARACTERS_MAX, bytes(PAYLOAD_BYTES_MAX), KEY)
    packed = pack_envelope(largest)
    assert len(packed) <= ENVELOPE_BYTES_MAX
    assert unpack_envelope_untrusted(packed) == largest
    with pytest.raises(MalformedPacket, match="the most"):
        unpack_envelope_untrusted(pack_envelope(seal("x", bytes(PAYLOAD_BYTES_MAX + 1), KEY)))
    with pytest.raises(MalformedPacket, match="the most"):
        unpack_envelope_untrusted(packed + bytes(ENVELOPE_BYTES_MAX))


def test_an_envelope_shows_no_payload() -> None:
    assert "hush" not in repr(seal("ticket", b"hush", KEY))


def test_a_signer_that_is_no_key_signs_nothing() -> None:
    envelope = msgspec.structs.replace(seal("node", b"payload", KEY), signer=bytes(32))
    assert not is_signed_by(envelope, VerifyKey(bytes(32)))
