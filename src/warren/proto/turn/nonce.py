"""Nonces that need no memory: the server recognises its own (RFC 8489 §9.2, RFC 8656 §5).

::

    obMatJos2 AAAB  ‖  base64url( seconds, 4 bytes  ‖  HMAC-SHA256(key, seconds ‖ prefix of the client), 8 bytes )
    └─ features ─┘

Nothing is stored for a client that has not yet proved anything, so a flood of forged requests fills no table. A nonce
belongs to one IPv4 address or one IPv6 /64, not to a port: it survives a NAT that changes the port.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from enum import Enum
from typing import Final

from warren.proto.stun.credentials import SecurityFeatures, nonce_prefix
from warren.proto.wireguard.ratelimit import source_prefix

NONCE_S: Final = 3600.0
"""An hour, as RFC 8656 §5 recommends at least."""
KEY_BYTES: Final = 32
_SECONDS_BYTES, _PROOF_BYTES = 4, 8
_FEATURES: Final = nonce_prefix(SecurityFeatures(password_algorithms=True)).encode()
_PREFIX_BITS: Final = (32, 64)


class Freshness(Enum):
    FRESH = "made by us for this client, not long ago"
    STALE = "made by us for this client, too long ago"
    UNKNOWN = "not made by us, or for somebody else"


class Nonces:
    """``key`` is random and of this server's life; ``lifetime_s`` is how long a nonce is good for."""

    __slots__ = ("_key", "_lifetime_s")

    def __init__(self, key: bytes, lifetime_s: float = NONCE_S) -> None:
        self._key = key
        self._lifetime_s = lifetime_s

    def make(self, host: str, now: float) -> bytes:
        """For a client at the numeric address ``host``: 29 printable characters, the same ones within a second."""
        seconds = (int(now) & 0xFFFFFFFF).to_bytes(_SECONDS_BYTES)
        return _FEATURES + base64.urlsafe_b64encode(seconds + self._proof(seconds, host))

    def judge_untrusted(self, nonce: bytes, host: str, now: float) -> Freshness:
        if not nonce.startswith(_FEATURES):
            return Freshness.UNKNOWN
        try:
            decoded = base64.b64decode(nonce[len(_FEATURES) :], altchars=b"-_", validate=True)
        except binascii.Error:
            return Freshness.UNKNOWN
        seconds, proof = decoded[:_SECONDS_BYTES], decoded[_SECONDS_BYTES:]
        if not hmac.compare_digest(proof, self._proof(seconds, host)):
            return Freshness.UNKNOWN
        age = (int(now) - int.from_bytes(seconds)) & 0xFFFFFFFF
        return Freshness.FRESH if age <= self._lifetime_s else Freshness.STALE

    def _proof(self, seconds: bytes, host: str) -> bytes:
        prefix = source_prefix(host, *_PREFIX_BITS).to_bytes(17)
        return hmac.digest(self._key, seconds + prefix, "sha256")[:_PROOF_BYTES]
