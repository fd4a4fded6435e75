from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.portmap import ssdp
from warren.proto.portmap.ssdp import Location

ANSWER = (
    b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    b"USN: uuid:1::x\r\nEXT:\r\nSERVER: Debian UPnP/1.1 MiniUPnPd/2.3.1\r\n"
    b"LOCATION: http://192.168.1.1:5000/rootDesc.xml\r\n\r\n"
)


def test_a_search_is_as_the_architecture_has_it() -> None:
    packed = ssdp.pack_search(ssdp.TARGETS[0], to=ssdp.GROUP4)
    assert packed == (
        b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
    assert b"MX" not in ssdp.pack_search(ssdp.TARGETS[0], to=ip_address("192.168.1.1"))
    assert b"HOST: [ff02::c]:1900\r\n" in ssdp.pack_search(ssdp.TARGETS[0], to=ssdp.GROUP6)


def test_an_answer_says_where_the_description_lies() -> None:
    assert ssdp.unpack_answer_untrusted(ANSWER) == Location(ip_address("192.168.1.1"), 5000, "/rootDesc.xml")


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("http://192.168.1.1/x", "192.168.1.1", "/x"),
        ("HTTP://192.168.1.1:80", "192.168.1.1", "/"),
        ("http://192.168.1.1:8080/x?y=1#z", "192.168.1.1:8080", "/x?y=1"),
        ("http://[fe80::1]:80/", "[fe80::1]", "/"),
        ("http://[fe80::1%eth0]:5000/", "[fe80::1]:5000", "/"),
    ],
)
def test_a_location_is_taken_apart(url: str, authority: str, path: str) -> None:
    location = ssdp.location_untrusted(url)
    assert (location.authority, location.path) == (authority, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "192.168.1.1:5000/x",
        "https://192.168.1.1/",
        "ftp://192.168.1.1/",
        "http:///x",
        "http://router/x",
        "http://192.168.1.1.evil.example/x",
        "http://admin@192.168.1.1/",
        "http://192.168.1.1@evil.example/",
        "http://192.168.1.1:/x",
        "http://192.168.1.1:0/x",
        "http://192.168.1.1:65536/x",
        "http://192.168.1.1:+80/x",
        "http://192.168.1.1:80:80/x",
        "http://[fe80::1/x",
        "http://[fe80::1]x/",
        "http://fe80::1/x",
        "http://0xc0a80101/x",
        "http://192.168.257/x",
        "http://192.168.1.1/a b",
        "http://192.168.1.1/a\r\nEvil: yes",
        "http://192.168.1.1/\N{LATIN SMALL LETTER E WITH ACUTE}",
        "http://192.168.1.1/" + "x" * 600,
    ],
)
def test_what_is_no_address_of_a_gateway_is_malformed(url: str) -> None:
    with pytest.raises(MalformedPacket):
        ssdp.location_untrusted(url)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"NOTIFY * HTTP/1.1\r\n" + ANSWER,
        ANSWER.replace(b"200 OK", b"404 No"),
        ANSWER.replace(b"InternetGatewayDevice:1", b"MediaServer:1"),
        ANSWER.replace(b"LOCATION", b"ELSEWHERE"),
        ANSWER + b"x" * 5000,
    ],
)
def test_an_answer_about_something_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        ssdp.unpack_answer_untrusted(data)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.integers(0, len(ANSWER)), st.binary(max_size=20)).map(
            lambda x: ANSWER[: x[0]] + x[1] + ANSWER[x[0] :]
        ),
    )
)
def test_anything_parses_or_is_malformed(data: bytes) -> None:
    try:
        found = ssdp.unpack_answer_untrusted(data)
    except MalformedPacket:
        return
    assert 1 <= found.port <= 65_535


@given(st.text(max_size=60), st.sampled_from(["", "http://", "http://192.168.1.1", "http://[fe80::1]:"]))
def test_any_url_parses_or_is_malformed(text: str, before: str) -> None:
    try:
        location = ssdp.location_untrusted(before + text)
    except MalformedPacket:
        return
    assert not set(location.path) & set(" \r\n\t\0")
