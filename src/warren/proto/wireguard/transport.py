"""Sealing and opening of data messages, a whole train in place at a time (WireGuard §5.4.6).

::

     0      1            4                8          16                       n-16    n
     | 4    | reserved 0 | receiver index | counter  | encrypted inner packet | tag   |

Index and counter are little-endian; the nonce is four zero bytes and the counter. A train is described in
:mod:`warren.proto.ip.segment`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from warren.proto.wireguard.constants import DATA, HEADER_BYTES, KEY_BYTES, REJECT_AFTER_MESSAGES, TAG_BYTES
from warren.proto.wireguard.constants import DATA_OVERHEAD_BYTES as OVERHEAD
from warren.proto.wireguard.replay import ReplayWindow

OPEN_AUTH: Final = -1
"""The tag does not verify."""
OPEN_REPLAY: Final = -2
"""The counter was seen before or lies behind the window."""
OPEN_MALFORMED: Final = -3
"""Shorter than an empty data message."""
OPEN_FOREIGN: Final = -4
"""No data message, or one for another receiver index; left untouched."""
OPEN_LIMIT: Final = -5
"""The counter is not below REJECT_AFTER_MESSAGES."""

_HEADER: Final = struct.Struct("<IIQ")
_NONCE: Final = struct.Struct("<IQ")


class SealingKey:
    """Encrypts data messages to one receiver. ``counter`` is the next to be used. For one thread at a time.

    Raises ValueError for a key that is not 32 bytes or an index that is not 32 bits.
    """

    __slots__ = ("_aead", "_receiver_index", "counter")

    def __init__(self, key: bytes, receiver_index: int) -> None:
        _check_key(key, receiver_index)
        self._aead: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)
        self._receiver_index = receiver_index
        self.counter = 0

    def seal(self, buffer: bytearray, at: int, end: int, stride: int) -> None:
        """Seal each slot of the train ``buffer[at:end]`` in place: header, ciphertext and tag around its packet.

        Raises ValueError, with nothing sealed, for a train that does not fit its buffer or has a slot below 32 bytes,
        for a wiped key, and when a counter would reach REJECT_AFTER_MESSAGES.
        """
        count = _slots(len(buffer), at, end, stride)
        if count and end - at - (count - 1) * stride < OVERHEAD:
            raise ValueError("a slot is shorter than an empty data message")
        if self._aead is None:
            raise ValueError("the key is wiped")
        counter = self.counter
        if counter + count > REJECT_AFTER_MESSAGES:
            raise ValueError("the key has sealed all the messages it may")
        self.counter += count
        encrypt_into, index = self._aead.encrypt_into, self._receiver_index
        with memoryview(buffer)[at:end] as train:
            for slot in range(0, len(train), stride):
                _HEADER.pack_into(train, slot, DATA, index, counter)
                body = train[slot + HEADER_BYTES : slot + stride]
                encrypt_into(_NONCE.pack(0, counter), body[:-TAG_BYTES], None, body)
                counter += 1

    def wipe(self) -> None:
        """Forget the key. Sealing raises from now on."""
        self._aead = None


class OpeningKey:
    """Authenticates and decrypts data messages that carry ``own_index``, each counter once. For one thread at a time.

    Raises ValueError for a key that is not 32 bytes or an index that is not 32 bits.
    """

    __slots__ = ("_aead", "_own_index", "_window")

    def __init__(self, key: bytes, own_index: int) -> None:
        _check_key(key, own_index)
        self._aead: ChaCha20Poly1305 | None = ChaCha20Poly1305(key)
        self._own_index = own_index
        self._window = ReplayWindow()

    def open(self, buffer: bytearray, at: int, end: int, stride: int, lengths: array[int]) -> int:
        """Open each datagram of the train ``buffer[at:end]`` in place; return how many were opened.

        ``lengths[i]``, of an ``array('i')``, becomes the length of the plaintext now at ``at + i * stride + 16`` (0: a
        keepalive) or an ``OPEN_*`` code. A counter outside the replay window costs no decryption, and the window moves
        for authentic messages only. What a forged datagram leaves in its own slot is undefined. Raises ValueError, with
        nothing opened, for a train that does not fit its buffer or ``lengths``, and for a wiped key.
        """
        count = _slots(len(buffer), at, end, stride)
        if count > len(lengths) or lengths.typecode != "i":
            raise ValueError("lengths must be an array('i') with an item for each datagram")
        if self._aead is None:
            raise ValueError("the key is wiped")
        opened = 0
        decrypt_into = self._aead.decrypt_into
        with memoryview(buffer)[at:end] as train:
            for i, slot in enumerate(range(0, len(train), stride)):
                lengths[i] = length = self._open_one(decrypt_into, train[slot : slot + stride])
                opened += length >= 0
        return opened

    def _open_one(self, decrypt_into: Callable[..., int], datagram: memoryview) -> int:
        """Open one datagram; return what goes into ``lengths``."""
        if len(datagram) < OVERHEAD:
            return OPEN_MALFORMED
        kind, index, counter = _HEADER.unpack_from(datagram)
        if kind != DATA or index != self._own_index:
            return OPEN_FOREIGN
        if counter >= REJECT_AFTER_MESSAGES:
            return OPEN_LIMIT
        window = self._window
        if counter <= window.greatest and not window.accepts(counter):
            return OPEN_REPLAY
        body = datagram[HEADER_BYTES:]
        try:
            length = decrypt_into(_NONCE.pack(0, counter), body, None, body[:-TAG_BYTES])
        except InvalidTag:
            return OPEN_AUTH
        window.mark(counter)
        return length

    def wipe(self) -> None:
        """Forget the key. Opening raises from now on."""
        self._aead = None


def _check_key(key: bytes, index: int) -> None:
    if len(key) != KEY_BYTES or not 0 <= index < 2**32:
        raise ValueError(f"a data key is {KEY_BYTES} bytes with a 32-bit index")


def _slots(size: int, at: int, end: int, stride: int) -> int:
    """How many slots the train [at, end) of a buffer of ``size`` bytes has. Raises ValueError if it does not fit."""
    if not 0 <= at <= end <= size or stride <= 0:
        raise ValueError("the train lies outside its buffer or has no stride")
    return -(-(end - at) // stride)
