"""Keys parse strictly and never show what is secret."""

from __future__ import annotations

import logging
import pickle

import pytest

from warren.identity.keys import PresharedKey, PrivateKey, PublicKey

# RFC 7748 §6.1, Bob
PRIVATE = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"


@pytest.mark.parametrize("kind", [PrivateKey, PresharedKey])
def test_a_secret_key_shows_its_bytes_in_no_text(
    kind: type[PrivateKey | PresharedKey], caplog: pytest.LogCaptureFixture
) -> None:
    secret = kind(bytes(range(32)))
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r %s", secret, secret, {"key": secret})
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>80}", f"{[secret]}", caplog.text):
        assert secret.base64 not in text
        assert secret.hex not in text
        assert "\\x01\\x02" not in text


def test_a_secret_key_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(PrivateKey(bytes(range(32))))


def test_a_private_key_is_clamped_but_the_zero_key_stays_recognisable() -> None:
    clamped = PrivateKey(b"\xff" * 32).raw
    assert (clamped[0] & 7, clamped[31] & 0xC0) == (0, 0x40)
    assert PrivateKey(bytes(32)).is_zero


def test_the_public_key_is_that_of_rfc_7748() -> None:
    assert PrivateKey.from_hex(PRIVATE).public_key().hex == PUBLIC


@pytest.mark.parametrize("text", ["", "abc", "A" * 44, "A" * 43 + "é", "=" * 44, "A" * 42 + "B=", " " + "A" * 43 + "="])
def test_a_malformed_base64_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="44 characters") as caught:
        PublicKey.from_base64(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "zz" * 32, " " * 64])
def test_a_malformed_hex_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        PublicKey.from_hex(text)


def test_base64_and_hex_round_trip() -> None:
    public = PublicKey(bytes(range(32)))
    assert PublicKey.from_base64(public.base64) == public == PublicKey.from_hex(public.hex)
    assert public != PresharedKey(bytes(range(32)))
    assert len({public, PublicKey(bytes(range(32)))}) == 1
