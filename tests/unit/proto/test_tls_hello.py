"""The server name in a ClientHello, whatever it is wrapped in."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.proto.tls_hello import HELLO_BYTES_MAX, RECORDS_MAX, ServerName, server_name_untrusted

GREASE = b"\x0a\x0a\x00\x01\x00"
KEY_SHARE = b"\x00\x33\x04\xc4" + bytes(1220)
"""As long as a post-quantum one."""


def vector(length_bytes: int, data: bytes) -> bytes:
    return len(data).to_bytes(length_bytes) + data


def names(*entries: tuple[int, bytes]) -> bytes:
    return b"\0\0" + vector(2, vector(2, b"".join(bytes((kind,)) + vector(2, name) for kind, name in entries)))


def host(name: bytes) -> bytes:
    return names((0, name))


def hello(*extensions: bytes, tail: bytes = b"", session: bytes = bytes(32), suites: bytes = b"\x13\x01") -> bytes:
    """A handshake message; without ``extensions`` it has none at all."""
    body = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, b"\0")
    if extensions:
        body += vector(2, b"".join(extensions))
    return b"\x01" + vector(3, body + tail)


def records(message: bytes, size: int = 1 << 14) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def read(message: bytes) -> str | None:
    found = server_name_untrusted(records(message))
    assert found is not None
    return found.domain


@pytest.mark.parametrize(
    ("extensions", "domain"),
    [
        ([host(b"shop.example")], "shop.example"),
        ([host(b"Shop.EXAMPLE")], "shop.example"),
        ([host(b"shop.example.")], "shop.example"),
        ([host(b"_dmarc.under_score.example")], "_dmarc.under_score.example"),
        ([host(b"xn--bcher-kva.example")], "xn--bcher-kva.example"),
        ([GREASE, KEY_SHARE, host(b"a.example"), b"\xfe\x0d" + vector(2, bytes(300))], "a.example"),
        ([names((7, b"other"), (0, b"a.example"))], "a.example"),
        ([names((7, b"other"))], None),
        ([host(b"192.0.2.7")], None),
        ([host(b"2001:db8::7")], None),
        ([GREASE], None),
        ([b""], None),
        ([], None),
    ],
)
def test_the_name_is_read(extensions: list[bytes], domain: str | None) -> None:
    assert read(hello(*extensions)) == domain


def test_what_openssl_sends_is_understood() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="Shop.Example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert server_name_untrusted(outgoing.read()) == ServerName("shop.example")


@pytest.mark.parametrize("size", [1 << 14, 700, 100, 50])
def test_a_hello_may_come_in_pieces_and_be_cut_into_records(size: int) -> None:
    data = records(hello(KEY_SHARE, host(b"a.example")), size)
    assert [server_name_untrusted(data[:end]) for end in range(len(data))] == [None] * len(data)
    assert server_name_untrusted(data) == ServerName("a.example")
    assert server_name_untrusted(bytearray(data + b"what follows")) == ServerName("a.example")


def test_even_the_head_of_the_message_may_be_cut() -> None:
    message = hello(host(b"a.example"))
    data = records(message[:8], 1) + records(message[8:])
    assert server_name_untrusted(data) == ServerName("a.example")
    assert {server_name_untrusted(data[:end]) for end in range(len(data))} == {None}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "not TLS"),
        (b"\x80\x2e\x01\x03\x01", "not TLS"),
        (b"\x16\x02", "not TLS"),
        (b"\x15\x03\x01\x00\x02\x02\x28", "not TLS"),
        (b"\x16\x03\x01\x00\x00", "length of a record"),
        (b"\x16\x03\x01\x40\x01", "length of a record"),
        (records(b"\x02\x00\x00\x01\x00"), "not a ClientHello"),
        (b"\x16\x03\x01\x00\x05\x02", "not a ClientHello"),
        (records(b"\x01\xff\xff\xff"), "too long"),
        (records(hello(GREASE), 20)[:25] + b"\x17", "breaks off"),
        (records(hello(KEY_SHARE, host(b"a.example")), 10), "too many records"),
        (records(hello(b"\0\x15" + vector(2, bytes(HELLO_BYTES_MAX)))), "too long"),
    ],
)
def test_what_is_no_hello_is_refused_as_soon_as_that_is_clear(data: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        server_name_untrusted(data)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (hello(host(b"a.example"), host(b"b.example")), "twice"),
        (hello(GREASE, GREASE), "twice"),
        (hello(names((0, b"a.example"), (0, b"b.example"))), "two servers"),
        (hello(host(b"")), "length"),
        (hello(names()), "length"),
        (hello(host(b"a.example"), tail=b"x"), "follows"),
        (hello(b"\0\0" + vector(2, vector(2, b"\0\0\x01a") + b"x")), "follows"),
        (hello(session=bytes(33)), "length"),
        (hello(suites=b"\x13"), "length"),
        (hello(suites=b""), "length"),
        (hello(b"\0\0\0\x05ab"), "shorter"),
        (b"\x01" + vector(3, b"\x02\x03" + bytes(60)), "version"),
        (hello(host(b"a b.example")), "name"),
        (hello(host(b"a.example\n")), "name"),
        (hello(host(b"a..example")), "name"),
        (hello(host(b".example")), "name"),
        (hello(host(b"a.example..")), "name"),
        (hello(host(b"-a.example")), "name"),
        (hello(host(b"b\xc3\xbccher.example")), "name"),
        (hello(host(b"a" * 64 + b".example")), "name"),
        (hello(host(b".".join([b"a" * 60] * 5))), "name"),
        (hello(host(b"a\0.example")), "name"),
    ],
)
def test_a_broken_hello_is_refused(message: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=why):
        read(message)


@given(st.binary(max_size=600))
def test_any_bytes_have_a_name_or_none_or_are_malformed(data: bytes) -> None:
    for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        try:
            found = server_name_untrusted(start + data)
        except MalformedPacket as error:
            assert str(error).isascii()  # noqa: PT017
        else:
            assert found is None or isinstance(found, ServerName)


@given(st.data())
def test_a_damaged_hello_is_malformed_or_has_some_name(data: st.DataObject) -> None:
    whole = bytearray(records(hello(GREASE, host(b"a.example"), KEY_SHARE[:100])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedPacket):
        server_name_untrusted(whole)


def test_records_beyond_the_ceiling_are_refused_before_the_message_is_whole() -> None:
    data = records(b"\x01\x00\x10\x00" + bytes(RECORDS_MAX), 1)
    assert server_name_untrusted(data[: 6 * RECORDS_MAX - 1]) is None
    with pytest.raises(MalformedPacket, match="too many records"):
        server_name_untrusted(data[: 6 * RECORDS_MAX])
