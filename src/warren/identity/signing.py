"""Ed25519 keys that sign documents (RFC 8032): a node's identity, a network's authority, a coordinator's identity.

A :class:`VerifyKey` is also a name: a node *is* its key, a network is its authority's key. Written, it is 52
characters of lower-case base32 without padding, which fits a URL, a file name and a DNS label.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_BYTES, SIGNATURE_BYTES = 32, 64
TEXT_CHARACTERS = 52

_FIELD = 2**255 - 19
_SMALL_ORDER = frozenset(
    int.from_bytes(bytes.fromhex(text), "little")
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
    )
)
"""The ``y`` of all points whose order divides 8: as a key they let anybody sign something for somebody."""


class VerifyKey:
    """An Ed25519 public key; safe to show. Two are equal when their 32 bytes are."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        """Raises ValueError when ``raw`` is not 32 bytes. A key that is no point of the curve verifies nothing."""
        if len(raw) != KEY_BYTES:
            raise ValueError(f"an Ed25519 key is {KEY_BYTES} bytes, not {len(raw)}")
        self.raw = bytes(raw)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse what :meth:`__str__` gives; nothing else stands for the same key. Raises ValueError."""
        try:
            key = cls(base64.b32decode(text.upper() + "====")) if len(text) == TEXT_CHARACTERS else None
        except (binascii.Error, ValueError):
            key = None
        if key is None or str(key) != text:
            raise ValueError(f"a key is written with {TEXT_CHARACTERS} characters of a-z and 2-7")
        return key

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` was made with this key. Anything wrong with either means no.

        OpenSSL refuses an ``S`` that is not reduced (RFC 8032 §5.1.7), so a signature has one form only. Keys of small
        order, and second spellings of a key (§5.1.3), which OpenSSL takes, verify nothing.
        """
        y = int.from_bytes(self.raw, "little") & (1 << 255) - 1
        if y >= _FIELD or y in _SMALL_ORDER:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    @property
    def short(self) -> str:
        """The first eight characters, for log lines and tables."""
        return str(self)[:8]

    def __str__(self) -> str:
        return base64.b32encode(self.raw).decode("ascii").rstrip("=").lower()

    def __repr__(self) -> str:
        return f"VerifyKey({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)


class SigningKey:
    """An Ed25519 private key, made from its 32-byte seed. Never shows it but through :attr:`seed`."""

    __slots__ = ("_key", "seed", "verify_key")

    def __init__(self, seed: bytes) -> None:
        """Raises ValueError when ``seed`` is not 32 bytes. Making one takes about 50 µs."""
        if len(seed) != KEY_BYTES:
            raise ValueError(f"the seed of an Ed25519 key is {KEY_BYTES} bytes, not {len(seed)}")
        self.seed = bytes(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.verify_key = VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message`` (about 40 µs)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(… of {self.verify_key})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SigningKey) and hmac.compare_digest(self.seed, other.seed)

    def __hash__(self) -> int:
        return hash(self.verify_key)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a SigningKey is not pickled")
