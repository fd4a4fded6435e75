from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.portmap import pcp

NONCE = bytes(range(12))
CLIENT = ip_address("192.168.1.20")
OUTSIDE = TransportAddress(ip_address("198.51.100.7"), 40000)
MAPPING = pcp.Mapping(NONCE, 17, 51820, OUTSIDE)
# RFC 6887 §7.1, §11.1 and §12.1, as hexadecimal written down by hand.
MAPPED4 = "00000000000000000000ffff"
MAP_REQUEST = bytes.fromhex(
    f"02 01 0000 00001c20 {MAPPED4}c0a80114 000102030405060708090a0b 11 000000 ca6c 9c40 {MAPPED4}c6336407"
)
MAP_ANSWER = bytes.fromhex(
    "02 81 00 00 00000e10 00000064 000000000000000000000000"
    f"000102030405060708090a0b 11 000000 ca6c 9c40 {MAPPED4}c6336407"
)
PEER_ANSWER = b"\x02\x82" + MAP_ANSWER[2:] + bytes.fromhex(f"01bb 0000 {MAPPED4}cb007109")


def test_requests_are_as_in_the_rfc() -> None:
    assert pcp.pack_request(CLIENT, MAPPING, 7200) == MAP_REQUEST
    assert pcp.pack_announce_request(CLIENT) == bytes.fromhex(f"02 00 0000 00000000 {MAPPED4}c0a80114")


def test_a_peer_request_has_the_remote_peer_behind_the_mapping() -> None:
    mapping = pcp.Mapping(NONCE, 17, 51820, OUTSIDE, TransportAddress(ip_address("203.0.113.9"), 443))
    packed = pcp.pack_request(CLIENT, mapping, 7200)
    assert packed == b"\x02\x02" + MAP_REQUEST[2:] + bytes.fromhex(f"01bb 0000 {MAPPED4}cb007109")


def test_answers_are_as_in_the_rfc() -> None:
    assert pcp.unpack_answer_untrusted(MAP_ANSWER) == pcp.Answer(1, 0, 3600, 100, MAPPING)
    peer = pcp.unpack_answer_untrusted(PEER_ANSWER).mapping
    assert peer is not None
    assert peer.remote == TransportAddress(ip_address("203.0.113.9"), 443)


def test_options_are_padded_to_four_bytes() -> None:
    packed = pcp.pack_request(CLIENT, MAPPING, 7200, [(pcp.Option.PREFER_FAILURE, b""), (200, b"abcde")])
    assert packed[len(MAP_REQUEST) :] == b"\x02\0\0\0" + b"\xc8\0\0\x05abcde\0\0\0"
    answer = pcp.unpack_answer_untrusted(MAP_ANSWER + packed[len(MAP_REQUEST) :])
    assert answer.options == ((2, b""), (200, b"abcde"))


@pytest.mark.parametrize("result", [*range(1, 14), 255])
def test_every_refusal_has_a_sentence(result: int) -> None:
    assert pcp.why(result)
    answer = pcp.unpack_answer_untrusted(MAP_ANSWER[:3] + bytes((result,)) + MAP_ANSWER[4:])
    assert (answer.result, answer.lifetime_s, answer.mapping) == (result, 3600, MAPPING)


@pytest.mark.parametrize(
    ("mapping", "lifetime"),
    [
        (pcp.Mapping(NONCE, 17, 0, OUTSIDE), 1),
        (pcp.Mapping(NONCE, 17, 0, OUTSIDE), 0),
        (pcp.Mapping(NONCE[:11], 17, 1, OUTSIDE), 1),
        (pcp.Mapping(NONCE, 17, 1, TransportAddress(OUTSIDE.ip, 0)), 1),
    ],
)
def test_ports_that_would_mean_all_ports_are_never_asked_for(mapping: pcp.Mapping, lifetime: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        pcp.pack_request(CLIENT, mapping, lifetime)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAP_ANSWER[:20],
        MAP_ANSWER[:-4],
        MAP_ANSWER + b"\0",
        MAP_ANSWER + b"\x02\0\0\x08\0\0\0\0",
        MAP_ANSWER + b"\x02\0\0\0" * 17,
        MAP_ANSWER + b"\x02\0\0\0" * 300,
        PEER_ANSWER[:-4],
        MAP_REQUEST,
        b"\x01" + MAP_ANSWER[1:],
    ],
)
def test_what_is_no_answer_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        pcp.unpack_answer_untrusted(data)


def test_a_gateway_that_only_knows_nat_pmp_is_told_by_its_answer() -> None:
    assert pcp.is_nat_pmp_untrusted(bytes.fromhex("0080 0001 00000064"))
    assert not pcp.is_nat_pmp_untrusted(MAP_ANSWER)
    assert not pcp.is_nat_pmp_untrusted(bytes.fromhex("0000 0001 00000064"))
    assert not pcp.is_nat_pmp_untrusted(b"\0\x80")


@given(st.one_of(st.binary(max_size=1200), st.binary(max_size=1100).map(lambda tail: b"\x02\x81\x00\x00" + tail)))
def test_anything_parses_or_is_malformed(data: bytes) -> None:
    pcp.is_nat_pmp_untrusted(data)
    try:
        pcp.unpack_answer_untrusted(data)
    except MalformedPacket:
        return


@given(st.integers(0, len(MAP_ANSWER) - 1), st.binary(min_size=1, max_size=8), st.binary(max_size=64))
def test_damaged_answers_parse_or_are_malformed(at: int, put: bytes, tail: bytes) -> None:
    try:
        pcp.unpack_answer_untrusted(MAP_ANSWER[:at] + put + MAP_ANSWER[at + len(put) :] + tail)
    except MalformedPacket:
        return
