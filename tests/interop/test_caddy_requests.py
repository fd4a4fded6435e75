"""Requests that are meant to be read in two ways, or to be taken for somebody else's: the site gets each as it is and
once, with the client's real address, or not at all.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
from typing import NamedTuple

import pytest

from tests.support.ingress import CLIENT, PATIENCE_S, QUIET_S, Gateway, gateway
from warren.l4 import peers

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="the Debian package caddy is not installed")


class Case(NamedTuple):
    """``statuses`` of all answers; ``seen``: method, path and body of what the site got. In ``request`` PATH is the
    case's own, SECOND what is to be smuggled in, HOST the site's name.
    """

    name: str
    request: bytes
    statuses: list[int]
    seen: list[tuple[str, str, bytes]]


POST = b"POST PATH HTTP/1.1\r\nHost: HOST\r\n"
GET = b"GET PATH HTTP/1.1\r\nHost: HOST\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 4\r\n"
SECOND = b"GET SECOND HTTP/1.1\r\nHost: HOST\r\n\r\n"
NOTHING: list[tuple[str, str, bytes]] = []
FIRST = [("POST", "PATH", b"")]
BOTH = [*FIRST, ("GET", "SECOND", b"")]
"""Two requests of one client, one after another, each with its answer: what it may do anyway."""

LENGTHS = [
    # RFC 9112 §6.1: the chunks count, and the site is told nothing else.
    Case("CL.TE", POST + LENGTH + CHUNKED + b"\r\n0\r\n\r\n" + SECOND, [200, 200], BOTH),
    Case("TE.CL", POST + LENGTH + CHUNKED + b"\r\n5\r\nSMUGG\r\n0\r\n\r\n", [200], [("POST", "PATH", b"SMUGG")]),
    Case("an unknown coding", POST + LENGTH + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND, [501], NOTHING),
    Case("a space", POST + LENGTH + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND, [400], NOTHING),
    Case("a tab", POST + LENGTH + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + SECOND, [200, 200], BOTH),
    Case("a vertical tab", POST + LENGTH + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SECOND, [501], NOTHING),
    Case("a fold", POST + LENGTH + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SECOND, [200, 200], BOTH),
    Case("twice", POST + LENGTH + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SECOND, [501], NOTHING),
    Case("a list", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SECOND, [501], NOTHING),
    Case("old HTTP", POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + SECOND, [200], FIRST),
    Case("two lengths", POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345G", [400], NOTHING),
    Case("a list of lengths", POST + b"Content-Length: 5, 6\r\n\r\n12345G", [400], NOTHING),
    Case("a signed length", POST + b"Content-Length: +5\r\n\r\n12345", [400], NOTHING),
    Case("a negative length", POST + b"Content-Length: -1\r\n\r\n", [400], NOTHING),
    Case("a hexadecimal length", POST + b"Content-Length: 0x5\r\n\r\n12345", [400], NOTHING),
    Case("one length twice", POST + LENGTH + LENGTH + b"\r\n1234", [200], [("POST", "PATH", b"1234")]),
    Case("GET with a body", GET + b"Content-Length: 4\r\n\r\n1234" + SECOND, [200, 200],
         [("GET", "PATH", b"1234"), ("GET", "SECOND", b"")]),
]  # fmt: skip
CHUNKS = [
    Case("an extension", POST + CHUNKED + b"\r\n5;a=b\r\nhello\r\n0\r\n\r\n", [200], [("POST", "PATH", b"hello")]),
    Case("an extension that ends in LF", POST + CHUNKED + b"\r\n5;\nhello\r\n0\r\n\r\n" + SECOND, [200, 200],
         [("POST", "PATH", b"hello"), ("GET", "SECOND", b"")]),
    Case("trailers", POST + CHUNKED + b"Trailer: X-Forwarded-For\r\n\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
         [200], FIRST),
]  # fmt: skip
LINES = [
    Case("LF", GET.replace(b"\r", b"") + b"\n", [200], [("GET", "PATH", b"")]),
    Case("LF hides a header", GET + b"X: 1\nX-Forwarded-For: 6.6.6.6\r\n\r\n", [200], [("GET", "PATH", b"")]),
    Case("CR hides a header", GET + b"X: 1\rX-Forwarded-For: 6.6.6.6\r\n\r\n", [400], NOTHING),
    Case("NUL", GET + b"X: 1\0\r\n\r\n", [400], NOTHING),
    Case("many", GET + b"".join(b"%d: a\r\n" % i for i in range(3000)) + b"\r\n", [200], [("GET", "PATH", b"")]),
]  # fmt: skip
HOSTS = [
    Case("two", GET + b"Host: b.test\r\n\r\n", [400], NOTHING),
    Case("none", b"GET PATH HTTP/1.1\r\n\r\n", [400], NOTHING),
    Case("another site's", b"GET PATH HTTP/1.1\r\nHost: b.test\r\n\r\n", [421], NOTHING),
    Case("a dot at the end", b"GET PATH HTTP/1.1\r\nHost: HOST.\r\n\r\n", [421], NOTHING),
    Case("upper case", b"GET PATH HTTP/1.1\r\nHost: A.TEST\r\n\r\n", [200], [("GET", "PATH", b"")]),
    Case("an absolute target", b"GET https://HOSTPATH HTTP/1.1\r\nHost: HOST\r\n\r\n", [200], [("GET", "PATH", b"")]),
    # RFC 9112 §3.2.2: the target counts.
    Case("an absolute target of another", b"GET https://b.testPATH HTTP/1.1\r\nHost: HOST\r\n\r\n", [421], NOTHING),
    Case("CONNECT", b"CONNECT HOST:443 HTTP/1.1\r\nHost: HOST:443\r\n\r\n", [405], NOTHING),
    Case("TRACE", b"TRACE PATH HTTP/1.1\r\nHost: HOST\r\n\r\n", [405], NOTHING),
]  # fmt: skip


@pytest.mark.parametrize("cases", [LENGTHS, CHUNKS, LINES, HOSTS], ids=["lengths", "chunks", "lines", "hosts"])
def test_a_request_has_one_meaning(cases: list[Case]) -> None:
    async def scene() -> None:
        async with gateway("a.test", "b.test") as gate:
            answers = await asyncio.gather(*(one(gate, case, number) for number, case in enumerate(cases)))
            got = {
                case.name: (answer, seen_of(gate, number))
                for number, (case, answer) in enumerate(zip(cases, answers, strict=True))
            }
            assert got == {case.name: (case.statuses, case.seen) for case in cases}
            assert {tuple(seen.all("x-forwarded-for")) for seen in gate.web.seen} == {(CLIENT,)}
            assert {seen.trailers == [] for seen in gate.web.seen} == {True}

    asyncio.run(scene())


async def one(gate: Gateway, case: Case, number: int) -> list[int]:
    request = case.request.replace(b"PATH", b"/%d/first" % number).replace(b"SECOND", b"/%d/second" % number)
    answer = await gate.say("a.test", request.replace(b"HOST", b"a.test"), answers=len(case.statuses))
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", answer)]


def seen_of(gate: Gateway, number: int) -> list[tuple[str, str, bytes]]:
    names = {f"/{number}/first": "PATH", f"/{number}/second": "SECOND"}
    return [(s.method, names[s.target], bytes(s.body)) for s in gate.web.seen if s.target in names]


def test_a_huge_header_is_read_no_further_than_the_limit() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            answer = await gate.say("a.test", b"GET / HTTP/1.1\r\nHost: a.test\r\nX: " + b"a" * 60_000 + b"\r\n\r\n")
            assert re.findall(rb"HTTP/1\.1 ([0-9]{3})", answer) in ([b"431"], [])  # the rest is met by a reset
            assert gate.web.seen == []

    asyncio.run(scene())


NO_CHUNKS = [
    b"1\r\nhello",
    b"0x5\r\nhello",
    b"10000000000000005\r\nhello",
    b"5\r\nhelloo\r\n",
    b"-1\r\n",
    b"5\nhello\n",
]


def test_chunks_that_are_none_end_the_request_and_the_connection() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            start = (POST + CHUNKED + b"\r\n").replace(b"HOST", b"a.test").replace(b"PATH", b"/first")
            second = b"\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: a.test\r\n\r\n"
            answers = await asyncio.gather(*(gate.say("a.test", start + chunks + second) for chunks in NO_CHUNKS))
            statuses = {tuple(re.findall(rb"HTTP/1\.1 ([0-9]{3})", answer)) for answer in answers}
            assert statuses <= {(), (b"400",), (b"502",)}
            assert "/second" not in {seen.target for seen in gate.web.seen}

    asyncio.run(scene())


SPOOFED = b"""\
X-Forwarded-For: 6.6.6.6\r
x-forwarded-for: 6.6.6.6\r
X_Forwarded_For: 6.6.6.6\r
X-Forwarded_For: 6.6.6.6\r
Forwarded: for=6.6.6.6\r
X-Real-IP: 6.6.6.6\r
X-Warren-Client: 6.6.6.6\r
X_Warren_Client: 6.6.6.6\r
X-Client-IP: 6.6.6.6\r
True-Client-IP: 6.6.6.6\r
CF-Connecting-IP: 6.6.6.6\r
X-Forwarded-Proto: 6.6.6.6\r
X-Forwarded-Host: 6.6.6.6\r
X-Forwarded-Port: 6.6.6.6\r
X-Original-Forwarded-For: 6.6.6.6\r
Proxy: 6.6.6.6\r
Content_Length: 6\r
"""


@pytest.mark.parametrize(
    "more",
    [b"", b"Connection: X-Forwarded-For, X-Real-Ip, X-Forwarded-Proto\r\n"],
    ids=["headers", "and hop-by-hop"],
)
def test_nobody_but_the_gateway_says_who_the_client_is(more: bytes) -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            await gate.say("a.test", b"GET / HTTP/1.1\r\nHost: a.test\r\n" + SPOOFED + more + b"\r\n")
            (seen,) = gate.web.seen
            assert dict(seen.headers) == OURS
            assert len(seen.headers) == len(OURS)

    asyncio.run(scene())


OURS = {
    "host": "a.test",
    "x-forwarded-for": CLIENT,
    "x-forwarded-host": "a.test",
    "x-forwarded-proto": "https",
    "x-real-ip": CLIENT,
}


def test_a_switch_to_another_protocol_than_websocket_is_not_passed_on() -> None:
    """h2c: the site would read further requests that the gateway has not seen."""

    async def scene() -> None:
        async with gateway("a.test") as gate:
            wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            answer = await gate.say("a.test", b"GET /upgrade HTTP/1.1\r\nHost: a.test\r\n" + wish)
            (seen,) = gate.web.seen
            assert dict(seen.headers) == OURS
            assert not answer.startswith(b"HTTP/1.1 101")

    asyncio.run(scene())


# HTTP/2 (RFC 9113), whose headers can say what those of HTTP/1.1 cannot


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without Huffman coding (RFC 7541 §6.2.3); lengths below 127."""
    return b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value


def http2_request(*headers: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    block = b"".join(literal(name, value) for name, value in headers)
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return start + frame(1, 0x4, 1, block) + frame(0, 0x1, 1, body)


START = ((b":method", b"POST"), (b":scheme", b"https"), (b":path", b"PATH"), (b":authority", b"a.test"))
HTTP2 = {
    "a value with a line end": (*START, (b"x", b"1\r\nX-Forwarded-For: 6.6.6.6")),
    "a value that is a request": (*START, (b"x", b"1\r\n\r\nGET /second HTTP/1.1\r\nHost: a.test\r\n\r\n")),
    "a name with a line end": (*START, (b"x: 1\r\ny", b"1")),
    "a name with a colon": (*START, (b"transfer-encoding: chunked", b"1")),
    "transfer-encoding": (*START, (b"transfer-encoding", b"chunked")),
    "a path with a request": (*START[:2], (b":path", b"PATH HTTP/1.1\r\nHost: a.test\r\n\r\nGET /second"), START[3]),
    "a method with a request": ((b":method", b"GET /second HTTP/1.1\r\nHost: a.test\r\n\r\nPOST"), *START[1:]),
    "too little body": (*START, (b"content-length", b"90")),
    "too much body": (*START, (b"content-length", b"1")),
    "another site": (*START[:3], (b":authority", b"b.test")),
    "an upgrade": (*START, (b"connection", b"upgrade"), (b"upgrade", b"websocket")),
    "nothing": START,
}
BODY = b"GET /second HTTP/1.1\r\nHost: a.test\r\n\r\n"


def test_http_2_does_not_smuggle_into_http_1_1() -> None:
    async def scene() -> None:
        async with gateway("a.test", "b.test") as gate:
            requests = [
                http2_request(*((name, value.replace(b"PATH", b"/%d" % n)) for name, value in headers), body=BODY)
                for n, headers in enumerate(HTTP2.values())
            ]
            await asyncio.gather(*(http2(gate, request) for request in requests))
            got = {
                list(HTTP2)[int(seen.target[1:])]: bytes(seen.body)
                for seen in gate.web.seen
                if dict(seen.headers).items() >= OURS.items() and len(seen.all("x-forwarded-for")) == 1
            }
            assert len(got) == len(gate.web.seen), "each once, and as it should be"
            assert got.pop("nothing") == BODY
            # Those go on as they come, and their ends with them: the site sees a request that breaks off.
            assert got.keys() <= {"too little body", "too much body"}
            assert set(got.values()) <= {b"", BODY}

    asyncio.run(scene())


async def http2(gate: Gateway, request: bytes) -> None:
    reader, writer = await gate.connect("a.test", alpn=["h2"])
    selected: ssl.SSLObject = writer.get_extra_info("ssl_object")
    assert selected.selected_alpn_protocol() == "h2"
    writer.write(request)
    kind = -1
    async with asyncio.timeout(PATIENCE_S):
        while kind not in {1, 3, 7}:  # an answer, or the end of the stream or of the connection
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
            kind = head[3]
    await asyncio.sleep(QUIET_S)
    writer.transport.abort()


@pytest.mark.parametrize("tls", [True, False])
def test_a_body_that_does_not_come_ends_and_a_websocket_that_is_silent_does_not(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "REQUEST_IDLE_S", 2.0)
    host = b"a.test" if tls else b"plain.test"

    async def scene() -> None:
        async with gateway("a.test") as gate:
            web, silent = [await gate.connect("a.test", tls=tls) for _ in range(2)]
            web[1].write(
                b"GET /upgrade HTTP/1.1\r\nHost: " + host + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            async with asyncio.timeout(PATIENCE_S):
                assert (await web[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                silent[1].write(b"POST /up HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 10\r\n\r\n123")
                with pytest.raises(ConnectionError):
                    await silent[0].read()
                web[1].write(b"frame")
                assert await web[0].readexactly(5) == b"frame"
            for _, writer in (web, silent):
                writer.transport.abort()

    asyncio.run(scene())
