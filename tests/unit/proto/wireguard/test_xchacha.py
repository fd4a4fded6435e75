"""XChaCha20-Poly1305 against libsodium."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from warren.proto.wireguard.xchacha import XChaCha20Poly1305, hchacha20

keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=24, max_size=24)


def test_hchacha20_gives_the_drafts_vector() -> None:
    """draft-irtf-cfrg-xchacha-03 §2.2.1."""
    key = bytes(range(32))
    prefix = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(key, prefix).hex() == expected


@given(keys, nonces, st.binary(max_size=100), st.binary(max_size=40))
def test_sealing_equals_libsodiums_and_opens_again(key: bytes, nonce: bytes, text: bytes, associated: bytes) -> None:
    aead = XChaCha20Poly1305.for_nonce(key, nonce)
    sealed = aead.seal(nonce[16:], text, associated)
    assert sealed == crypto_aead_xchacha20poly1305_ietf_encrypt(text, associated, nonce, key)
    assert aead.open(nonce[16:], sealed, associated) == text


def test_a_changed_message_or_other_associated_data_does_not_open() -> None:
    aead = XChaCha20Poly1305(bytes(32), bytes(16))
    sealed = aead.seal(bytes(8), b"cookie", b"mac1")
    for bad, associated in ((sealed[:-1] + b"\0", b"mac1"), (sealed, b"mac2")):
        with pytest.raises(InvalidTag):
            aead.open(bytes(8), bad, associated)
