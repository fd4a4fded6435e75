"""Who knows the key: short-term and long-term credentials (RFC 8489 §9, §14.5, §14.6)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
from typing import Final, NamedTuple

from warren.proto.stun.message import Message, integrity_of

NONCE_COOKIE: Final = "obMatJos2"
"""How the nonces of servers begin that name their security features (§9.2)."""
_SHA1_BYTES: Final = 20
_SHA256_BYTES: Final = 32


class SecurityFeatures(NamedTuple):
    """What a server can do, told where nobody can take it out unnoticed: in its nonce (§9.2, §18.1)."""

    password_algorithms: bool = False
    username_anonymity: bool = False


def nonce_prefix(features: SecurityFeatures) -> str:
    """How a nonce of a server with these features begins: 13 letters."""
    # The first feature is the last bit (erratum 6290, and the nonce of appendix B.1).
    bits = features.password_algorithms | features.username_anonymity << 1
    return NONCE_COOKIE + base64.b64encode(bits.to_bytes(3)).decode()


def features_of_untrusted(nonce: str) -> SecurityFeatures:
    """The features that a server's nonce names; none where it names none."""
    coded = nonce[len(NONCE_COOKIE) : len(NONCE_COOKIE) + 4]
    if not nonce.startswith(NONCE_COOKIE) or len(coded) < 4:
        return SecurityFeatures()
    try:
        bits = int.from_bytes(base64.b64decode(coded, validate=True))
    except ValueError:
        return SecurityFeatures()
    return SecurityFeatures(bool(bits & 1), bool(bits & 2))


def opaque_string(text: str) -> str:
    """The OpaqueString profile (RFC 8265 §4.2.2) as far as it changes anything: spaces of other scripts become plain
    ones, then NFC. ASCII stays as it is.
    """
    if text.isascii():
        return text
    spaced = "".join(" " if unicodedata.category(letter) == "Zs" else letter for letter in text)
    return unicodedata.normalize("NFC", spaced)


def short_term_key(password: str) -> bytes:
    """§9.1.1."""
    return opaque_string(password).encode()


def long_term_key(username: str, realm: str, password: str, *, sha256: bool) -> bytes:
    """§9.2.2, §18.5.1: of 32 bytes, or of 16 by MD5, as before RFC 8489 and without PASSWORD-ALGORITHM."""
    text = ":".join(opaque_string(part) for part in (username, realm, password)).encode()
    if sha256:
        return hashlib.sha256(text).digest()
    return hashlib.md5(text, usedforsecurity=False).digest()


def userhash(username: str, realm: str) -> bytes:
    """What USERHASH carries instead of a USERNAME (§14.4)."""
    return hashlib.sha256(f"{opaque_string(username)}:{opaque_string(realm)}".encode()).digest()


def verifies(message: Message, key: bytes, *, sha256_required: bool = False) -> bool:
    """Whether who made ``message`` knew ``key``. A message without integrity never verifies.

    If both integrities are there, the stronger decides. Truncated ones do not count: no usage of STUN in Warren allows
    them (§14.6). Takes the same time wherever a wrong integrity differs.
    """
    if message.sha256_at:
        at, digest, length = message.sha256_at, "sha256", _SHA256_BYTES
    elif message.sha1_at and not sha256_required:
        at, digest, length = message.sha1_at, "sha1", _SHA1_BYTES
    else:
        return False
    claimed = message.raw[at + 4 : at + 4 + int.from_bytes(message.raw[at + 2 : at + 4])]
    return len(claimed) == length and hmac.compare_digest(claimed, integrity_of(message.raw, at, key, digest))
