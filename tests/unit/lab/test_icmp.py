from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from warren.errors import UsageError
from warren.lab.icmp import IcmpError, Kind


def error(kind: Kind, version: int, **more: object) -> IcmpError:
    prefix = "192.0.2." if version == 4 else "2001:db8::"
    reporter, source, target = (ip_address(f"{prefix}{number}") for number in (1, 2, 3))
    return IcmpError(kind, reporter, source, 1111, target, 2222, **more)  # type: ignore[arg-type]


def checksum_holds(data: bytes) -> bool:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


def test_an_ipv4_error_quotes_the_header_and_eight_bytes_with_right_checksums() -> None:
    packet = error("too-big", 4, mtu=576).packet()
    assert len(packet) == 20 + 8 + 28
    assert checksum_holds(packet[:20])
    assert checksum_holds(packet[20:])
    assert packet[12:20] == bytes([192, 0, 2, 1, 192, 0, 2, 2])
    assert packet[20:22] == bytes([3, 4])
    assert packet[26:28] == struct.pack("!H", 576)
    quoted = packet[28:]
    assert quoted[12:20] == bytes([192, 0, 2, 2, 192, 0, 2, 3])
    assert struct.unpack_from("!HH", quoted, 20) == (1111, 2222)


def test_an_ipv6_error_has_the_checksum_with_its_pseudo_header() -> None:
    packet = error("too-big", 6, mtu=1280).packet()
    assert packet[40:42] == bytes([2, 0])
    assert packet[44:48] == struct.pack("!I", 1280)
    pseudo = packet[8:40] + struct.pack("!II", len(packet) - 40, 58)
    assert checksum_holds(pseudo + packet[40:])


def test_a_redirect_names_the_other_router() -> None:
    packet = error("redirect", 4, gateway=ip_address("192.0.2.9")).packet()
    assert packet[20:22] == bytes([5, 1])
    assert packet[24:28] == bytes([192, 0, 2, 9])


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(UsageError, match="no redirect"):
        error("redirect", 6)
    with pytest.raises(UsageError, match="of one family"):
        IcmpError("too-big", ip_address("192.0.2.1"), ip_address("::1"), 1, ip_address("::2"), 1)
