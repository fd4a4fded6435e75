"""The two MACs of handshake messages, and cookies (WireGuard §5.3, §5.4.4, §5.4.7).

mac1 shows that the sender knows our public key. mac2 shows, when we ask for it, that the sender receives what we send
to its address: its key is a cookie that we gave to that address and nobody else.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import blake2s

from cryptography.exceptions import InvalidTag

from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.constants import COOKIE_REFRESH_S, KEY_BYTES, LABEL_COOKIE, LABEL_MAC1, MAC_BYTES
from warren.proto.wireguard.messages import Buffer, CookieReply
from warren.proto.wireguard.xchacha import PREFIX_BYTES, XChaCha20Poly1305

_NEVER = float("-inf")


def _mac(key: bytes, data: Buffer) -> bytes:
    return blake2s(data, digest_size=MAC_BYTES, key=key).digest()


class CookieChecker:
    """The responder's half: checks MACs of messages sent to us and makes cookie replies."""

    __slots__ = ("_aead", "_cookie_key", "_mac1_key", "_random", "_replies", "_secret", "_secret_at")

    def __init__(self, own_public: bytes, random: Callable[[int], bytes]) -> None:
        self._mac1_key = blake2s(LABEL_MAC1 + own_public).digest()
        self._cookie_key = blake2s(LABEL_COOKIE + own_public).digest()
        self._random = random
        self._secret_at = _NEVER
        self._secret = b""

    def mac1_matches(self, message: memoryview) -> bool:
        """Whether ``message`` (an initiation or response) was made for our public key. Constant time."""
        return hmac.compare_digest(
            _mac(self._mac1_key, message[: -2 * MAC_BYTES]), message[-2 * MAC_BYTES : -MAC_BYTES]
        )

    def mac2_matches(self, message: memoryview, source: SocketAddress, now: float) -> bool:
        """Whether ``message`` carries a cookie given to ``source`` within the last two minutes. Constant time."""
        if now - self._secret_at > COOKIE_REFRESH_S:
            return False
        return hmac.compare_digest(_mac(self._cookie(source), message[:-MAC_BYTES]), message[-MAC_BYTES:])

    def reply(self, message: memoryview, source: SocketAddress, now: float) -> CookieReply:
        """A cookie for ``source``, bound to mac1 of its ``message``, readable by whoever knows our public key."""
        if now - self._secret_at > COOKIE_REFRESH_S:
            self._secret = self._random(KEY_BYTES)
            self._secret_at = now
            # §5.4.7 wants nonces that never repeat: a random prefix for each secret and a number make them, and
            # the costly half of XChaCha20 is done once.
            self._aead = XChaCha20Poly1305(self._cookie_key, self._random(PREFIX_BYTES))
            self._replies = 0
        suffix = self._replies.to_bytes(8, "little")
        self._replies += 1
        sealed = self._aead.seal(suffix, self._cookie(source), bytes(message[-2 * MAC_BYTES : -MAC_BYTES]))
        return CookieReply(int.from_bytes(message[4:8], "little"), self._aead.prefix + suffix, sealed)

    def _cookie(self, source: SocketAddress) -> bytes:
        """§5.4.7 τ: a MAC of the source address and port under a secret that changes every two minutes.

        Behind a relay each channel is a source of its own.
        """
        channel = source[4] if len(source) > 4 else 0
        return _mac(self._secret, f"{source[0]} {source[1]} {channel}".encode())


class CookieJar:
    """The initiator's half, one per peer: adds MACs to messages for that peer and keeps the cookie it gave us."""

    __slots__ = ("_cookie", "_cookie_at", "_cookie_key", "_last_mac1", "_mac1_key")

    def __init__(self, peer_public: bytes) -> None:
        self._mac1_key = blake2s(LABEL_MAC1 + peer_public).digest()
        self._cookie_key = blake2s(LABEL_COOKIE + peer_public).digest()
        self._cookie = b""
        self._cookie_at = _NEVER
        self._last_mac1 = b""

    def add_macs(self, message: bytes, now: float) -> bytes:
        """``message`` with mac1, and mac2 if the peer gave us a cookie within two minutes, else zeros (§5.4.4)."""
        self._last_mac1 = mac1 = _mac(self._mac1_key, message)
        message += mac1
        if now - self._cookie_at > COOKIE_REFRESH_S:
            return message + bytes(MAC_BYTES)
        return message + _mac(self._cookie, message)

    def take(self, reply: CookieReply, now: float) -> bool:
        """Keep the cookie in ``reply`` if it answers our last message; one answer counts, so a replay of it does
        nothing.
        """
        if not self._last_mac1:
            return False
        aead = XChaCha20Poly1305.for_nonce(self._cookie_key, reply.nonce)
        try:
            cookie = aead.open(reply.nonce[PREFIX_BYTES:], reply.sealed, self._last_mac1)
        except InvalidTag:
            return False
        self._cookie, self._cookie_at = cookie, now
        self._last_mac1 = b""
        return True
