"""Congestion marks on their way through the tunnel (RFC 6040)."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.flows import Tcp
from warren.proto.ip.ecn import decapsulate, inner_ecn

NOT_ECT, ECT_1, ECT_0, CE = range(4)
DSCP = 0xB8

# RFC 6040 §4.2, figure 4: the outgoing inner field by (arriving inner, arriving outer); None is a drop.
OUTCOMES = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
CASES = [(inner, outer, outcome) for inner, row in OUTCOMES.items() for outer, outcome in row.items()]


def opened_train(*packets: bytes) -> tuple[bytearray, int, array[int]]:
    """The packets as plaintexts of a train, with its stride and lengths."""
    stride = 32 + max(map(len, packets))
    train = bytearray()
    for packet in packets:
        train += bytes(16) + packet + bytes(stride - 16 - len(packet))
    return train, stride, array("i", map(len, packets))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("inner", "outer", "outcome"), CASES)
def test_the_marks_combine_as_in_the_table(version: int, inner: int, outer: int, outcome: int | None) -> None:
    packet = Tcp(version=version, traffic_class=DSCP | inner, payload=b"data")
    train, stride, lengths = opened_train(packet.packet())
    dropped = decapsulate(train, 0, len(train), stride, lengths, outer)
    if outcome is None:
        assert (dropped, lengths[0]) == (1, 0)
    else:
        expected = replace(packet, traffic_class=DSCP | outcome).packet()
        assert (dropped, lengths[0]) == (0, len(expected))
        assert train[16:-16] == expected  # with a valid IPv4 checksum


@given(st.integers(0, 0xFFFF), st.integers(1, 255))
def test_the_ipv4_checksum_stays_valid_for_any_header(identification: int, ttl: int) -> None:
    packet = Tcp(traffic_class=ECT_0, identification=identification, ttl=ttl)
    train, stride, lengths = opened_train(packet.packet())
    decapsulate(train, 0, len(train), stride, lengths, CE)
    assert train[16:-16] == replace(packet, traffic_class=CE).packet()


def test_each_packet_of_a_train_is_marked_by_itself() -> None:
    packets = [Tcp(traffic_class=ecn, payload=b"x" * 9) for ecn in (ECT_0, NOT_ECT, CE)]
    train, stride, lengths = opened_train(*(packet.packet() for packet in packets))
    assert decapsulate(train, 0, len(train), stride, lengths, CE) == 1
    assert [bool(length) for length in lengths] == [True, False, True]
    assert train[16 : stride - 16] == replace(packets[0], traffic_class=CE).packet()


@pytest.mark.parametrize("version", [4, 6])
def test_the_mark_of_a_packet_is_read(version: int) -> None:
    for ecn in range(4):
        assert inner_ecn(b"??" + Tcp(version=version, traffic_class=DSCP | ecn).packet(), 2) == ecn
    assert inner_ecn(b"\x45", 0) == NOT_ECT
    assert inner_ecn(b"\x55\xff", 0) == NOT_ECT


@given(st.binary(max_size=200), st.integers(1, 90), st.lists(st.integers(-9, 90), min_size=200), st.integers(0, 3))
def test_malformed_packets_are_left_alone(data: bytes, stride: int, lengths: list[int], outer: int) -> None:
    train = bytearray(data)
    decapsulate(train, 0, len(train), stride, array("i", lengths), outer)
    assert len(train) == len(data)
    if not any(byte >> 4 in (4, 6) for byte in data):
        assert train == data
