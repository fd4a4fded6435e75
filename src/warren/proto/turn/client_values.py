"""What a request for an allocation says, and what its answers do (RFC 8656 §7)."""

from __future__ import annotations

from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    pack_family,
    pack_requested_transport,
    pack_uint32,
    unpack_address_error_code_untrusted,
    unpack_address_untrusted,
    unpack_uint32_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.message import Attribute, Message

LIFETIME_S: Final = 600  # RFC 8656 §3.2: what a server grants unless asked for something else
FAMILY_ERRORS: Final = frozenset({400, 420, 440})
FALLBACKS: Final = {(4, 6): (6,), (6,): (4,)}  # when a server has no IPv4, or knows nothing of RFC 6156
GIVE_BACK: Final = (int(Attribute.LIFETIME), pack_uint32(0))
"""In a refresh: the allocation is not needed any more."""

# The numbers of drafts, which coturn before 4.8 has instead.
_ADDITIONAL_ADDRESS_FAMILY_OLD: Final = 0x8032
_ADDRESS_ERROR_CODE_OLD: Final = 0x8033


class Granted(NamedTuple):
    """An allocation, as the server describes it."""

    relayed: tuple[TransportAddress, ...]
    """IPv4 first."""
    mapped: TransportAddress | None
    """Where the server saw us."""
    lifetime_s: int
    refused_families: dict[int, int]
    """The number of the error for each."""


def wanted(families: tuple[int, ...]) -> list[tuple[int, bytes]]:
    """The attributes of a request for addresses of these families."""
    attributes = [(int(Attribute.REQUESTED_TRANSPORT), pack_requested_transport())]
    if families == (6,):
        attributes.append((int(Attribute.REQUESTED_ADDRESS_FAMILY), pack_family(6)))
    elif families == (4, 6):
        attributes += [
            (int(Attribute.ADDITIONAL_ADDRESS_FAMILY), pack_family(6)),
            (_ADDITIONAL_ADDRESS_FAMILY_OLD, pack_family(6)),
        ]
    return attributes


def granted_untrusted(response: Message) -> Granted:
    """Raises MalformedPacket, also when there is no address."""
    relayed: list[TransportAddress] = []
    mapped = None
    lifetime_s = LIFETIME_S
    refused_families = {}
    for kind, value in response.attributes:
        if kind == Attribute.XOR_RELAYED_ADDRESS:
            address = unpack_xor_address_untrusted(value, response.transaction)
            if address.port and not address.ip.is_unspecified:
                relayed.append(address)
        elif kind == Attribute.XOR_MAPPED_ADDRESS:
            mapped = unpack_xor_address_untrusted(value, response.transaction)
        elif kind == Attribute.LIFETIME:
            lifetime_s = unpack_uint32_untrusted(value)
        elif kind in {Attribute.ADDRESS_ERROR_CODE, _ADDRESS_ERROR_CODE_OLD}:
            refused = unpack_address_error_code_untrusted(value)
            refused_families[refused.family] = refused.number
    if not 1 <= len(relayed) <= 2:
        raise MalformedPacket("an allocation without an address")
    in_order = tuple(sorted(relayed, key=lambda address: address.ip.version))
    return Granted(in_order, mapped, lifetime_s, refused_families)


def lifetime_in(response: Message) -> int:
    """For how many seconds a refresh has renewed it. One that cannot be read did agree, too."""
    value = response.get(Attribute.LIFETIME)
    try:
        return LIFETIME_S if value is None else unpack_uint32_untrusted(value)
    except MalformedPacket:
        return LIFETIME_S


def mapped_in(response: Message | None) -> TransportAddress | None:
    """Where the server says that it sees us; None when it does not, or in a way that cannot be read."""
    value = None if response is None else response.get(Attribute.XOR_MAPPED_ADDRESS)
    try:
        return None if response is None or not value else unpack_xor_address_untrusted(value, response.transaction)
    except MalformedPacket:
        return None


def alternate_in(response: Message | None) -> TransportAddress | None:
    """The server to ask instead; None when none is named, or in a way that cannot be read."""
    value = None if response is None else response.get(Attribute.ALTERNATE_SERVER)
    try:
        return None if value is None else unpack_address_untrusted(value)
    except MalformedPacket:
        return None
