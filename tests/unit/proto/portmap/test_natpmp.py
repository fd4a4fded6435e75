from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.portmap import natpmp

# Layouts of RFC 6886 §3.2 and §3.3, as hexadecimal written down by hand.
ADDRESS_ANSWER = bytes.fromhex("0080 0000 00000e10 c6336407")
MAP_ANSWER = bytes.fromhex("0081 0000 00000e10 ca6c 9c40 00001c20")


def test_requests_are_as_in_the_rfc() -> None:
    assert natpmp.pack_external_address_request() == bytes.fromhex("0000")
    assert natpmp.pack_map_request(51820, 40000, 7200) == bytes.fromhex("0001 0000 ca6c 9c40 00001c20")
    assert natpmp.pack_map_request(51820, 0, 0) == bytes.fromhex("0001 0000 ca6c 0000 00000000")


def test_answers_are_as_in_the_rfc() -> None:
    assert natpmp.unpack_answer_untrusted(ADDRESS_ANSWER) == natpmp.ExternalAddress(3600, IPv4Address("198.51.100.7"))
    assert natpmp.unpack_answer_untrusted(MAP_ANSWER) == natpmp.Mapping(3600, 51820, 40000, 7200)


@pytest.mark.parametrize("tail", [b"", MAP_ANSWER[8:], b"x"])
def test_a_refusal_needs_no_body(tail: bytes) -> None:
    answer = natpmp.unpack_answer_untrusted(struct.pack("!BBHI", 0, 129, 2, 7) + tail)
    assert answer == natpmp.Refused(7, 1, 2)
    assert isinstance(answer, natpmp.Refused)
    assert answer.why == "does not allow it"


@pytest.mark.parametrize(("internal", "external", "lifetime"), [(0, 0, 0), (0, 1, 1), (1, 0, 1), (70000, 1, 1)])
def test_ports_that_would_mean_all_ports_are_never_asked_for(internal: int, external: int, lifetime: int) -> None:
    with pytest.raises(ValueError, match="cannot be mapped"):
        natpmp.pack_map_request(internal, external, lifetime)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ADDRESS_ANSWER[:-1],
        ADDRESS_ANSWER + b"x",
        MAP_ANSWER[:-1],
        MAP_ANSWER + b"x",
        b"\x02" + MAP_ANSWER[1:],
        b"\x00\x01" + MAP_ANSWER[2:],
        b"\x00\x82" + MAP_ANSWER[2:],
    ],
)
def test_what_is_no_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        natpmp.unpack_answer_untrusted(data)


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=20).map(lambda tail: b"\x00\x81" + tail)))
def test_anything_parses_or_is_malformed(data: bytes) -> None:
    try:
        natpmp.unpack_answer_untrusted(data)
    except MalformedPacket:
        return
