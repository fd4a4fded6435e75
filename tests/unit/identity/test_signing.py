"""Signing keys: one signature per message, one spelling per key, and no way to see a secret."""

from __future__ import annotations

import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import signing_key
from warren.identity.signing import SigningKey, VerifyKey

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the base point, RFC 8032 §5.1
FIELD = 2**255 - 19

# RFC 8032 §7.1: seed, public key, message, signature.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey(bytes.fromhex(seed))
    assert key.verify_key.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.verify_key.verifies(bytes.fromhex(signature), bytes.fromhex(message))


def test_a_signature_has_one_form_only() -> None:
    key = signing_key("a")
    signature = key.sign(b"message")
    s = int.from_bytes(signature[32:], "little")
    multiples = range(1, (2**256 - s) // ORDER + 1)
    assert len(multiples) > 10
    for multiple in multiples:
        other = signature[:32] + (s + multiple * ORDER).to_bytes(32, "little")
        assert not key.verify_key.verifies(other, b"message")
    negated = signature[:32] + (ORDER - s).to_bytes(32, "little")
    assert not key.verify_key.verifies(negated, b"message")


def test_a_signature_changed_in_any_bit_or_length_is_refused() -> None:
    key = signing_key("a")
    signature = key.sign(b"message")
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not key.verify_key.verifies(bytes(changed), b"message")
    for length in range(64):
        assert not key.verify_key.verifies(signature[:length], b"message")
    assert not key.verify_key.verifies(signature + b"\0", b"message")
    assert not key.verify_key.verifies(signature, b"massage")
    assert not signing_key("b").verify_key.verifies(signature, b"message")


SMALL_ORDER = [
    *(0, 1, FIELD - 1),
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
]


def test_a_key_of_small_order_verifies_nothing() -> None:
    neutral = b"\1" + bytes(31)
    anybodys = neutral + bytes(32)  # R = 0, S = 0: made without any private key
    Ed25519PublicKey.from_public_bytes(neutral).verify(anybodys, b"message")  # OpenSSL would take it
    accepted = 0
    for y in SMALL_ORDER:
        for sign in (0, 1 << 255):
            key = VerifyKey((y | sign).to_bytes(32, "little"))
            for number in range(16):
                accepted += key.verifies(anybodys, b"message %d" % number)
    assert accepted == 0


def test_a_second_spelling_of_a_key_verifies_nothing() -> None:
    anybodys = b"\1" + bytes(31) + bytes(32)
    for y in range(FIELD, 2**255):
        assert not VerifyKey(y.to_bytes(32, "little")).verifies(anybodys, b"message")


@given(raw=st.binary(min_size=32, max_size=32), signature=st.binary(max_size=80), message=st.binary(max_size=80))
def test_whatever_a_key_is_it_verifies_nothing_by_chance_and_never_raises(
    raw: bytes, signature: bytes, message: bytes
) -> None:
    assert not VerifyKey(raw).verifies(signature, message)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_what_is_written(raw: bytes) -> None:
    key = VerifyKey(raw)
    assert VerifyKey.from_text(str(key)) == key
    assert len(str(key)) == 52
    assert str(key).startswith(key.short)


@given(st.text(max_size=60))
def test_any_other_text_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match="52 characters"):
        VerifyKey.from_text(text)


def test_a_key_has_one_spelling() -> None:
    text = str(signing_key("a").verify_key)
    last = "abcdefghijklmnopqrstuvwxyz234567".index(text[-1])
    padding = text[:-1] + "abcdefghijklmnopqrstuvwxyz234567"[last | 1]  # bits that belong to no byte
    assert padding != text
    for other in (text.upper(), text + "=", f" {text}", f"{text}\n", padding, text[:-1]):
        with pytest.raises(ValueError, match="52 characters"):
            VerifyKey.from_text(other)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_keys_are_32_bytes(length: int) -> None:
    for made in (VerifyKey, SigningKey):
        with pytest.raises(ValueError, match="32 bytes"):
            made(bytes(length))


def test_a_signing_key_never_shows_itself() -> None:
    key = signing_key("a")
    for shown in (repr(key), str(key), f"{key}", f"{key:>10}", repr([key])):
        assert key.seed.hex() not in shown
        assert str(key.verify_key) in shown
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def test_keys_are_compared_by_what_they_are() -> None:
    assert signing_key("a") == signing_key("a") != signing_key("b")
    assert len({signing_key("a"), signing_key("a"), signing_key("a").verify_key}) == 2
    assert signing_key("a").verify_key != signing_key("a").verify_key.raw
