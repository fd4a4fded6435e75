"""SOCKS5 as RFC 1928 has it, and what it has not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto import socks

CONNECT4 = bytes.fromhex("05010001 0a4d0002 0050")


def test_a_greeting_names_its_methods() -> None:
    assert socks.greeting_untrusted(b"\5\2\0\2rest") == (b"\0\2", 4)
    assert socks.greeting_untrusted(b"\5\0") == (b"", 2)


@pytest.mark.parametrize("part", [b"", b"\5", b"\5\2", b"\5\2\0"])
def test_a_greeting_may_come_in_parts(part: bytes) -> None:
    assert socks.greeting_untrusted(part) is None


@pytest.mark.parametrize("data", [b"\4\1\0\x50\x0a\0\0\1\0", b"GET / HTTP/1.1\r\n", b"\x16\3\1", b"\0"])
def test_what_is_not_version_5_is_known_by_its_first_byte(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        socks.greeting_untrusted(data[:1])
    with pytest.raises(MalformedPacket):
        socks.request_untrusted(data)


@pytest.mark.parametrize(
    ("place", "host"),
    [
        ("01 0a4d0002", IPv4Address("10.77.0.2")),
        ("04 fd770000000000000000000000000002", IPv6Address("fd77::2")),
        ("03 09" + b"web.lan.x".hex(), "web.lan.x"),
        ("03 08" + b"10.0.0.9".hex(), IPv4Address("10.0.0.9")),
        ("03 07" + b"fd77::2".hex(), IPv6Address("fd77::2")),
        ("04 00000000000000000000ffff7f000001", IPv4Address("127.0.0.1")),
        ("03 10" + b"::ffff:127.0.0.1".hex(), IPv4Address("127.0.0.1")),
    ],
)
def test_a_request_has_an_address_or_a_name(place: str, host: object) -> None:
    data = bytes.fromhex("050100" + place + "01bb")
    assert socks.request_untrusted(data + b"more") == (socks.Request(socks.CONNECT, host, 443), len(data))  # type: ignore[arg-type]
    for length in range(len(data)):
        assert socks.request_untrusted(data[:length]) is None
    header = bytes.fromhex("000000" + place + "01bb")
    assert socks.datagram_untrusted(header + b"payload") == socks.Datagram(host, 443, len(header))  # type: ignore[arg-type]
    for length in range(len(header)):
        with pytest.raises(MalformedPacket):
            socks.datagram_untrusted(header[:length])


@pytest.mark.parametrize(
    "name", [b"", b"a b", b"a\0b", b"a/b", b".", b"a..b", b"\xff\xfe", b"a\r\nb", b"fe80::1%eth0", b"x" * 64, b"[::1]"]
)
def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    with pytest.raises(MalformedPacket):
        socks.request_untrusted(b"\5\1\0\3" + bytes((len(name),)) + name + b"\0\x50")


def test_reserved_bytes_and_unknown_kinds_of_address_are_refused() -> None:
    with pytest.raises(MalformedPacket, match="reserved"):
        socks.request_untrusted(b"\5\1\1\1")
    with pytest.raises(MalformedPacket, match=r"^address"):
        socks.request_untrusted(b"\5\1\0\2")


def test_fragments_of_datagrams_are_refused() -> None:
    whole = bytes.fromhex("000000 01 0a4d0002 0035")
    assert socks.datagram_untrusted(whole).port == 53
    for fragment in (1, 127, 128, 255):
        with pytest.raises(MalformedPacket, match="fragment"):
            socks.datagram_untrusted(whole[:2] + bytes((fragment,)) + whole[3:])
    with pytest.raises(MalformedPacket):
        socks.datagram_untrusted(b"\0\1" + whole[2:])
    with pytest.raises(MalformedPacket, match="port 0"):
        socks.datagram_untrusted(whole[:-2] + bytes(2))


def test_replies_say_where_it_is_bound() -> None:
    assert socks.choice(socks.NO_METHOD) == b"\5\xff"
    assert socks.reply(socks.NOT_ALLOWED) == b"\5\2\0\1" + bytes(6)
    bound = TransportAddress(ip_address("fd77::1"), 258)
    assert socks.reply(socks.GRANTED, bound) == b"\5\0\0\4" + bound.ip.packed + b"\1\2"
    header = socks.datagram_header(TransportAddress(ip_address("10.0.0.1"), 258))
    assert header == b"\0\0\0\1\x0a\0\0\1\1\2"
    assert socks.datagram_untrusted(header) == socks.Datagram(IPv4Address("10.0.0.1"), 258, 10)


@given(st.binary(max_size=300))
@example(CONNECT4)
@example(b"\5\1\0\3\xff" + b"x" * 257)
def test_whatever_comes_is_parsed_or_malformed(data: bytes) -> None:
    for parse in (socks.greeting_untrusted, socks.request_untrusted):
        try:
            parsed = parse(data)
        except MalformedPacket:
            continue
        assert parsed is None or parsed[1] <= len(data)
        if parsed is None:
            assert len(data) < socks.REQUEST_BYTES_MAX
    try:
        datagram = socks.datagram_untrusted(data)
    except MalformedPacket:
        return
    assert datagram.offset <= min(len(data), socks.REQUEST_BYTES_MAX)
    assert datagram.port
