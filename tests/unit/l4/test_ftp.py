"""The FTP helper with real sockets on loopback; client and server are the test's own."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.ftp_peers import Client, ScriptedServer, closed, fetched, is_open, numbers, turns
from tests.support.ftp_tools import Helper, SmallTools
from warren.l4 import ftp, ftp_data
from warren.l4.config import Entry, Listen
from warren.l4.ftp import announced, handle
from warren.l4.kinds import Incoming, Refused
from warren.l4.overlay import HostSockets
from warren.model.services import DATA_PORTS

STRANGER = "127.0.0.2"
RESET = struct.pack("ii", 1, 0)

Scene = Callable[[ScriptedServer, Helper, Client], Awaitable[None]]


def play(scene: Scene, *, side: str = "host", idle_s: float | None = None, source: str | None = None) -> None:
    """A client that is connected through a helper to a server; afterwards nothing may be left."""

    async def played() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(ScriptedServer())
            helper = await stack.enter_async_context(Helper(server.host, server.port, side=side, idle_s=idle_s))
            helper.tools.source = source
            client = await stack.enter_async_context(await Client.connected(helper.port))
            await scene(server, helper, client)
        assert helper.tools.open == 0

    asyncio.run(played())


# Data connections


@pytest.mark.parametrize("verb", ["PASV", "EPSV"])
def test_a_file_comes_through_in_passive_mode(verb: str) -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        port = await client.offered(verb)
        client.say("RETR a")
        assert await fetched(port) == server.content
        assert await client.hear() == "150 Here"
        assert await client.hear() == "226 Done"
        assert helper.tools.refused == []
        assert helper.tools.opened == 1

    play(scene)


@pytest.mark.parametrize("verb", ["PORT", "EPRT"])
def test_a_file_goes_up_in_active_mode(verb: str) -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            argument = numbers("127.0.0.1", port) if verb == "PORT" else f"|1|127.0.0.1|{port}|"
            assert (await client.ask(f"{verb} {argument}")).startswith("200 ")
            client.say("STOR a")
            listener.setblocking(False)
            sock, (who, _) = await asyncio.get_running_loop().sock_accept(listener)
        assert who == "127.0.0.1"
        with sock:
            sock.sendall(b"up")
        assert await client.hear() == "150 Here"
        assert await client.hear() == "226 Done"
        assert server.received == b"up"
        assert server.heard == ["EPSV", "STOR a"]

    play(scene)


def test_the_servers_side_is_gone_to_from_the_address_of_the_control_connection() -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        port = await client.offered()
        client.say("RETR a")
        await fetched(port)
        assert server.data_from == ["127.0.0.9"]

    play(scene, source="127.0.0.9")


def test_in_the_overlay_data_ports_are_those_that_policies_know_of() -> None:
    async def scene(_: ScriptedServer, helper: Helper, client: Client) -> None:
        ports = {await client.offered() for _ in range(20)}
        assert all(DATA_PORTS[0] <= port <= DATA_PORTS[1] for port in ports)
        assert len(ports) > 10

    play(scene, side="overlay")


# Who may come, and how long


def test_a_stranger_gets_nothing_and_the_client_does_afterwards() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        port = await client.offered()
        client.say("RETR a")
        with pytest.raises(ConnectionResetError):
            await fetched(port, source=STRANGER)
        assert server.data_from == []
        assert await fetched(port) == server.content
        assert [reason for reason, _ in helper.tools.refused] == ["source"]

    play(scene)


def test_a_data_port_is_for_one_connection() -> None:
    async def scene(_: ScriptedServer, __: Helper, client: Client) -> None:
        port = await client.offered()
        client.say("RETR a")
        await fetched(port)
        assert not await is_open(port)

    play(scene)


def test_a_data_port_is_closed_when_the_transfer_is_refused() -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        server.replies["RETR"] = "550 No such file"
        port = await client.offered()
        assert await is_open(port, source=STRANGER)
        assert await client.ask("RETR a") == "550 No such file"
        await turns_until_closed(port)

    play(scene)


def test_a_data_port_is_closed_by_the_next_one() -> None:
    async def scene(_: ScriptedServer, __: Helper, client: Client) -> None:
        ports = [await client.offered("PASV" if number % 2 else "EPSV") for number in range(30)]
        assert await is_open(ports[-1], source=STRANGER)
        for port in set(ports) - {ports[-1]}:
            assert not await is_open(port, source=STRANGER)

    play(scene)


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_data_port_is_closed_with_the_control_connection(who: str) -> None:
    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        port = await client.offered()
        await closed(client.writer if who == "client" else server.writers[0])
        await turns_until_closed(port)

    play(scene)


def test_a_data_port_is_closed_when_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ftp_data, "OFFER_S", 0.05)

    async def scene(server: ScriptedServer, _: Helper, client: Client) -> None:
        port = await client.offered()
        await turns_until_closed(port)
        assert (await client.ask("RETR a")).startswith("425 ")
        assert server.heard == ["EPSV"]

    play(scene)


def test_a_client_has_few_data_connections_at_once() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        server.replies["RETR"] = "226 Done"
        writers = []
        for number in range(ftp_data.STREAMS_MAX):
            port = await client.offered()
            writers.append((await asyncio.open_connection("127.0.0.1", port))[1])
            await turns(lambda most=number + 1: helper.tools.open == most)
            await client.ask("RETR a")
        assert (await client.ask("EPSV")).startswith("425 ")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await client.ask(f"PORT {numbers('127.0.0.1', listener.getsockname()[1])}")
            assert (await client.ask("RETR a")).startswith("425 ")
        await closed(writers.pop())
        for _ in range(ftp_data.STREAMS_MAX):
            (await server.take_data()).close()
        for writer in writers:
            await closed(writer)
        await turns(lambda: helper.tools.open == 0)
        await client.offered()

    play(scene)


# Other hosts


def test_where_a_server_sends_the_helper_it_does_not_go() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        with socket.create_server(("127.0.0.3", server.data_port)) as victim:
            victim.setblocking(False)
            server.replies["EPSV"] = "500 ?"
            server.replies["PASV"] = f"227 Entering Passive Mode ({numbers('127.0.0.3', server.data_port)})"
            port = await client.offered("PASV")
            client.say("RETR a")
            assert await fetched(port) == server.content
            with pytest.raises(BlockingIOError):
                victim.accept()
        assert [reason for reason, _ in helper.tools.refused] == ["protocol"]
        assert "127.0.0.3" in helper.tools.refused[0][1]

    play(scene)


@pytest.mark.parametrize("command", ["PORT {numbers}", "EPRT |1|127.0.0.3|{port}|"])
def test_where_a_client_sends_the_helper_it_does_not_go(command: str) -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        with socket.create_server(("127.0.0.3", 0)) as victim:
            victim.setblocking(False)
            port = victim.getsockname()[1]
            reply = await client.ask(command.format(numbers=numbers("127.0.0.3", port), port=port))
            assert reply.startswith("504 ")
            assert (await client.ask("RETR a")).startswith("425 ")
            with pytest.raises(BlockingIOError):
                victim.accept()
        assert [reason for reason, _ in helper.tools.refused] == ["protocol"]
        assert server.heard == []

    play(scene)


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


def test_a_data_port_of_the_server_that_is_closed_is_told_of_and_the_file_left_alone() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            dead = gone.getsockname()[1]
        server.replies["EPSV"] = f"229 x (|||{dead}|)"
        port = await client.offered()
        with pytest.raises(ConnectionResetError):
            await fetched(port)
        reply = await client.ask("STOR a")
        assert reply.startswith("425 ")
        assert str(dead) in reply
        assert server.heard == ["EPSV"]
        assert [reason for reason, _ in helper.tools.refused] == ["connect"]
        assert await client.ask("NOOP") == "200 OK"

    play(scene)


def test_a_data_port_of_the_server_that_does_not_answer_is_told_of_and_the_file_left_alone() -> None:
    async def played() -> None:
        async with AsyncExitStack() as stack:
            deaf = stack.enter_context(full_listener())
            server = await stack.enter_async_context(ScriptedServer())
            helper = await stack.enter_async_context(Helper(server.host, server.port, connect_timeout_s=0.5))
            client = await stack.enter_async_context(await Client.connected(helper.port))
            server.replies["EPSV"] = f"229 x (|||{deaf}|)"
            port = await client.offered()
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await turns_until_closed(port)  # it has come
            reply = await client.ask("STOR a")
            assert reply.startswith(f"425 No data connection: the server did not answer at port {deaf} in 0.5 s")
            assert server.heard == ["EPSV"]
            await closed(writer)

    asyncio.run(played())


def test_a_client_that_does_not_listen_is_told_and_the_file_left_alone() -> None:
    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            dead = gone.getsockname()[1]
        assert (await client.ask(f"EPRT |1|127.0.0.1|{dead}|")).startswith("200 ")
        assert (await client.ask("STOR a")).startswith("425 ")
        assert server.heard == ["EPSV"]
        assert [reason for reason, _ in helper.tools.refused] == ["connect"]
        (await server.take_data()).close()

    play(scene)


def test_no_socket_for_data_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(_: ScriptedServer, helper: Helper, client: Client) -> None:
        async def none(self: object, family: int, kind: int, protocol: int = 0) -> socket.socket:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(type(helper.tools.overlay), "open", none)
        assert (await client.ask("EPSV")).startswith("425 ")
        assert (await client.ask("PORT 127,0,0,1,200,10")).startswith("200 ")
        assert (await client.ask("LIST")).startswith("425 ")
        assert [reason for reason, _ in helper.tools.refused] == ["resources"]

    play(scene)


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


def test_a_session_that_ends_waits_for_the_data_connection_that_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may have said everything and closed, while what it sent as data still waits in its socket."""

    async def scene(server: ScriptedServer, helper: Helper, client: Client) -> None:
        class Slow:
            may = asyncio.Event()

            async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
                await self.may.wait()
                return await HostSockets().open(family, kind, protocol)

        slow = Slow()
        server.replies["RETR"] = ""
        port = await client.offered()
        monkeypatch.setattr(ftp_data, "_HOST", slow)
        client.say("RETR a")
        await turns(lambda: server.heard[-1] == "RETR a")
        reading = asyncio.create_task(fetched(port))
        await turns_until_closed(port)
        server.say("226 Done")
        server.writers[0].close()
        assert await client.hear() == "226 Done"
        assert await client.hear() == ""
        slow.may.set()
        with await server.take_data() as sock:
            sock.send(b"late")
        assert await reading == b"late"

    play(scene)


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


async def turns_until_closed(port: int) -> None:
    for _ in range(200):
        if not await is_open(port, source=STRANGER):
            return
    raise AssertionError(f"port {port} stays open")


def tear(writer: asyncio.StreamWriter) -> None:
    """Close it with a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.close()


def urgently(writer: asyncio.StreamWriter, data: bytes, mark: bytes) -> None:
    with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as sock:
        sock.send(data)
        if mark:
            sock.send(mark, socket.MSG_OOB)


@contextmanager
def full_listener() -> Iterator[int]:
    """A port where connections are neither taken nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield port


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
