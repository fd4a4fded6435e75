"""Asking a server for one's address as others see it: the Binding method without credentials (RFC 8489 §3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import unpack_address_untrusted, unpack_xor_address_untrusted
from warren.proto.stun.message import Attribute, Class, Message, Method, encode

REQUEST_BYTES: Final = 100
"""Length of our requests: no less than the longest answer (to an IPv6 address, all of RFC 5780 in it, with fingerprint)
save that one's MAPPED-ADDRESS, which only old clients read. Warren's servers answer nobody with more than they got.
"""


def pack_binding_request(transaction: bytes, attributes: Iterable[tuple[int, bytes]] = ()) -> bytes:
    """A request as long as its answer may be. ``transaction``: 12 random bytes."""
    bare = encode(Method.BINDING, Class.REQUEST, transaction, attributes)
    filling = max(0, REQUEST_BYTES - len(bare) - 4)
    # SOFTWARE may be passed over by who does not know it; PADDING may not, and plain servers refuse it.
    return encode(Method.BINDING, Class.REQUEST, transaction, (*attributes, (Attribute.SOFTWARE, b" " * filling)))


def mapped_untrusted(message: Message) -> TransportAddress:
    """The address that a successful answer tells. Raises MalformedPacket if it tells none."""
    value = message.get(Attribute.XOR_MAPPED_ADDRESS)
    if value is not None:
        return unpack_xor_address_untrusted(value, message.transaction)
    value = message.get(Attribute.MAPPED_ADDRESS)  # servers of RFC 3489
    if value is None:
        raise MalformedPacket("an answer of a STUN server without an address")
    return unpack_address_untrusted(value)
