"""What somebody may try who speaks the protocols well."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import until
from tests.unit.coordinator.web.harness import (
    GENEROUS,
    Running,
    answer_of,
    authenticate,
    hang_up,
    receive,
    running,
    until_closed,
)
from warren.coordinator.limits import Rate
from warren.coordinator.web import node_connection
from warren.proto.control import messages

UPGRADE = (
    b"GET /v1/node HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"sec-websocket-protocol: warren.node.1\r\n\r\n"
)
MASK = bytes(4)


async def upgraded(coordinator: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await coordinator.stream()
    writer.write(UPGRADE)
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def test_a_message_in_fragments_without_end_is_not_collected() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            reader, writer = await upgraded(coordinator)
            end = asyncio.create_task(until_closed(reader))
            writer.write(b"\x02\x80" + MASK)
            for _ in range(1000):
                writer.write((b"\x00\x80" + MASK) * 100)
                await asyncio.sleep(0)
                if end.done():
                    break
            assert b"too many fragments" in await asyncio.wait_for(end, 30)
            await hang_up(writer)

    asyncio.run(scenario())


def test_a_message_larger_than_any_is_not_read() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            connection = await coordinator.socket()
            await receive(connection)
            with contextlib.suppress(ConnectionClosed):
                await connection.send(bytes(messages.NODE_MESSAGE_BYTES_MAX + 1))
                for _ in range(10):
                    await asyncio.wait_for(connection.recv(), 30)
            assert connection.close_code == 1009

    asyncio.run(scenario())


def test_what_was_about_to_be_sent_to_somebody_who_is_cut_off_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            key = await coordinator.make_member(network, "web1")
            connection = await coordinator.socket()
            await authenticate(coordinator, connection, network, key)
            session = coordinator.web.hub.session(network.raw, key.verify_key.raw)
            assert session is not None
            cut_off = node_connection.NodeConnection.handle_parser_exception

            def and_wake(self: node_connection.NodeConnection) -> None:
                cut_off(self)
                session.wake(None)  # somebody else has changed the map just now

            monkeypatch.setattr(node_connection.NodeConnection, "handle_parser_exception", and_wake)
            with contextlib.suppress(ConnectionClosed):
                await connection.send(bytes(messages.NODE_MESSAGE_BYTES_MAX + 1))
                async with asyncio.timeout(30):
                    while True:
                        await connection.recv()
            await until(lambda: coordinator.web.hub.session(network.raw, key.verify_key.raw) is None)
            assert connection.close_code == 1009

    asyncio.run(scenario())


def test_a_text_message_is_no_message() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            connection = await coordinator.socket()
            await receive(connection)
            await connection.send("hello")
            refused = await receive(connection)
            assert isinstance(refused, messages.Refused)
            assert refused.kind == "protocol"
            await connection.close()

    asyncio.run(scenario())


def test_answers_to_pings_that_nobody_reads_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_connection, "WRITE_BUFFER_BYTES", 256 << 10)

    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, write_s=60)) as coordinator:
            reader, writer = await upgraded(coordinator)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            ping = b"\x89\xfd" + MASK + bytes(125)
            for _ in range(5000):
                writer.write(ping * 100)
                if coordinator.web.server.admission.connections == 0:
                    break
                await asyncio.sleep(0)
            else:
                pytest.fail("it goes on and on")
            await hang_up(writer)
            del reader

    asyncio.run(scenario())


def test_nobody_can_say_that_a_request_comes_from_elsewhere() -> None:
    async def scenario() -> None:
        limits = dataclasses.replace(GENEROUS, requests=Rate(burst=3, per_s=0.001))
        async with running(limits) as coordinator, coordinator.client() as client:
            statuses = [
                (
                    await client.get(
                        "/health/live",
                        headers={"x-forwarded-for": f"192.0.2.{i}", "forwarded": f"for=192.0.2.{i}"},
                    )
                ).status_code
                for i in range(5)
            ]
            assert statuses == [200, 200, 200, 429, 429]

    asyncio.run(scenario())


def test_a_token_or_a_ticket_is_in_no_log_line_and_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            network = await coordinator.make_network("home")
            ticket = await coordinator.make_ticket(network)
            wrong = "wrt_" + "c" * 52
            said = b""
            for token in (coordinator.token, wrong):
                async with coordinator.client(token) as client:
                    for method, path in (
                        ("GET", "/v1/networks"),
                        ("GET", f"/v1/{token}"),
                        ("PUT", "/v1/networks"),
                        ("POST", "/v1/networks"),
                    ):
                        answer = answer_of(await client.request(method, path, content=token.encode()))
                        said += b"" if path.endswith(token) else answer.body
            key = await coordinator.make_member(network, "web1")
            async with await coordinator.socket() as connection:
                await authenticate(coordinator, connection, network, key)
            for secret in (coordinator.token, wrong):
                assert secret not in caplog.text.replace(f"/v1/{secret}", "")
                assert secret.encode() not in said
            assert ticket.hex() not in caplog.text
            assert "uthorization" not in caplog.text

    with caplog.at_level(logging.DEBUG, logger="warren"):
        asyncio.run(scenario())


def test_names_in_a_request_cannot_make_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    from warren import log

    async def scenario() -> None:
        async with running() as coordinator:
            request = (
                b"GET /v1/x%0a00:00:00%20error%20forged%1b[31m HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
            )
            await coordinator.raw(request)

    logger = logging.getLogger("warren")
    former = logger.handlers[:], logger.propagate, logger.level
    log.configure(as_json=False)
    logger.setLevel(logging.DEBUG)
    try:
        asyncio.run(scenario())
    finally:
        logger.handlers[:], logger.propagate = former[0], former[1]
        logger.setLevel(former[2])
    lines = capsys.readouterr().err.splitlines()
    assert not any(line.startswith("00:00:00 error") for line in lines)
    assert "\x1b" not in "".join(lines)
    assert any("forged" in line for line in lines)


def test_a_flood_of_bad_connections_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        async with running(dataclasses.replace(GENEROUS, unproven_per_source=1000)) as coordinator:
            before = len(asyncio.all_tasks())
            writers = [(await upgraded(coordinator))[1] for _ in range(50)]
            for writer in writers:
                await hang_up(writer)
            await until(lambda: coordinator.web.server.admission.connections == 0)
            await until(lambda: len(asyncio.all_tasks()) <= before)
            assert not coordinator.web.server.server_state.connections

    asyncio.run(scenario())
