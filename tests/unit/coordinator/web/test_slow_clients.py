"""Clients that are slow on purpose, or send without end, lose their connection; everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterable

import pytest

from tests.support.waiting import PATIENCE_S, until
from tests.unit.coordinator.web.harness import (
    GENEROUS,
    Running,
    answer_of,
    hang_up,
    parse,
    running,
    tcp,
    trusting,
    until_closed,
)
from warren.coordinator.limits import BODY_BYTES

QUICK = dataclasses.replace(GENEROUS, handshake_s=0.5, header_s=0.5, body_s=0.5, idle_s=0.5, write_s=0.5, linger_s=0.5)


def head(coordinator: Running, *headers: bytes) -> bytes:
    fixed = b"POST /v1/networks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    bearer = b"authorization: Bearer %b\r\n" % coordinator.token.encode()
    return fixed + bearer + b"".join(line + b"\r\n" for line in headers) + b"\r\n"


async def is_served(coordinator: Running) -> None:
    async with coordinator.client(coordinator.token) as client:
        assert (await client.get("/v1/networks")).status_code == 200


async def nobody_is_connected(coordinator: Running) -> None:
    await until(lambda: coordinator.web.server.admission.connections == 0)


async def is_given_up(reader: StreamReader, writer: StreamWriter) -> None:
    """The coordinator says that it took too long, and closes the connection."""
    async with asyncio.timeout(PATIENCE_S):
        assert parse(await until_closed(reader)).problem["status"] == 408
    await hang_up(writer)


async def trickle(coordinator: Running, beginning: bytes, pieces: Iterable[bytes]) -> None:
    """One piece after the other, as long as that is borne."""
    reader, writer = await coordinator.stream()
    end = asyncio.create_task(is_given_up(reader, writer))
    writer.write(beginning)
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait([end], timeout=0.02)
        if end.done():
            break
    await end


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"G",
        b"GET /v1/identity HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ",
    ],
)
def test_headers_that_do_not_come_end_the_connection(beginning: bytes) -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            reader, writer = await coordinator.stream()
            writer.write(beginning)
            await is_served(coordinator)
            await is_given_up(reader, writer)

    asyncio.run(scenario())


def test_headers_that_come_byte_by_byte_get_no_more_time() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            request = b"GET /v1/identity HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"y" * 200
            await trickle(coordinator, b"", (bytes([byte]) for byte in request))

    asyncio.run(scenario())


def test_a_connection_without_a_next_request_is_closed() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            reader, writer = await coordinator.stream()
            writer.write(b"GET /v1/identity HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                assert parse(await until_closed(reader)).status == 200
            await hang_up(writer)

    asyncio.run(scenario())


def test_the_second_request_of_a_connection_has_to_hurry_too() -> None:
    async def scenario() -> None:
        async with running(dataclasses.replace(QUICK, idle_s=60)) as coordinator:
            reader, writer = await coordinator.stream()
            writer.write(b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b"}")
            writer.write(b"GET /health/li")
            await is_given_up(reader, writer)

    asyncio.run(scenario())


def test_two_requests_at_once_are_answered_in_turn() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            one = b"GET /health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
            data = await coordinator.raw(one + one)
            assert data.count(b'{"status":"live"}') == 2

    asyncio.run(scenario())


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            reader, writer = await coordinator.stream()
            writer.write(head(coordinator, b"content-length: 100") + b'{"name":')
            await is_served(coordinator)
            await is_given_up(reader, writer)

    asyncio.run(scenario())


def test_a_body_that_comes_byte_by_byte_gets_no_more_time() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            await trickle(coordinator, head(coordinator, b"transfer-encoding: chunked"), [b"1\r\n{\r\n"] * 200)

    asyncio.run(scenario())


def test_who_does_not_begin_tls_or_stops_in_it_is_cut_off() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            loop = asyncio.get_running_loop()
            for beginning in (b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"):
                with tcp(coordinator.port) as connection:
                    connection.setblocking(False)
                    await loop.sock_sendall(connection, beginning)
                    await is_served(coordinator)
                    async with asyncio.timeout(PATIENCE_S):
                        with contextlib.suppress(ConnectionError):
                            while await loop.sock_recv(connection, 4096):
                                pass
            assert b"warren_tls_failures_total 3.0" in coordinator.web.metrics.text()
            await nobody_is_connected(coordinator)

    asyncio.run(scenario())


def test_an_answer_that_nobody_reads_does_not_hold_a_connection() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            with socket.socket() as plain:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                plain.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(plain, ("127.0.0.1", coordinator.port))
                reader, writer = await asyncio.open_connection(sock=plain, ssl=trusting(), server_hostname="")
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(b"GET /v1/openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 300)
                await nobody_is_connected(coordinator)
                await is_served(coordinator)
                await hang_up(writer)
                del reader

    asyncio.run(scenario())


def test_a_large_body_is_refused_before_it_is_read() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            announced = head(coordinator, b"content-length: %d" % (BODY_BYTES + 1))
            answer = parse(await coordinator.raw(announced))
            assert answer.problem["status"] == 413
            assert answer.headers["connection"] == "close"

    asyncio.run(scenario())


def test_a_body_without_end_is_refused_and_its_sender_sees_why() -> None:
    async def scenario() -> None:
        async with running(dataclasses.replace(QUICK, body_s=30)) as coordinator:
            reader, writer = await coordinator.stream()
            end = asyncio.create_task(until_closed(reader))
            writer.write(head(coordinator, b"transfer-encoding: chunked"))
            chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
            sent = 0
            with contextlib.suppress(ConnectionError):
                for _ in range(2000):
                    writer.write(chunk)
                    sent += len(chunk)
                    await writer.drain()
                    if end.done():
                        break
            answer = parse(await asyncio.wait_for(end, PATIENCE_S))
            assert answer.problem["status"] == 413
            assert sent < 4 * BODY_BYTES
            await hang_up(writer)

    asyncio.run(scenario())


def test_without_a_token_next_to_nothing_of_a_body_is_read() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator, coordinator.client() as client:
            for path in ("/v1/networks", "/nowhere", "/v1/identity"):
                answer = answer_of(
                    await client.post(path, content=b" " * 60_000, headers={"content-type": "application/json"})
                )
                assert answer.problem["status"] in {401, 404, 405}
            request = (
                b"POST /v1/networks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 10000000000\r\n\r\n" + b" " * 100
            )
            assert parse(await coordinator.raw(request)).problem["status"] == 401

    asyncio.run(scenario())


def test_a_client_that_waits_for_leave_to_send_gets_the_refusal_instead() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            for line in (b"content-length: %d" % (BODY_BYTES + 1), b"content-length: 10"):
                data = await coordinator.raw(head(coordinator, line, b"expect: 100-continue"))
                if line.endswith(b"10"):
                    assert data.startswith(b"HTTP/1.1 100 ")
                    data = data.partition(b"\r\n\r\n")[2]
                    assert parse(data).problem["status"] == 408
                else:
                    assert parse(data).problem["status"] == 413

    asyncio.run(scenario())


def test_a_client_that_goes_away_in_its_body_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        async with running(QUICK) as coordinator:
            for _ in range(5):
                _, writer = await coordinator.stream()
                writer.write(head(coordinator, b"content-length: 100") + b"{")
                await writer.drain()
                await hang_up(writer)
            await nobody_is_connected(coordinator)
            assert len(coordinator.web.server.admission) == 0
            await is_served(coordinator)

    asyncio.run(scenario())


def test_one_source_gets_its_share_of_connections_and_more_once_it_has_authenticated() -> None:
    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, unproven_per_source=3)) as coordinator:
            held = [await coordinator.stream() for _ in range(3)]
            with pytest.raises((ConnectionError, OSError)):
                await coordinator.stream()
            reader, writer = held[0]
            token = coordinator.token.encode()
            writer.write(b"GET /v1/networks HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer %b\r\n\r\n" % token)
            await reader.readuntil(b"[]")
            held.append(await coordinator.stream())
            assert b"warren_connections 4.0" in coordinator.web.metrics.text()
            assert b"warren_connections_refused_total 1.0" in coordinator.web.metrics.text()
            for _, one in held:
                await hang_up(one)

    asyncio.run(scenario())


def test_the_whole_coordinator_has_a_ceiling_of_connections() -> None:
    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, connections=2)) as coordinator:
            held = [await coordinator.stream() for _ in range(2)]
            with pytest.raises((ConnectionError, OSError)):
                await coordinator.stream()
            for _, one in held:
                await hang_up(one)
            await nobody_is_connected(coordinator)
            await is_served(coordinator)

    asyncio.run(scenario())
