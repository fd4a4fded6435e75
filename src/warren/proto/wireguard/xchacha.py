"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), built on the ChaCha20 of the ``cryptography`` package."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

NONCE_BYTES = 24
PREFIX_BYTES = 16
_words = struct.Struct("<16I")
_half = struct.Struct("<4I")
_CONSTANTS = _half.unpack(b"expand 32-byte k")


def hchacha20(key: bytes, prefix: bytes) -> bytes:
    """§2.2: a key of 32 bytes out of ``key`` (32) and ``prefix`` (16).

    A ChaCha20 block is its state after the rounds plus its state before them. HChaCha20 wants the former: so the
    known words of the state before (the constants and the nonce words) are subtracted from the first and last row of
    the key stream block.
    """
    block = Cipher(ChaCha20(key, prefix), mode=None).encryptor().update(bytes(_words.size))
    words = _words.unpack(block)
    first = [(word - constant) & 0xFFFFFFFF for word, constant in zip(words[:4], _CONSTANTS, strict=True)]
    last = [(word - nonce) & 0xFFFFFFFF for word, nonce in zip(words[12:], _half.unpack(prefix), strict=True)]
    return _half.pack(*first) + _half.pack(*last)


class XChaCha20Poly1305:
    """An AEAD for one ``key`` and all nonces that begin with the same ``prefix`` of 16 bytes: the derived cipher is
    kept.
    """

    __slots__ = ("_cipher", "prefix")

    def __init__(self, key: bytes, prefix: bytes) -> None:
        self.prefix = prefix
        self._cipher = ChaCha20Poly1305(hchacha20(key, prefix))

    @classmethod
    def for_nonce(cls, key: bytes, nonce: bytes) -> XChaCha20Poly1305:
        return cls(key, nonce[:PREFIX_BYTES])

    def seal(self, suffix: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Seal with the nonce :attr:`prefix` + ``suffix`` (8 bytes)."""
        return self._cipher.encrypt(bytes(4) + suffix, plaintext, associated)

    def open(self, suffix: bytes, sealed: bytes, associated: bytes) -> bytes:
        """Raises cryptography's InvalidTag."""
        return self._cipher.decrypt(bytes(4) + suffix, sealed, associated)
