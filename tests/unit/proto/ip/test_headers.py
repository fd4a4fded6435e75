"""Finding lengths and transport headers in packets that may be anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.flows import Tcp, Udp
from warren.proto.ip.headers import packet_length, transport_offset


@pytest.mark.parametrize("first", [0x00, 0x50, 0x70, 0xF5])
def test_other_versions_have_no_length(first: int) -> None:
    packet = bytes([first]) + Tcp().packet()[1:]
    assert packet_length(packet, 0, len(packet)) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_is_as_long_as_its_header_says(version: int) -> None:
    packet = Udp(version=version, payload=b"five!").packet()
    assert packet_length(packet + bytes(9), 0, len(packet) + 9) == len(packet)
    assert packet_length(b"...." + packet, 4, 4 + len(packet)) == len(packet)
    assert packet_length(packet, 0, len(packet) - 1) == 0


def test_an_ipv4_packet_may_not_be_shorter_than_its_header() -> None:
    packet = bytearray(Udp(payload=bytes(60)).packet())
    packet[2:4] = (20).to_bytes(2, "big")
    assert packet_length(packet, 0, len(packet)) == 20
    packet[0] = 0x46
    assert packet_length(packet, 0, len(packet)) == 0
    packet[0] = 0x44
    assert packet_length(packet, 0, len(packet)) == 0


@given(st.binary(max_size=80), st.integers(0, 90))
def test_no_bytes_are_too_odd_to_be_looked_at(data: bytes, at: int) -> None:
    assert 0 <= packet_length(data, at, len(data)) <= max(0, len(data) - at)


def test_the_transport_header_follows_ipv4_options() -> None:
    packet = Tcp().packet()
    assert transport_offset(packet, 6) == 20
    assert transport_offset(b"\x47" + packet[1:20] + bytes(8) + packet[20:], 6) == 28
    assert transport_offset(packet, 17) == 0


@pytest.mark.parametrize("fragment", [b"\x20\x00", b"\x00\x01", b"\x1f\xff"])
def test_a_fragment_has_no_transport_header(fragment: bytes) -> None:
    packet = replace(Tcp(), dont_fragment=False).packet()
    assert transport_offset(packet[:6] + fragment + packet[8:], 6) == 0


def extended(*headers: tuple[int, int]) -> bytes:
    """A TCP/IPv6 packet with extension headers (protocol, units of 8 bytes beyond the first)."""
    packet = Tcp(version=6).packet()
    kinds = [kind for kind, _ in headers] + [6]
    chain = b"".join(bytes([kinds[i + 1], units]) + bytes(6 + 8 * units) for i, (_, units) in enumerate(headers))
    return packet[:6] + bytes([kinds[0]]) + packet[7:40] + chain + packet[40:]


def test_hop_by_hop_and_destination_options_are_walked() -> None:
    assert transport_offset(extended((0, 0), (60, 2)), 6) == 40 + 8 + 24


@pytest.mark.parametrize("kind", [43, 44, 50, 51, 59, 135])
def test_other_extension_headers_end_the_walk(kind: int) -> None:
    assert transport_offset(extended((0, 0), (kind, 0)), 6) == 0


def test_a_walk_ends_with_the_packet() -> None:
    assert transport_offset(extended((60, 0), (60, 0))[:48], 6) == 0
