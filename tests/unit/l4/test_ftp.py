"""The FTP helper with real sockets on loopback; client and server are the test's own."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.ftp_peers import Client, ScriptedServer, closed, fetched, turns
from tests.support.ftp_tools import Helper, SmallTools
from tests.unit.l4.ftp_scene import full_listener, play, turns_until_closed
from warren.l4 import ftp
from warren.l4.config import Entry, Listen
from warren.l4.ftp import announced, handle
from warren.l4.kinds import Incoming, Refused

RESET = struct.pack("ii", 1, 0)


def test_a_command_in_a_file_name_stays_in_it() -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        assert (await client.ask("RETR a\rDELE b")).startswith("500 ")
        assert (await client.ask("MKD a\0b")).startswith("500 ")
        assert await client.ask("NOOP") == "200 OK"
        assert server.heard == ["NOOP"]

    play(scene)


def test_a_server_that_names_a_port_unasked_is_left() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        server.replies["PWD"] = f'257 "a\r\n229 Entering Extended Passive Mode (|||{server.data_port}|)"'
        client.say("PWD")
        client.say("EPSV")
        assert (await client.hear()).startswith("257 ")
        assert (await client.hear()).startswith("421 ")
        assert await client.hear() == ""
        assert server.heard == ["PWD"]
        assert [reason for reason, _ in helper.tools.refused] == ["protocol"]

    play(scene)


# What fails


def test_ftp_on_a_unix_socket_is_refused(tmp_path: Path) -> None:
    async def played() -> None:
        here, there = socket.socketpair()
        with here, there:
            entry = Entry(id="x", kind="ftp", listen=(Listen(path=str(tmp_path / "x")),))
            with pytest.raises(Refused, match="Unix socket"):
                await handle(Incoming(here, None, None, entry.listen[0]), entry, SmallTools())

    asyncio.run(played())


def test_a_server_that_is_not_there_is_a_refusal() -> None:
    async def played() -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            dead = gone.getsockname()[1]
        async with Helper("127.0.0.1", dead) as helper:
            assert await fetched(helper.port) == b""
            assert [reason for reason, _ in helper.tools.refused] == ["connect"]

    asyncio.run(played())


# The control connection


def test_commands_may_be_sent_ahead_and_cut_anywhere() -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        for byte in b"USER a\r\nPASS b\r\nAUTH TLS\r\nSYST\r\n":
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        assert [(await client.hear())[:3] for _ in range(4)] == ["200", "200", "534", "200"]
        assert server.heard == ["USER a", "PASS b", "SYST"]

    play(scene)


def test_more_than_anybody_sends_ahead_is_read_when_there_is_room() -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        for number in range(300):
            client.say(f"CWD {number}")
        for _ in range(300):
            assert await client.hear() == "200 OK"
        assert server.heard == [f"CWD {number}" for number in range(300)]

    play(scene)


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ([b"\xff\xf4\xff", b"\xf2", b"ABOR\r\n"], b"\xff\xf4\xffABOR\r\n"),
        ([b"", b"ABOR\r\n", b""], b"ABOR\r\n"),
        ([b"", b"", b"ABOR\r\n"], b"ABOR\r\n"),
    ],
)
def test_abor_reaches_the_server_however_the_client_says_it(said: list[bytes], passed: bytes) -> None:
    """As lftp does, as Python's ftplib does (the urgent byte is LF), and as a plain command."""

    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        server.replies["RETR"] = "150 Here"
        server.replies["ABOR"] = "426 Aborted\r\n226 Done"
        await client.offered()
        await client.ask("RETR a")
        before, mark, after = said
        urgently(client.writer, before, mark)
        client.writer.write(after)
        assert await client.hear() == "426 Aborted"
        assert await client.hear() == "226 Done"
        # The data mark, which is urgent, is not in the stream that this server reads.
        assert server.raw.endswith(b"RETR a\r\n" + passed)

    play(scene)


@pytest.mark.parametrize("who", ["client", "server"])
def test_the_end_of_one_side_is_the_end_of_the_other(who: str) -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        await client.ask("NOOP")
        if who == "server":
            server.say("421 Enough")
            server.writers[0].write_eof()
            assert await client.hear() == "421 Enough"
        else:
            client.say("QUIT")
            client.writer.write_eof()
            assert await client.hear() == "200 OK"
            assert server.heard[-1] == "QUIT"
        assert await client.hear() == ""
        await turns(lambda: helper.sessions == 0)

    play(scene)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_side_that_is_torn_away_ends_the_other(who: str) -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        await client.ask("NOOP")
        tear(client.writer if who == "client" else server.writers[0])
        await turns(lambda: helper.sessions == 0)
        if who == "server":
            assert await client.hear() == ""

    play(scene)


def test_what_is_idle_ends_and_what_carries_data_does_not() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        port = await client.offered()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        data = await server.take_data()
        await turns(lambda: helper.tools.open == 1)
        async with await Client.connected(helper.port) as other:
            assert (await other.hear()).startswith("421 ")
            assert await other.hear() == ""
        assert helper.sessions == 1
        data.close()
        await closed(writer)
        assert (await client.hear()).startswith("421 ")
        assert await client.hear() == ""

    play(scene, idle_s=0.5)


def test_a_client_that_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftp, "SEND_S", 0.05)

    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        server.replies["STAT"] = "211-x\r\n" + (" " + "y" * 1000 + "\r\n") * 20_000 + "211 End"
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.say("STAT")
        await turns(lambda: helper.sessions == 0)

    play(scene)


def test_a_client_that_has_gone_without_its_server_noticing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftp, "LEAVING_S", 0.05)

    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        server.stays = True
        client.say("QUIT")
        client.writer.write_eof()
        assert await client.hear() == "200 OK"
        assert await client.hear() == ""
        assert helper.sessions == 0

    play(scene)


def test_a_client_that_is_far_ahead_is_not_read() -> None:
    async def played() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(ScriptedServer())
            helper = await stack.enter_async_context(Helper(server.host, server.port, receive_bytes=4096))
            client = await stack.enter_async_context(await Client.connected(helper.port))
            server.replies["NOOP"] = ""
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            client.writer.write(b"NOOP\r\n" * 100_000)
            await turns(lambda: server.heard)
            transport = client.writer.transport
            left = [transport.get_write_buffer_size()]
            for _ in range(100):
                await asyncio.sleep(0.001)
                left.append(transport.get_write_buffer_size())
            assert left[-1] > 400_000
            transport.abort()

    asyncio.run(played())


def test_an_entry_that_ends_waits_for_no_connection() -> None:
    async def played() -> None:
        with full_listener() as deaf:
            async with AsyncExitStack() as stack:
                server = await stack.enter_async_context(ScriptedServer())
                inner = AsyncExitStack()
                helper = await inner.enter_async_context(Helper(server.host, server.port, connect_timeout_s=60.0))
                client = await stack.enter_async_context(await Client.connected(helper.port))
                server.replies["EPSV"] = f"229 x (|||{deaf}|)"
                port = await client.offered()
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                await turns_until_closed(port)  # it has come
                async with asyncio.timeout(10):
                    await inner.aclose()
                await closed(writer)

    asyncio.run(played())


def test_an_entry_that_ends_takes_its_sessions_along_at_any_moment() -> None:
    async def played(steps: int) -> None:
        async with ScriptedServer() as server, AsyncExitStack() as stack:
            helper = await stack.enter_async_context(Helper(server.host, server.port))
            async with await Client.connected(helper.port) as client:
                client.say("EPSV")
                for _ in range(steps):
                    await asyncio.sleep(0)
                await stack.aclose()
            assert helper.sessions == 0

    for steps in range(0, 60, 3):
        asyncio.run(played(steps))


def test_tls_at_once_is_told_and_counted() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        client.writer.write(b"\x16\x03\x01\x02\x00\x01")
        reply = await client.hear()
        assert reply.startswith("421 ")
        assert "TLS" in reply
        assert [reason for reason, _ in helper.tools.refused] == ["protocol"]
        assert server.heard == []

    play(scene)


def tear(writer: asyncio.StreamWriter) -> None:
    """Close it with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.close()


def urgently(writer: asyncio.StreamWriter, data: bytes, mark: bytes) -> None:
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        sock.send(data)
        if mark:
            sock.send(mark, socket.MSG_OOB)


@pytest.mark.parametrize(
    ("local", "client", "told"),
    [
        ("192.168.1.10", "8.8.8.8", "9.9.9.9"),
        ("192.168.1.10", "192.168.1.77", None),  # who is inside may not get to the outside and back in
        ("8.8.4.4", "8.8.8.8", None),
        ("2001:4860:4860::8888", "2001:4860:4860::8844", None),
    ],
)
def test_only_clients_from_outside_are_told_the_address_outside(local: str, client: str, told: str | None) -> None:
    entry = Entry(id="files", kind="ftp", listen=(), known_as="9.9.9.9")
    found = announced(entry, ip_address(local), ip_address(client))
    assert found == (None if told is None else ip_address(told))
    assert announced(Entry(id="files", kind="ftp", listen=()), ip_address(local), ip_address(client)) is None
