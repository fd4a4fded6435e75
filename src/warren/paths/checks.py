"""The connectivity checks: STUN Binding requests that only the two nodes can make, and their answers (RFC 8445 §7).

A request names its receiver and its sender and is signed with a key that both derive from their WireGuard keys. There
is no answer to anything else. An answer counts only for the transaction it belongs to, if it comes by the way that the
request took; so a replayed or forwarded message selects nothing.

======================  =====================================================================================
attribute               in a request
======================  =====================================================================================
USERNAME                label of the receiver ``:`` label of the sender (:func:`label_of`)
PRIORITY                the type preference (RFC 8445 §5.1.2.2) of where it was sent from: 0 is a relay
ICE-CONTROLLING, -ED    the role; the value is the sender's epoch: random, of one run of its machine
ORDER (0xC0F1)          its number in that epoch, so that replays of old ones are known (4 bytes)
USE-CANDIDATE           the controlling side sends by this path
PADDING                 makes it a probe of the path MTU
======================  =====================================================================================

An answer has XOR-MAPPED-ADDRESS, the responder's epoch, and RECEIVED (0xC0F2): how many bytes of the requester's data
have come to the responder (4 bytes: modulo 2^32), and how long ago that was counted (4 bytes: milliseconds). Who does
not know RECEIVED passes over it (RFC 8489 §14). An answer is shorter than any request.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    pack_uint32,
    pack_uint64,
    pack_xor_address,
    unpack_uint32_untrusted,
    unpack_uint64_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.credentials import verifies
from warren.proto.stun.message import Attribute, Class, Message, Method, encode, unknown_required

TRANSACTION_BYTES: Final = 12
LABEL_CHARACTERS: Final = 16
ORDER: Final = 0xC0F1
RECEIVED: Final = 0xC0F2
_UINT32_MAX: Final = 0xFFFF_FFFF
_KNOWN: Final = frozenset({Attribute.USERNAME, Attribute.PRIORITY, Attribute.USE_CANDIDATE, Attribute.PADDING})
_TYPE_SHIFT: Final = 24
_DIRECT: Final = 110 << _TYPE_SHIFT | 0xFFFF_FF
_RELAYED: Final = 0xFFFF_FF


def label_of(node: bytes) -> str:
    """By which a node is named in USERNAME: 16 hexadecimal digits of the hash of its key."""
    return hashlib.sha256(node).hexdigest()[:LABEL_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Request:
    """A verified request."""

    transaction: bytes
    relayed: bool
    """It was sent from a relay's allocation."""
    nominates: bool
    epoch: int
    order: int
    padded: bool


class Receipt(NamedTuple):
    """What has come to the responder of the data of whom it answers."""

    bytes: int
    """Modulo 2^32; from 0 when its data plane began anew."""
    age_s: float
    """So long before it answered it was counted."""


class Answer(NamedTuple):
    """An authentic answer."""

    mapped: TransportAddress
    """Where the peer saw our request come from."""
    epoch: int
    """The peer's."""
    receipt: Receipt | None
    """None: it says nothing of that."""


def names(message: Message) -> tuple[str, str] | None:
    """Receiver's and sender's label of a request or indication; not verified. None: it is none of ours."""
    value = message.get(Attribute.USERNAME)
    if value is None or len(value) != 2 * LABEL_CHARACTERS + 1 or value[LABEL_CHARACTERS] != ord(":"):
        return None
    text = value.decode("latin-1")
    return text[:LABEL_CHARACTERS], text[LABEL_CHARACTERS + 1 :]


def key_of(message: Message, keys: tuple[bytes, ...]) -> bytes | None:
    """Which of ``keys`` the message was signed with. None: it is not authentic."""
    return next((key for key in keys if verifies(message, key, sha256_required=True)), None)


def seal_request(
    *,
    key: bytes,
    transaction: bytes,
    receiver: str,
    sender: str,
    controlling: bool,
    nominates: bool,
    relayed: bool,
    epoch: int,
    order: int,
    length: int = 0,
) -> bytes:
    """``receiver`` and ``sender`` are labels. With a ``length``, a multiple of 4, PADDING makes it that long."""
    attributes = [
        (int(Attribute.USERNAME), f"{receiver}:{sender}".encode()),
        (int(Attribute.PRIORITY), pack_uint32(_RELAYED if relayed else _DIRECT)),
        (int(Attribute.ICE_CONTROLLING if controlling else Attribute.ICE_CONTROLLED), pack_uint64(epoch)),
        (ORDER, pack_uint32(order & 0xFFFF_FFFF)),
    ]
    if nominates:
        attributes.append((int(Attribute.USE_CANDIDATE), b""))
    if length:
        missing = length - len(encode(Method.BINDING, Class.REQUEST, transaction, attributes, key=key)) - 4
        if missing < 0 or length & 3:
            raise ValueError(f"a request of {length} bytes cannot be made")
        attributes.append((int(Attribute.PADDING), bytes(missing)))
    return encode(Method.BINDING, Class.REQUEST, transaction, attributes, key=key)


def read_request_untrusted(message: Message) -> Request:
    """A request that was found authentic. Raises MalformedPacket."""
    if unknown_required(message, _KNOWN):
        raise MalformedPacket("a check with attributes that are not understood")
    epoch = message.get(Attribute.ICE_CONTROLLING) or message.get(Attribute.ICE_CONTROLLED) or b""
    priority = unpack_uint32_untrusted(message.get(Attribute.PRIORITY) or b"")
    return Request(
        transaction=message.transaction,
        relayed=priority >> _TYPE_SHIFT == 0,
        nominates=message.get(Attribute.USE_CANDIDATE) is not None,
        epoch=unpack_uint64_untrusted(epoch),
        order=unpack_uint32_untrusted(message.get(ORDER) or b""),
        padded=message.get(Attribute.PADDING) is not None,
    )


def seal_answer(
    key: bytes, transaction: bytes, seen: TransportAddress, epoch: int, receipt: Receipt | None = None
) -> bytes:
    """``seen``: where the request came from. ``receipt``: of the requester's data."""
    attributes = [
        (int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(seen, transaction)),
        (int(Attribute.ICE_CONTROLLED), pack_uint64(epoch)),
    ]
    if receipt is not None:
        age_ms = min(_UINT32_MAX, int(receipt.age_s * 1000))
        attributes.append((RECEIVED, pack_uint64((receipt.bytes & _UINT32_MAX) << 32 | age_ms)))
    return encode(Method.BINDING, Class.SUCCESS, transaction, attributes, key=key)


def read_answer_untrusted(message: Message) -> Answer:
    """An answer that was found authentic. Raises MalformedPacket."""
    mapped = unpack_xor_address_untrusted(message.get(Attribute.XOR_MAPPED_ADDRESS) or b"", message.transaction)
    epoch = unpack_uint64_untrusted(message.get(Attribute.ICE_CONTROLLED) or b"")
    said = message.get(RECEIVED)
    if said is None:
        return Answer(mapped, epoch, None)
    number = unpack_uint64_untrusted(said)
    return Answer(mapped, epoch, Receipt(number >> 32, (number & _UINT32_MAX) / 1000))
