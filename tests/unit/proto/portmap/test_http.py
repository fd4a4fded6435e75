from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.portmap import http
from warren.proto.portmap.http import Response, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"


def read(data: bytes, *, piece: int = 1 << 20) -> Response:
    reader = ResponseReader()
    for at in range(0, len(data), piece):
        if reader.receive_untrusted(data[at : at + piece]):
            break
    return reader.end_untrusted()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\n\r\nhello and more",
        OK + b"\r\nhello",
        OK.replace(b"\r", b"") + b"content-length:5\n\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 99\r\n\r\n5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\nhello",
    ],
)
def test_an_answer_is_put_together_however_it_comes(data: bytes, piece: int) -> None:
    assert read(data, piece=piece).body == b"hello"


def test_headers_are_found_by_their_lower_case_names_the_first_of_each() -> None:
    response = read(OK + b"LOCATION:  x \r\nlocation: y\r\nnonsense\r\nContent-Length: 0\r\n\r\n")
    assert response.headers["location"] == "x"


def test_a_redirect_is_an_answer_and_nothing_more() -> None:
    response = read(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    assert (response.status, response.body) == (302, b"")


def test_no_content_ends_at_once() -> None:
    reader = ResponseReader()
    assert reader.receive_untrusted(b"HTTP/1.1 204 No Content\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"Content-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: -1\r\n\r\nhello",
        OK + b"Content-Length: 5, 5\r\n\r\nhello",
        OK + b"Content-Length: 0x5\r\n\r\nhello",
        OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
        OK + f"Content-Length: {http.BODY_BYTES_MAX + 1}\r\n\r\n".encode(),
        OK + b"\r\n" + b"x" * (http.BODY_BYTES_MAX + 1),
        OK + b"X: " + b"x" * http.HEAD_BYTES_MAX,
        OK + b"X: " + b"x" * http.HEAD_BYTES_MAX + b"\r\n\r\n",
        OK + b"X: y\r\n" * 80 + b"\r\n",
        OK + b"Content-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\nhello\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n10001\r\n" + b"x" * 65537,
    ],
    ids=lambda data: f"{data[-30:]!r} of {len(data)}",
)
def test_what_is_no_small_whole_answer_is_malformed(data: bytes) -> None:
    for piece in (1000, 1 << 20):
        with pytest.raises(MalformedPacket):
            read(data, piece=piece)


@pytest.mark.parametrize(
    ("start", "crumb"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + b"y" * 50 + b"\r\nx\r\n"),
    ],
)
def test_an_answer_of_crumbs_is_given_up_long_before_its_body_is_large(start: bytes, crumb: bytes) -> None:
    reader = ResponseReader()
    reader.receive_untrusted(start)

    def go_on() -> None:
        for _ in range(10_000):
            reader.receive_untrusted(crumb)

    with pytest.raises(MalformedPacket):
        go_on()


@given(
    st.lists(st.binary(max_size=40), max_size=10),
    st.sampled_from([b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"]),
)
def test_anything_parses_or_is_malformed(pieces: list[bytes], before: bytes) -> None:
    reader = ResponseReader()
    try:
        for piece in [before, *pieces]:
            reader.receive_untrusted(piece)
        reader.end_untrusted()
    except MalformedPacket:
        return


@given(st.binary(max_size=300), st.integers(1, 50))
def test_how_it_is_cut_makes_no_difference(data: bytes, piece: int) -> None:
    def outcome(size: int) -> object:
        try:
            return read(OK + data, piece=size)
        except MalformedPacket:
            return None

    assert outcome(piece) == outcome(1 << 20)


def test_requests_end_the_connection_and_name_their_length() -> None:
    assert http.pack_get("192.168.1.1:5000", "/x").startswith(b"GET /x HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n")
    packed = http.pack_soap("192.168.1.1", "/ctl", "urn:x#Act", b"<x/>")
    head, _, body = packed.partition(b"\r\n\r\n")
    assert body == b"<x/>"
    assert b"Content-Length: 4" in head
    assert b'SOAPAction: "urn:x#Act"' in head
    assert b"Connection: close" in head
