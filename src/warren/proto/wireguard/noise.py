"""The Noise protocol ``Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`` (Noise specification, revision 34).

    IKpsk2:   ← s  …  → e, es, s, ss   ← e, ee, se, psk

Prologue and payloads are arguments, so this is Noise as specified; WireGuard's choices of them are in ``handshake``.

Errors: everything that reads raises only :class:`Rejected`, and the machine is then as it was before the call, so
that a forged message does not end a handshake that is under way.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from warren.errors import WarrenError
from warren.proto.wireguard.constants import CONSTRUCTION, HASH_BYTES, KEY_BYTES, TAG_BYTES

_SEALED_KEY_BYTES = KEY_BYTES + TAG_BYTES


class Rejected(WarrenError):
    """A handshake message is not genuine, or names a key that must not be used. Nothing has changed."""


class KeyPair:
    """An X25519 key pair, its private half ready for use (making that costs as much as using it)."""

    __slots__ = ("private", "public")

    def __init__(self, private: bytes) -> None:
        self.private = X25519PrivateKey.from_private_bytes(private)
        self.public = self.private.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """The shared secret with ``public``. Raises Rejected for a low-order point (RFC 7748 §6.1: the all-zero
        secret).
        """
        try:
            return self.private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise Rejected("the public key is a point of low order") from None


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise §4.3 HKDF: ``outputs`` keys of 32 bytes."""
    secret = hmac.digest(chaining_key, material, "blake2s")
    keys = [hmac.digest(secret, b"\x01", "blake2s")]
    for number in range(2, outputs + 1):
        keys.append(hmac.digest(secret, keys[-1] + bytes([number]), "blake2s"))
    return keys


class SymmetricState:
    """Noise §5.2: chaining key, transcript hash, and the cipher of the moment."""

    __slots__ = ("_chaining_key", "_cipher", "_nonce", "hash")

    def __init__(self, protocol: bytes, prologue: bytes) -> None:
        self.hash = (
            protocol.ljust(HASH_BYTES, b"\0") if len(protocol) <= HASH_BYTES else hashlib.blake2s(protocol).digest()
        )
        self._chaining_key = self.hash
        self._cipher: ChaCha20Poly1305 | None = None
        self._nonce = 0
        self.mix_hash(prologue)

    def copy(self) -> Self:
        other = object.__new__(type(self))
        other.hash, other._chaining_key, other._cipher, other._nonce = (
            self.hash,
            self._chaining_key,
            self._cipher,
            self._nonce,
        )
        return other

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2s(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _hkdf(self._chaining_key, material, 2)
        self._rekey(key)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chaining_key, digest, key = _hkdf(self._chaining_key, material, 3)
        self.mix_hash(digest)
        self._rekey(key)

    def _rekey(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._nonce = 0

    def seal(self, plaintext: bytes) -> bytes:
        """EncryptAndHash."""
        sealed = self._keyed().encrypt(self._next_nonce(), plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """DecryptAndHash. Raises Rejected."""
        try:
            plaintext = self._keyed().decrypt(self._next_nonce(), sealed, self.hash)
        except InvalidTag:
            raise Rejected("a handshake message does not authenticate") from None
        self.mix_hash(sealed)
        return plaintext

    def _keyed(self) -> ChaCha20Poly1305:
        if self._cipher is None:
            raise RuntimeError("IKpsk2 never seals before its first key")
        return self._cipher

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "little")
        self._nonce += 1
        return nonce

    def split(self) -> tuple[bytes, bytes]:
        """The two transport keys: the initiator's for sending, the responder's for sending."""
        first, second = _hkdf(self._chaining_key, b"", 2)
        return first, second


class Initiator:
    """The left side: :meth:`write`, :meth:`read`, then :meth:`split`. A new object for each attempt."""

    __slots__ = ("_ephemeral", "_static", "_symmetric")

    def __init__(self, static: KeyPair, prologue: bytes) -> None:
        self._static = static
        self._symmetric = SymmetricState(CONSTRUCTION, prologue)
        self._ephemeral: KeyPair | None = None

    def write(self, remote_static: bytes, static_static: bytes, ephemeral: KeyPair, payload: bytes) -> bytes:
        """→ e, es, s, ss. ``static_static`` is the precomputed exchange of both static keys. Raises Rejected (low
        order).
        """
        state = self._symmetric
        state.mix_hash(remote_static)
        state.mix_hash(ephemeral.public)
        state.mix_key(ephemeral.public)  # e, in a psk pattern (Noise §9.2)
        state.mix_key(ephemeral.exchange(remote_static))  # es
        sealed_static = state.seal(self._static.public)  # s
        state.mix_key(static_static)  # ss
        self._ephemeral = ephemeral
        return ephemeral.public + sealed_static + state.seal(payload)

    def read(self, message: bytes, psk: bytes) -> bytes:
        """← e, ee, se, psk. Returns the payload. ``psk`` is 32 bytes, all zero where there is none. Raises Rejected."""
        if self._ephemeral is None:
            raise RuntimeError("the first message comes first")
        if len(message) < KEY_BYTES + TAG_BYTES:
            raise Rejected("too short for the second message")
        state = self._symmetric.copy()
        remote_ephemeral = message[:KEY_BYTES]
        state.mix_hash(remote_ephemeral)
        state.mix_key(remote_ephemeral)  # e
        state.mix_key(self._ephemeral.exchange(remote_ephemeral))  # ee
        state.mix_key(self._static.exchange(remote_ephemeral))  # se
        state.mix_key_and_hash(psk)  # psk
        payload = state.open(message[KEY_BYTES:])
        self._symmetric = state
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """(our sending key, our receiving key); after :meth:`read`."""
        return self._symmetric.split()


class Responder:
    """The right side: :meth:`read_static`, :meth:`read_payload`, :meth:`write`, then :meth:`split`.

    Reading takes two steps because the static key in the first message tells which precomputed secret opens the rest.
    The key that :meth:`read_static` returns is only a claim until :meth:`read_payload` has succeeded.
    """

    __slots__ = ("_remote_ephemeral", "_remote_static", "_sealed_payload", "_static", "_symmetric")

    def __init__(self, static: KeyPair, prologue: bytes) -> None:
        self._static = static
        self._symmetric = SymmetricState(CONSTRUCTION, prologue)
        self._symmetric.mix_hash(static.public)
        self._remote_ephemeral = self._remote_static = self._sealed_payload = b""

    def read_static(self, message: bytes) -> bytes:
        """→ e, es, s. Returns the claimed static key of the initiator. Raises Rejected."""
        if len(message) < KEY_BYTES + _SEALED_KEY_BYTES + TAG_BYTES:
            raise Rejected("too short for the first message")
        state = self._symmetric.copy()
        remote_ephemeral = message[:KEY_BYTES]
        state.mix_hash(remote_ephemeral)
        state.mix_key(remote_ephemeral)  # e
        state.mix_key(self._static.exchange(remote_ephemeral))  # es
        claimed = state.open(message[KEY_BYTES : KEY_BYTES + _SEALED_KEY_BYTES])  # s
        self._symmetric = state
        self._remote_ephemeral, self._remote_static = remote_ephemeral, claimed
        self._sealed_payload = message[KEY_BYTES + _SEALED_KEY_BYTES :]
        return claimed

    def read_payload(self, static_static: bytes) -> bytes:
        """→ ss, payload. Success proves that the initiator has the claimed key. Raises Rejected."""
        state = self._symmetric.copy()
        state.mix_key(static_static)  # ss
        payload = state.open(self._sealed_payload)
        self._symmetric = state
        return payload

    def write(self, ephemeral: KeyPair, psk: bytes, payload: bytes) -> bytes:
        """← e, ee, se, psk. ``psk`` as in :meth:`Initiator.read`. Raises Rejected (low order)."""
        state = self._symmetric
        state.mix_hash(ephemeral.public)
        state.mix_key(ephemeral.public)  # e
        state.mix_key(ephemeral.exchange(self._remote_ephemeral))  # ee
        state.mix_key(ephemeral.exchange(self._remote_static))  # se
        state.mix_key_and_hash(psk)  # psk
        return ephemeral.public + state.seal(payload)

    def split(self) -> tuple[bytes, bytes]:
        """(our sending key, our receiving key); after :meth:`write`."""
        receiving, sending = self._symmetric.split()
        return sending, receiving
