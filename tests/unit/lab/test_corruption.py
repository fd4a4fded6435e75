"""Damaged packets, judged by checksums computed anew over the whole packet."""

from __future__ import annotations

import random

import pytest

from warren.lab.corruption import flip_one_bit

SOURCE4, TARGET4 = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SOURCE6, TARGET6 = bytes.fromhex("fd" + "00" * 14 + "01"), bytes.fromhex("fd" + "00" * 14 + "02")


def ones_complement_sum(data: bytes) -> int:
    """RFC 1071 §4.1, over an even or odd number of bytes."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2]) for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(packet: bytes) -> bytes:
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    return addresses + bytes((0, 17)) + len(datagram_of(packet)).to_bytes(2)


def datagram_of(packet: bytes) -> bytes:
    return packet[20:] if packet[0] >> 4 == 4 else packet[40:]


def checksum_holds(packet: bytes) -> bool:
    return ones_complement_sum(pseudo_header(packet) + datagram_of(packet)) == 0xFFFF


def udp_packet(version: int, payload: bytes, *, checksum: bool = True) -> bytes:
    length = 8 + len(payload)
    if version == 4:
        header = bytes((0x45, 0)) + (20 + length).to_bytes(2) + bytes((0, 0, 0, 0, 64, 17, 0, 0)) + SOURCE4 + TARGET4
    else:
        header = bytes((0x60, 0, 0, 0)) + length.to_bytes(2) + bytes((17, 64)) + SOURCE6 + TARGET6
    blank = header + (1000).to_bytes(2) + (2000).to_bytes(2) + length.to_bytes(2) + bytes(2) + payload
    if not checksum:
        return blank
    value = ~ones_complement_sum(pseudo_header(blank) + datagram_of(blank)) & 0xFFFF or 0xFFFF
    at = len(header) + 6
    return blank[:at] + value.to_bytes(2) + blank[at + 2 :]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 100, 1400])
def test_a_repaired_datagram_differs_in_one_payload_bit_and_its_checksum_holds(version: int, size: int) -> None:
    rng = random.Random(size)
    packet = udp_packet(version, rng.randbytes(size))
    assert checksum_holds(packet)
    for _ in range(200):
        damaged = flip_one_bit(packet, rng, pass_udp=True)
        assert checksum_holds(damaged)
        start = len(packet) - size
        difference = int.from_bytes(packet[start:]) ^ int.from_bytes(damaged[start:])
        assert difference.bit_count() == 1
        assert damaged[: start - 2] == packet[: start - 2], "only the checksum field before the payload changes"


@pytest.mark.parametrize("version", [4, 6])
def test_an_unrepaired_datagram_fails_its_checksum_and_keeps_its_ip_header(version: int) -> None:
    rng = random.Random(version)
    packet = udp_packet(version, rng.randbytes(101))
    for _ in range(200):
        damaged = flip_one_bit(packet, rng, pass_udp=False)
        assert not checksum_holds(damaged)
        header = len(packet) - len(datagram_of(packet))
        assert damaged[:header] == packet[:header]


def test_a_datagram_without_a_checksum_stays_without() -> None:
    packet = udp_packet(4, b"payload", checksum=False)
    damaged = flip_one_bit(packet, random.Random(1), pass_udp=True)
    assert damaged != packet
    assert damaged[26:28] == bytes(2)


def test_every_bit_behind_the_header_is_hit_sooner_or_later() -> None:
    packet, rng = udp_packet(4, b"abc"), random.Random(2)
    hit = set()
    for _ in range(2000):
        damaged = flip_one_bit(packet, rng, pass_udp=False)
        hit.add(int.from_bytes(packet) ^ int.from_bytes(damaged))
    assert hit == {1 << bit for bit in range(8 * (8 + 3))}


@pytest.mark.parametrize("packet", [udp_packet(4, b"")[:20], b"\x60" + bytes(39), b"\x45"])
def test_a_packet_with_nothing_behind_its_header_is_left_as_it_is(packet: bytes) -> None:
    assert flip_one_bit(packet, random.Random(3), pass_udp=True) == packet
