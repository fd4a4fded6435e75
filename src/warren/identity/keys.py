"""WireGuard key values: 32 bytes that know how they are written, and when they must not be.

A :class:`PrivateKey` or :class:`PresharedKey` never shows its bytes in ``repr``, ``str`` or a format string;
``.base64`` and ``.hex`` are the only, explicit, ways to text. Python cannot guarantee that a secret leaves memory:
objects that hold one are dropped as early as possible, and docs/security.md says so.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_BYTES = 32


class _Key:
    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a WireGuard key is {KEY_BYTES} bytes, not {len(raw)}")
        self.raw = bytes(raw)

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """Parse the 44-character form used in config files. Raises ValueError, without quoting the text."""
        try:
            raw = base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise ValueError("a key is 44 characters of base64, as `wg genkey` prints it") from None
        if len(raw) != KEY_BYTES or base64.b64encode(raw).decode() != text:
            raise ValueError("a key is 44 characters of base64, as `wg genkey` prints it")
        return cls(raw)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Parse the 64-character form used on the UAPI socket. Raises ValueError, without quoting the text."""
        if len(text) != 2 * KEY_BYTES:
            raise ValueError("a key is 64 hexadecimal digits here")
        try:
            return cls(bytes.fromhex(text))
        except ValueError:
            raise ValueError("a key is 64 hexadecimal digits here") from None

    @property
    def base64(self) -> str:
        return base64.b64encode(self.raw).decode("ascii")

    @property
    def hex(self) -> str:
        return self.raw.hex()

    @property
    def is_zero(self) -> bool:
        """All bits zero: what the UAPI and config files use to say "no key"."""
        return not any(self.raw)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and hmac.compare_digest(self.raw, other.raw)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.raw))


class PublicKey(_Key):
    """A Curve25519 public key; safe to show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"PublicKey({self.base64})"

    def __str__(self) -> str:
        return self.base64

    @property
    def short(self) -> str:
        """The first eight characters, for log lines."""
        return self.base64[:8] + "…"


class _SecretKey(_Key):
    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError(f"a {type(self).__name__} is not pickled")


class PrivateKey(_SecretKey):
    """A Curve25519 private key, clamped (RFC 7748 §5) when made."""

    __slots__ = ()

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        if any(self.raw):  # the all-zero key means "none" and stays recognisable
            clamped = bytearray(self.raw)
            clamped[0] &= 248
            clamped[31] = (clamped[31] & 127) | 64
            self.raw = bytes(clamped)

    def public_key(self) -> PublicKey:
        """The matching public key (one scalar multiplication, about 50 µs)."""
        return PublicKey(X25519PrivateKey.from_private_bytes(self.raw).public_key().public_bytes_raw())


class PresharedKey(_SecretKey):
    """The optional symmetric key of a pair (WireGuard §5.2); all zero means none."""

    __slots__ = ()
