"""Data connections of the FTP helper, with real sockets on loopback; client and server are the test's own."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from tests.support.ftp_peers import Client, ScriptedServer, closed, fetched, is_open, numbers, turns
from tests.support.ftp_tools import Helper
from tests.unit.l4.ftp_scene import STRANGER, full_listener, play, turns_until_closed
from warren.l4 import ftp_data
from warren.l4.overlay import HostSockets
from warren.model.services import DATA_PORTS


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


# Sessions that end


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
