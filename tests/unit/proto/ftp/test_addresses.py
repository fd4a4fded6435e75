"""Addresses of data connections: what is understood, and that nothing else is."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.ftp.addresses import (
    OtherProtocol,
    decode_eprt_untrusted,
    decode_port_untrusted,
    encode_pasv,
    epsv_reply_untrusted,
    pasv_reply_untrusted,
)

HERE = TransportAddress(IPv4Address("192.0.2.7"), 51_210)


def test_port_and_pasv_write_addresses_as_rfc_959_does() -> None:
    assert encode_pasv(HERE) == b"192,0,2,7,200,10"
    assert decode_port_untrusted(b"192,0,2,7,200,10") == HERE


@given(st.ip_addresses(v=4), st.integers(1, 65_535))
def test_what_is_written_is_read_back(ip: IPv4Address, port: int) -> None:
    where = TransportAddress(ip, port)
    assert decode_port_untrusted(encode_pasv(where)) == where
    assert pasv_reply_untrusted(b"Entering Passive Mode (" + encode_pasv(where) + b").") == where


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"192,0,2,7,200",
        b"192,0,2,7,200,10,1",
        b"192,0,2,256,200,10",
        b"192,0,2,7,0,0",
        b"192,0,2,7,256,0",
        b"192.0.2.7,200,10",
        b"192,0,2,7,200,10 x",
        b"-1,0,2,7,200,10",
        b"192,0,2,0007,200,10",
    ],
)
def test_port_with_anything_else_is_refused(argument: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode_port_untrusted(argument)


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        (b"|1|192.0.2.7|51210|", HERE),
        (b"!1!192.0.2.7!51210!", HERE),
        (b"|2|2001:db8::7|5282|", TransportAddress(ip_address("2001:db8::7"), 5282)),
        (b"|2|::ffff:192.0.2.7|51210|", HERE),
    ],
)
def test_eprt_names_either_protocol(argument: bytes, where: TransportAddress) -> None:
    assert decode_eprt_untrusted(argument) == where


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b"|1|192.0.2.7|51210",
        b"|1|192.0.2.7!51210|",
        b"|1|2001:db8::7|51210|",
        b"|2|192.0.2.7|51210|",
        b"|1|192.0.2.7|0|",
        b"|1|192.0.2.7|65536|",
        b"|1|192.0.2.7|999999|",
        b"|2|fe80::1%eth0|5282|",
        b"|2|localhost|5282|",
        b"1|192.0.2.7|5282|x",
        b"|1|192.0.2.7|51210|PORT",
    ],
)
def test_eprt_with_anything_else_is_refused(argument: bytes) -> None:
    with pytest.raises(MalformedPacket):
        decode_eprt_untrusted(argument)


def test_eprt_of_a_third_protocol_is_told_apart() -> None:
    with pytest.raises(OtherProtocol):
        decode_eprt_untrusted(b"|3|1234|5282|")


@pytest.mark.parametrize(
    "text",
    [
        b"Entering Passive Mode (192,0,2,7,200,10).",
        b"Entering Passive Mode 192,0,2,7,200,10",
        b"=192,0,2,7,200,10",
    ],
)
def test_a_227_is_read_with_and_without_parentheses(text: bytes) -> None:
    assert pasv_reply_untrusted(text) == HERE


@pytest.mark.parametrize("text", [b"", b"Entering Passive Mode", b"(192,0,2,7,200)", b"(300,0,2,7,200,10)"])
def test_a_227_without_an_address_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedPacket):
        pasv_reply_untrusted(text)


@pytest.mark.parametrize("text", [b"Entering Extended Passive Mode (|||6446|)", b"x (!!!6446!) y"])
def test_a_229_gives_the_port(text: bytes) -> None:
    assert epsv_reply_untrusted(text) == 6446


@pytest.mark.parametrize(
    "text", [b"", b"|||6446|", b"(|1|192.0.2.7|6446|)", b"(|||0|)", b"(|||65536|)", b"(||!6446|)", b"(1116446 1)"]
)
def test_a_229_that_names_an_address_or_no_port_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedPacket):
        epsv_reply_untrusted(text)


@given(st.binary(max_size=80))
def test_whatever_comes_the_decoders_end_in_one_way(data: bytes) -> None:
    for decode in (decode_port_untrusted, decode_eprt_untrusted, pasv_reply_untrusted, epsv_reply_untrusted):
        with suppress(MalformedPacket):
            decode(data)
