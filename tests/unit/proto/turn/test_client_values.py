"""What a request for an allocation says, and what is read from its answers."""

from __future__ import annotations

import pytest

from tests.support.turn_script import MAPPED, RELAYED4, RELAYED6
from warren.errors import MalformedPacket
from warren.proto.stun.attributes import pack_address, pack_uint32, pack_xor_address
from warren.proto.stun.message import Attribute, Class, Message, Method
from warren.proto.turn.client_values import Granted, alternate_in, granted_untrusted, lifetime_in, mapped_in, wanted

TRANSACTION = bytes(range(12))


def answer(*attributes: tuple[int, bytes]) -> Message:
    return Message(Method.ALLOCATE, Class.SUCCESS, TRANSACTION, attributes)


def test_an_allocation_is_read_with_its_addresses_in_order() -> None:
    response = answer(
        (Attribute.XOR_RELAYED_ADDRESS, pack_xor_address(RELAYED6, TRANSACTION)),
        (Attribute.XOR_RELAYED_ADDRESS, pack_xor_address(RELAYED4, TRANSACTION)),
        (Attribute.XOR_MAPPED_ADDRESS, pack_xor_address(MAPPED, TRANSACTION)),
        (Attribute.LIFETIME, pack_uint32(77)),
    )
    assert granted_untrusted(response) == Granted((RELAYED4, RELAYED6), MAPPED, 77, {})


@pytest.mark.parametrize("count", [0, 3])
def test_one_address_of_each_family_is_an_allocation_and_nothing_else_is(count: int) -> None:
    relayed = (int(Attribute.XOR_RELAYED_ADDRESS), pack_xor_address(RELAYED4, TRANSACTION))
    with pytest.raises(MalformedPacket):
        granted_untrusted(answer(*[relayed] * count))


def test_what_is_missing_or_cannot_be_read_is_none_or_the_ordinary() -> None:
    for damaged in (answer(), answer(*((kind, b"?") for kind in Attribute))):
        assert (lifetime_in(damaged), mapped_in(damaged), alternate_in(damaged)) == (600, None, None)
    assert (mapped_in(None), alternate_in(None)) == (None, None)
    assert alternate_in(answer((Attribute.ALTERNATE_SERVER, pack_address(RELAYED4)))) == RELAYED4


@pytest.mark.parametrize(("families", "count"), [((4,), 1), ((6,), 2), ((4, 6), 3)])
def test_ipv4_alone_is_what_is_meant_when_no_family_is_named(families: tuple[int, ...], count: int) -> None:
    assert len(wanted(families)) == count
