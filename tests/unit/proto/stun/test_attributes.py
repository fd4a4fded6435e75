from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun import attributes
from warren.proto.stun.attributes import AddressErrorCode, ChangeRequest, ErrorCode, PasswordAlgorithm

TRANSACTION = bytes(range(12))
addresses = st.builds(
    TransportAddress,
    st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)),
    st.integers(0, 65535),
)
algorithms = st.builds(PasswordAlgorithm, st.integers(0, 65535), st.binary(max_size=9))
errors = st.integers(300, 699)

UNPACK = {
    name: function
    for name, function in vars(attributes).items()
    if name.startswith("unpack_") and name.endswith("_untrusted")
}


@given(addresses, st.binary(min_size=12, max_size=12))
def test_addresses_come_back_xored_or_not(address: TransportAddress, transaction: bytes) -> None:
    assert attributes.unpack_address_untrusted(attributes.pack_address(address)) == address
    packed = attributes.pack_xor_address(address, transaction)
    assert attributes.unpack_xor_address_untrusted(packed, transaction) == address


@given(st.data())
def test_every_value_comes_back(data: st.DataObject) -> None:
    pairs: list[tuple[str, st.SearchStrategy[Any]]] = [
        ("uint32", st.integers(0, 2**32 - 1)),
        ("uint64", st.integers(0, 2**64 - 1)),
        ("channel_number", st.integers(0x4000, 0x4FFF)),
        ("port", st.integers(1, 65535)),
        ("unknown_attributes", st.lists(st.integers(0, 65535), max_size=9).map(tuple)),
        ("requested_transport", st.integers(0, 255)),
        ("family", st.sampled_from([4, 6])),
        ("change_request", st.builds(ChangeRequest, st.booleans(), st.booleans())),
        ("address_error_code", st.builds(AddressErrorCode, st.sampled_from([4, 6]), errors)),
        ("password_algorithm", algorithms),
        ("password_algorithms", st.lists(algorithms, max_size=4).map(tuple)),
    ]
    for name, values in pairs:
        value = data.draw(values)
        packed = getattr(attributes, f"pack_{name}")(value)
        assert UNPACK[f"unpack_{name}_untrusted"](packed) == value
    number, reason = data.draw(errors), data.draw(st.text(max_size=20))
    assert attributes.unpack_error_code_untrusted(attributes.pack_error_code(number, reason)) == (number, reason)
    reserve = data.draw(st.booleans())
    assert attributes.unpack_even_port_untrusted(attributes.pack_even_port(reserve_next=reserve)) == reserve


@pytest.mark.parametrize("unpack", UNPACK.values(), ids=UNPACK)
@given(value=st.binary(max_size=40))
def test_arbitrary_bytes_are_a_value_or_malformed(unpack: Callable[..., object], value: bytes) -> None:
    more = (TRANSACTION,) if "transaction" in inspect.signature(unpack).parameters else ()
    with contextlib.suppress(MalformedPacket):
        unpack(value, *more)


@pytest.mark.parametrize(
    ("unpack", "value"),
    [
        (attributes.unpack_address_untrusted, b""),
        (attributes.unpack_address_untrusted, b"\0\1\0\0" + bytes(16)),  # IPv4 with the length of IPv6
        (attributes.unpack_address_untrusted, b"\0\2\0\0" + bytes(4)),
        (attributes.unpack_address_untrusted, b"\0\3\0\0" + bytes(4)),
        (attributes.unpack_uint32_untrusted, bytes(5)),
        (attributes.unpack_uint64_untrusted, bytes(4)),
        (attributes.unpack_channel_number_untrusted, b"\x3f\xff\0\0"),
        (attributes.unpack_channel_number_untrusted, b"\x50\x00\0\0"),
        (attributes.unpack_port_untrusted, bytes(4)),
        (attributes.unpack_error_code_untrusted, b"\0\0\4"),
        (attributes.unpack_error_code_untrusted, b"\0\0\2\0"),
        (attributes.unpack_error_code_untrusted, b"\0\0\4\x64"),
        (attributes.unpack_error_code_untrusted, b"\0\0\4\0" + bytes(764)),
        (attributes.unpack_text_untrusted, b"\xff"),
        (attributes.unpack_text_untrusted, bytes(764)),
        (attributes.unpack_unknown_attributes_untrusted, bytes(3)),
        (attributes.unpack_family_untrusted, bytes(4)),
        (attributes.unpack_password_algorithm_untrusted, b""),
        (attributes.unpack_password_algorithm_untrusted, bytes(8)),
        (attributes.unpack_password_algorithms_untrusted, b"\0\1\0\5abcd"),
        (attributes.unpack_password_algorithms_untrusted, b"\0\1\0\0\0"),
    ],
)
def test_what_is_no_value_is_malformed(unpack: Callable[[bytes], object], value: bytes) -> None:
    with pytest.raises(MalformedPacket):
        unpack(value)


def test_a_name_is_as_long_as_the_rfc_allows() -> None:
    limit = attributes.USERNAME_BYTES_MAX
    assert attributes.unpack_text_untrusted("é".encode(), limit) == "é"
    assert attributes.unpack_text_untrusted(b"a" * limit, limit) == "a" * limit
    with pytest.raises(MalformedPacket):
        attributes.unpack_text_untrusted(b"a" * (limit + 1), limit)


def test_a_reason_that_is_not_utf8_does_not_hide_the_number() -> None:
    assert attributes.unpack_error_code_untrusted(b"\0\0\4\x14\xff") == ErrorCode(420, "\ufffd")
