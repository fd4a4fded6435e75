from __future__ import annotations

import contextlib
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    pack_uint32,
    pack_uint64,
    pack_xor_address,
    unpack_password_algorithm_untrusted,
    unpack_text_untrusted,
    unpack_uint32_untrusted,
    unpack_uint64_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.credentials import (
    SecurityFeatures,
    features_of_untrusted,
    long_term_key,
    nonce_prefix,
    opaque_string,
    short_term_key,
    userhash,
    verifies,
)
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted, encode

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "vectors/stun/messages.json").read_text(encoding="utf-8")
)
TRANSACTION = bytes(12)
vectors = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["source"]))


def key_of(vector: dict[str, Any]) -> bytes:
    if "realm" not in vector:
        return short_term_key(vector["password"])
    return long_term_key(vector["username"], vector["realm"], vector["password"], sha256="algorithm" in vector)


@vectors
def test_the_published_messages_verify_with_their_key_and_no_other(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["message"])
    message = decode_untrusted(data)
    assert verifies(message, key_of(vector))
    assert verifies(message, key_of(vector), sha256_required=True) == ("algorithm" in vector)
    assert not verifies(message, key_of(vector) + b"x")
    end = message.sha256_at or message.sha1_at
    for at in (0, *range(8, end), end + 4, end + 23):  # the length and the cookie are the decoder's
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        damaged = damaged[: -8 if message.get(Attribute.FINGERPRINT) else None]
        damaged[2:4] = (len(damaged) - 20).to_bytes(2)
        with contextlib.suppress(MalformedPacket):
            assert not verifies(decode_untrusted(damaged), key_of(vector))


@vectors
def test_the_published_messages_hold_the_published_values(vector: dict[str, Any]) -> None:
    message = decode_untrusted(bytes.fromhex(vector["message"]))
    texts = {"software": Attribute.SOFTWARE, "nonce": Attribute.NONCE, "realm": Attribute.REALM}
    for name, attribute in texts.items():
        value = message.get(attribute)
        assert vector.get(name) == (None if value is None else unpack_text_untrusted(value))
    if vector.get("userhash"):
        assert message.get(Attribute.USERHASH) == userhash(vector["username"], vector["realm"])
    elif "username" in vector:
        assert message.get(Attribute.USERNAME) == vector["username"].encode()
    if "priority" in vector:
        assert unpack_uint32_untrusted(message.get(Attribute.PRIORITY) or b"") == vector["priority"]
        assert unpack_uint64_untrusted(message.get(Attribute.ICE_CONTROLLED) or b"") == vector["controlled"]
    if "mapped" in vector:
        host, port = vector["mapped"]
        value = message.get(Attribute.XOR_MAPPED_ADDRESS) or b""
        mapped = TransportAddress(ip_address(host), port)
        assert unpack_xor_address_untrusted(value, message.transaction) == mapped
        assert pack_xor_address(mapped, message.transaction) == value
    if "algorithm" in vector:
        value = message.get(Attribute.PASSWORD_ALGORITHM) or b""
        assert unpack_password_algorithm_untrusted(value).number == vector["algorithm"]


@vectors
def test_our_encoder_makes_the_published_messages(vector: dict[str, Any]) -> None:
    """Padding apart, which some of them fill with spaces and we with zeros: with those whose padding is zero."""
    published = decode_untrusted(bytes.fromhex(vector["message"]))
    integrities = {Attribute.MESSAGE_INTEGRITY, Attribute.MESSAGE_INTEGRITY_SHA256, Attribute.FINGERPRINT}
    ours = encode(
        published.method,
        published.cls,
        published.transaction,
        [(kind, value) for kind, value in published.attributes if kind not in integrities],
        key=key_of(vector),
        sha256="algorithm" in vector,
        sha1="algorithm" not in vector,
        fingerprint=published.get(Attribute.FINGERPRINT) is not None,
    )
    if "realm" in vector:
        assert ours == published.raw
    again = decode_untrusted(ours)
    assert verifies(again, key_of(vector))
    assert [kind for kind, _ in again.attributes] == [kind for kind, _ in published.attributes]


def message(key: bytes, **options: bool) -> Message:
    attributes = ((Attribute.PRIORITY, pack_uint32(7)), (Attribute.ICE_CONTROLLING, pack_uint64(9)))
    return decode_untrusted(encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, key=key, **options))


@given(st.binary(min_size=1, max_size=80), st.binary(min_size=1, max_size=80), st.booleans(), st.booleans())
def test_only_who_knows_the_key_makes_a_message_that_verifies(
    key: bytes, other: bytes, sha1: bool, fingerprint: bool
) -> None:
    for sha256 in (True, False):
        made = message(key, sha1=sha1 or not sha256, sha256=sha256, fingerprint=fingerprint)
        assert verifies(made, key)
        assert verifies(made, key, sha256_required=True) == sha256
        # HMAC pads keys with zeros.
        assert verifies(made, other) == (key.rstrip(b"\0") == other.rstrip(b"\0") and len(key + other) <= 128)


def test_a_message_without_integrity_never_verifies() -> None:
    bare = decode_untrusted(encode(Method.BINDING, Class.REQUEST, TRANSACTION))
    assert not verifies(bare, b"")
    assert not verifies(bare, b"key")
    assert not verifies(Message(1, Class.REQUEST, TRANSACTION, ()), b"key")


def test_the_stronger_integrity_decides() -> None:
    """Or who can forge SHA-1 appends a SHA-256 of no worth."""
    good = encode(Method.BINDING, Class.REQUEST, TRANSACTION, key=b"key", sha1=True)
    forged = good[:-1] + bytes([good[-1] ^ 1])
    assert verifies(decode_untrusted(good), b"key")
    assert not verifies(decode_untrusted(forged), b"key")


def test_a_truncated_integrity_does_not_verify() -> None:
    """RFC 8489 §14.6: only where a usage says so, and Warren has none that does."""
    whole = encode(Method.BINDING, Class.REQUEST, TRANSACTION, key=b"key")
    for length in (16, 28):
        cut = bytearray(whole[: 24 + length])
        cut[2:4] = (4 + length).to_bytes(2)
        cut[22:24] = length.to_bytes(2)
        truncated = decode_untrusted(cut)
        assert truncated.sha256_at == 20
        assert not verifies(truncated, b"key")


def test_what_is_put_in_before_the_integrity_breaks_it() -> None:
    good = encode(Method.BINDING, Class.REQUEST, TRANSACTION, key=b"key")
    more = bytearray(good[:20] + b"\0\x25\0\0" + good[20:])
    more[2:4] = (len(more) - 20).to_bytes(2)
    assert not verifies(decode_untrusted(more), b"key")


def test_names_and_passwords_are_opaque_strings() -> None:
    """RFC 8265 §4.2.2: other spaces are mapped and the composition is canonical, nothing else."""
    assert opaque_string("user one:x") == "user one:x"
    assert opaque_string("a\u00a0b\u3000c") == "a b c"
    assert opaque_string("e\u0301") == "\u00e9"
    assert opaque_string("\u00aa\u2168") == "\u00aa\u2168"
    assert short_term_key("e\u0301") == "\u00e9".encode()
    assert long_term_key("e\u0301", "r", "p", sha256=True) == long_term_key("\u00e9", "r", "p", sha256=True)
    assert len(long_term_key("u", "r", "p", sha256=False)) == 16
    assert long_term_key("u", "r", "p", sha256=True) != long_term_key("u", "r", "q", sha256=True)


@pytest.mark.parametrize("algorithms", [False, True])
@pytest.mark.parametrize("anonymity", [False, True])
def test_a_nonce_names_the_servers_features(algorithms: bool, anonymity: bool) -> None:
    features = SecurityFeatures(algorithms, anonymity)
    assert features_of_untrusted(nonce_prefix(features) + "rest") == features
    assert len(nonce_prefix(features)) == 13


@given(st.text(max_size=30))
def test_any_nonce_names_some_features_or_none(nonce: str) -> None:
    assert features_of_untrusted(nonce) == SecurityFeatures()
    assert isinstance(features_of_untrusted("obMatJos2" + nonce), SecurityFeatures)
