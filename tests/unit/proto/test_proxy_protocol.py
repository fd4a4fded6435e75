"""PROXY protocol v2 against bytes written down from its specification (HAProxy, 2020, §2.2)."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.proxy_protocol import (
    FIXED_BYTES,
    LENGTH_MAX,
    SIGNATURE,
    Header,
    crc32c,
    decode_untrusted,
    encode,
    missing_untrusted,
)


def at(text: str, port: int) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


HEAD = "0d0a0d0a000d0a515549540a"
VECTORS = {
    "TCP over IPv4": (
        HEAD + "2111000c c0000201 c6336402 c822 01bb",
        Header(at("192.0.2.1", 51234), at("198.51.100.2", 443)),
    ),
    "TCP over IPv6": (
        HEAD + "21210024 20010db8000000000000000000000001 20010db8000000000000000000000002 0400 0050",
        Header(at("2001:db8::1", 1024), at("2001:db8::2", 80)),
    ),
    "local": (HEAD + "20000000", Header(None, None, local=True)),
    "unspecified": (HEAD + "21000000", Header(None, None)),
}


@pytest.mark.parametrize("name", VECTORS)
def test_headers_are_written_as_the_specification_says(name: str) -> None:
    data, header = VECTORS[name]
    assert encode(header.source, header.destination, local=header.local) == bytes.fromhex(data)


@pytest.mark.parametrize("name", VECTORS)
def test_headers_are_read_and_nothing_behind_them(name: str) -> None:
    data, header = bytes.fromhex(VECTORS[name][0]), VECTORS[name][1]
    assert decode_untrusted(data + b"GET / HTTP/1.1") == (header, len(data))
    assert missing_untrusted(data) == 0


@pytest.mark.parametrize("name", VECTORS)
def test_every_beginning_of_a_header_asks_for_more_and_never_for_too_much(name: str) -> None:
    data = bytes.fromhex(VECTORS[name][0])
    for length in range(len(data)):
        assert decode_untrusted(data[:length]) is None
        assert 0 < missing_untrusted(data[:length]) <= len(data) - length


def test_two_families_are_both_written_as_ipv6_and_read_as_they_were() -> None:
    source, destination = at("192.0.2.1", 1), at("2001:db8::1", 2)
    data = encode(source, destination)
    assert data[13] == 0x21
    assert decode_untrusted(data) == (Header(source, destination), 52)


def test_without_a_destination_the_client_is_told_all_the_same() -> None:
    for text in ("192.0.2.1", "2001:db8::1"):
        decoded = decode_untrusted(encode(at(text, 7), None))
        assert decoded is not None
        assert decoded[0].source == at(text, 7)


def test_the_addresses_of_a_local_command_are_ignored() -> None:
    data = SIGNATURE + bytes.fromhex("2011000c c0000201 c6336402 c822 01bb")
    assert decode_untrusted(data) == (Header(None, None, local=True), 28)


def test_unix_addresses_are_no_addresses() -> None:
    data = SIGNATURE + bytes.fromhex("213100d8") + bytes(216)
    assert decode_untrusted(data) == (Header(None, None), 232)


def with_tlvs(*tlvs: tuple[int, bytes]) -> bytes:
    body = bytes.fromhex("c0000201c6336402c82201bb")
    body += b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tlvs)
    return SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(body)) + body


def test_tlvs_are_passed_over() -> None:
    data = with_tlvs((0x01, b"h2"), (0x02, b"example.org"), (0x20, bytes(40)), (0x04, b""))
    decoded = decode_untrusted(data + b"x")
    assert decoded == (Header(at("192.0.2.1", 51234), at("198.51.100.2", 443)), len(data))


def checked() -> bytes:
    data = with_tlvs((0x03, bytes(4)))
    return data[:-4] + struct.pack("!I", crc32c(data))


def test_a_right_checksum_passes_and_a_wrong_one_does_not() -> None:
    data = checked()
    assert decode_untrusted(data) is not None
    for index in (16, 20, len(data) - 1):
        wrong = bytearray(data)
        wrong[index] ^= 1
        with pytest.raises(MalformedPacket, match="checksum"):
            decode_untrusted(bytes(wrong))


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "version 1"),
        (b"PRO", "version 1"),
        (b"POST / HTTP/1.1\r\n", "does not begin"),
        (b"GET / HTTP/1.1\r\n", "does not begin"),
        (b"\r\n\r\nGET", "does not begin"),
        (SIGNATURE + bytes.fromhex("1111000c") + bytes(12), "version and command"),
        (SIGNATURE + bytes.fromhex("2211000c") + bytes(12), "version and command"),
        (SIGNATURE + bytes.fromhex("2141000c") + bytes(12), "family"),
        (SIGNATURE + bytes.fromhex("2113000c") + bytes(12), "family"),
        (SIGNATURE + bytes.fromhex("2043000c") + bytes(12), "family"),
        (SIGNATURE + bytes.fromhex("2112000c") + bytes(12), "datagrams"),
        (SIGNATURE + bytes.fromhex("2111000b") + bytes(11), "too short"),
        (SIGNATURE + bytes.fromhex("21210023") + bytes(35), "too short"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, LENGTH_MAX + 1), "at most"),
        (with_tlvs()[:14] + b"\0\x0e" + with_tlvs()[16:] + b"\x01\0", "within a TLV"),
        (with_tlvs()[:14] + b"\0\x0f" + with_tlvs()[16:] + b"\x01\0\x01", "longer"),
        (with_tlvs((3, b"abc")), "checksum"),
        (with_tlvs((3, bytes(4)), (3, bytes(4))), "checksum"),
    ],
)
def test_what_is_no_header_is_refused_with_a_reason(data: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        decode_untrusted(data)


def test_a_wrong_beginning_is_refused_at_its_first_wrong_byte() -> None:
    for data in (b"Q", b"\r\n\r\n\0\rX", b"PROXX"):
        with pytest.raises(MalformedPacket):
            missing_untrusted(data)


def test_garbage_behind_an_unspecified_family_is_no_tlv() -> None:
    data = SIGNATURE + bytes.fromhex("21000005") + b"\xff" * 5
    assert decode_untrusted(data) == (Header(None, None), 21)


ADDRESSES = st.builds(TransportAddress, st.ip_addresses(), st.integers(0, 65535))


@given(ADDRESSES, ADDRESSES)
def test_what_is_written_is_read(source: TransportAddress, destination: TransportAddress) -> None:
    decoded = decode_untrusted(encode(source, destination))
    assert decoded is not None
    plain = [getattr(one.ip, "ipv4_mapped", None) or one.ip for one in (source, destination)]
    assert decoded[0].source is not None
    assert decoded[0].destination is not None
    assert [decoded[0].source.ip, decoded[0].destination.ip] == plain
    assert (decoded[0].source.port, decoded[0].destination.port) == (source.port, destination.port)


@given(st.binary(max_size=300), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21", SIGNATURE + b"\x21\x11\0"]))
def test_any_bytes_are_a_header_or_more_or_malformed(data: bytes, head: bytes) -> None:
    data = head + data
    try:
        decoded = decode_untrusted(data)
    except MalformedPacket:
        return
    if decoded is None:
        assert len(data) < FIXED_BYTES + LENGTH_MAX
    else:
        assert FIXED_BYTES <= decoded[1] <= len(data)
