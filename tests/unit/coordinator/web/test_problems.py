"""Whatever is refused, by whichever layer, is an RFC 9457 problem."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.unit.coordinator.web.harness import Running, answer_of, parse, running
from warren.coordinator.problems import KINDS, Problem, unavailable
from warren.coordinator.web.openapi import describe
from warren.coordinator.web.problems import HTTP_KINDS
from warren.coordinator.web.public_routes import PUBLIC
from warren.coordinator.web.routes import GUARDED
from warren.proto.control import messages

HANDSHAKE = (
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def request(coordinator: Running, line: str, headers: bytes = b"", body: bytes = b"") -> bytes:
    host = b"host: 127.0.0.1\r\nauthorization: Bearer %b\r\n" % coordinator.token.encode()
    return line.encode() + b" HTTP/1.1\r\n" + host + headers + b"connection: close\r\n\r\n" + body


@pytest.mark.parametrize(
    ("line", "status", "kind"),
    [
        ("GET /", 404, "not-found"),
        ("GET /v1", 404, "not-found"),
        ("GET /v1/networks/", 404, "not-found"),
        ("GET /v1/networks/a/b/c/d", 404, "not-found"),
        ("GET /v1/networks/nowhere", 404, "not-found"),
        ("GET /v1/networks/%00%0a%1b[31m", 404, "not-found"),
        ("GET /v1/networks/" + "a" * 3000, 404, "not-found"),
        ("GET /%ff%fe", 404, "not-found"),
        ("GET //v1/networks", 404, "not-found"),
        ("GET /v1/../etc/passwd", 404, "not-found"),
        ("GET /metrics/..", 404, "not-found"),
        ("GET /schema", 404, "not-found"),
        ("GET /docs", 404, "not-found"),
        ("PUT /v1/networks", 405, "method-not-allowed"),
        ("DELETE /v1/identity", 405, "method-not-allowed"),
        ("TRACE /v1/networks", 405, "method-not-allowed"),
        ("CONNECT /v1/networks", 405, "method-not-allowed"),
        ("OPTIONS /v1/networks", 405, "method-not-allowed"),
        ("FROB /v1/networks", 405, "method-not-allowed"),
        ("GET /v1/events?after=x", 422, "invalid"),
        ("GET /v1/events?after=-1", 422, "invalid"),
        ("GET /v1/events?after=null", 422, "invalid"),
        ("GET /v1/events?after=null&after=null", 422, "invalid"),
        ("GET /v1/events?after=", 422, "invalid"),
        ("GET /v1/events?after=99999999999999999999999", 422, "invalid"),
        ("GET /v1/events?limit=1001", 422, "invalid"),
        ("GET /v1/node", 426, "upgrade-required"),
    ],
)
def test_what_is_not_there_or_not_possible(line: str, status: int, kind: str) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            answer = parse(await coordinator.raw(request(coordinator, line)))
            assert answer.status == status, answer
            assert answer.problem["type"] == f"urn:warren:problem:{kind}"
            if status == 405:
                assert answer.headers["allow"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"name":"\xff"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 422),
        (b'{"name":' + b"[" * 100_000, "application/json", 422),
        (b'{"nonsense":' + b"[" * 100_000, "application/json", 422),
        (b'{"name":"a"} {', "application/json", 400),
        (b'{"lease_s":' + b"9" * 1_000_000 + b"}", "application/json", 422),
        (b'{"name":"a","lease_s":1e400}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"{}", "application/json", 422),
        (b'{"name":"UPPER"}', "application/json", 422),
        (b'{"name":"a\\n"}', "application/json", 422),
        (b'{"name":"a","lease_s":"60"}', "application/json", 422),
        (b'{"name":"a","nonsense":1}', "application/json", 422),
        (b'{"name":"a"}', "text/plain", 415),
        (b'{"name":"a"}', "", 415),
        (b"name=a", "application/x-www-form-urlencoded", 415),
    ],
)
def test_a_body_that_is_not_what_is_wanted(body: bytes, media_type: str, status: int) -> None:
    async def scenario() -> None:
        async with running() as coordinator, coordinator.client(coordinator.token) as client:
            headers = {"content-type": media_type} if media_type else {}
            answer = answer_of(await client.post("/v1/networks", content=body, headers=headers))
            assert answer.status in {status, 400 if status == 422 and len(body) > 1000 else status}, answer
            assert answer.problem["remedy"]
            assert await coordinator.service.networks(coordinator.admin) == ()

    asyncio.run(scenario())


def test_a_problem_of_a_body_names_the_place() -> None:
    async def scenario() -> None:
        async with running() as coordinator, coordinator.client(coordinator.token) as client:
            await coordinator.make_network("home")
            rule = {"action": "allow", "sources": ["members"], "destinations": ["members"], "ports": ["22"]}
            answer = answer_of(await client.post("/v1/networks/home/plan", json={"policy": [rule]}))
            assert answer.status == 422
            (wrong,) = answer.problem["problems"]
            assert wrong["where"].startswith("policy[")
            assert "ports" in wrong["what"]

    asyncio.run(scenario())


def test_a_compressed_body_is_not_unpacked() -> None:
    async def scenario() -> None:
        async with running() as coordinator, coordinator.client(coordinator.token) as client:
            headers = {"content-type": "application/json", "content-encoding": "gzip"}
            answer = answer_of(await client.post("/v1/networks", content=b"\x1f\x8b" * 10, headers=headers))
            assert answer.problem["status"] == 415

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\xff\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nx: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * 20_000, 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n", 431),
    ],
)
def test_what_is_no_http(data: bytes, status: int) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            answer = parse(await coordinator.raw(data))
            assert answer.status in {status, 501}, answer
            assert answer.problem["type"].endswith(("malformed", "headers-too-large"))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("[::1]:8443", 200),
        ("192.0.2.7:1", 200),
        ("localhost:99", 200),
        ("Coordinator.Example", 200),
        ("coordinator.example:8443", 200),
        ("evil.example", 421),
        ("coordinator.example.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[", 421),
        ("a@127.0.0.1@evil.example", 421),
        ("127.1", 421),
    ],
)
def test_only_its_own_names_reach_it(host: str, status: int) -> None:
    async def scenario() -> None:
        async with running(urls=("https://coordinator.example:8443",)) as coordinator:
            data = b"GET /v1/identity HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host.encode()
            answer = parse(await coordinator.raw(data))
            assert answer.status == status, answer
            if status != 200:
                assert answer.problem["type"] == "urn:warren:problem:misdirected"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1.evil.example"]
)
@pytest.mark.parametrize("path", ["/v1/networks", messages.PATH])
def test_pages_of_other_sites_may_not_call_it(origin: str, path: str) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            headers = b"origin: %b\r\n" % origin.encode()
            if path == messages.PATH:
                headers += HANDSHAKE + b"sec-websocket-protocol: warren.node.1\r\n"
            data = request(coordinator, f"GET {path}", headers)
            answer = parse(
                await coordinator.raw(data.replace(b"connection: close\r\n", b"") if "node" in path else data)
            )
            assert answer.problem["status"] == 403
            assert not any(name.startswith("access-control") for name in answer.headers)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/networks", HANDSHAKE, 404),
        ("/v1/node", HANDSHAKE, 400),  # no subprotocol
        ("/v1/node", HANDSHAKE + b"sec-websocket-protocol: chat\r\n", 400),
        ("/v1/node", b"upgrade: websocket\r\nconnection: upgrade\r\n", 400),
        ("/v1/node", HANDSHAKE.replace(b"13", b"8"), 400),
        ("/v1/node", HANDSHAKE + b"x: y\r\n" * 200, 400),
        ("/v1/node", HANDSHAKE + b"x: " + b"y" * 10_000 + b"\r\n", 400),
    ],
)
def test_what_is_no_connection_of_a_node(path: str, headers: bytes, status: int) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            data = request(coordinator, f"GET {path}", headers).replace(b"connection: close\r\n", b"")
            answer = parse(await coordinator.raw(data))
            assert answer.status == status, answer
            assert answer.problem

    asyncio.run(scenario())


async def failing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> Any:
    from warren.coordinator.service import Service

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Service, "networks", fail)
    async with running() as coordinator, coordinator.client(coordinator.token) as client:
        return answer_of(await client.get("/v1/networks"))


def test_a_database_that_is_away_is_told_with_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.run(failing(unavailable("the disk is full"), monkeypatch))
    assert answer.problem["status"] == 503
    assert answer.headers["retry-after"] == "5"


@pytest.mark.logs_errors
def test_a_bug_is_told_without_its_insides(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = asyncio.run(failing(RuntimeError("SELECT secret FROM tokens"), monkeypatch))
    assert answer.problem["status"] == 500
    assert b"SELECT" not in answer.body
    assert b"Traceback" not in answer.body


def test_readiness_says_when_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from warren.coordinator.service import Service

    async def away(self: object) -> None:
        raise unavailable("the database does not answer")

    async def scenario() -> None:
        async with running() as coordinator, coordinator.client() as client:
            assert (await client.get("/health/ready")).json() == {"status": "ready"}
            assert (await client.head("/health/live")).status_code == 200
            monkeypatch.setattr(Service, "ready", away)
            assert answer_of(await client.get("/health/ready")).problem["status"] == 503
            assert (await client.get("/health/live")).status_code == 200

    asyncio.run(scenario())


def test_every_kind_of_problem_has_a_status_that_the_description_lists() -> None:
    document = describe(PUBLIC, GUARDED)
    described = {int(name.removeprefix("Refusal")) for name in document["components"]["responses"]}
    outside = {405, 426}  # for paths and methods that are not in the description
    assert {status for table in (KINDS, HTTP_KINDS) for status, _ in table.values()} <= described | outside
    for kind in KINDS:
        assert Problem(kind).type == f"urn:warren:problem:{kind}"
