"""Entries at work in the test's own loop: who comes in, who is refused and how, what a change of the config does."""

from __future__ import annotations

import asyncio
import errno
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec import structs

from tests.support.l4_ends import (
    LOOPBACK,
    backend,
    client,
    echo,
    forward,
    free_port,
    is_reset,
    listening,
    port_of,
    read_all,
    running,
    say_port,
    state,
    until,
    way_to,
)
from warren.l4 import entry as module
from warren.l4.config import Backend, Config, Entry, Health, Limits, Listen, Way
from warren.l4.connect import Dialler
from warren.model.services import CONNECTOR_PORT
from warren.model.tunnel import TransportAddress
from warren.proto import proxy_protocol


async def exchange(port: int, data: bytes, address: str = "127.0.0.1") -> bytes:
    """Send, end, and read until the end."""
    async with client(port, address) as sock:
        await asyncio.get_running_loop().sock_sendall(sock, data)
        sock.shutdown(socket.SHUT_WR)
        return await read_all(sock)


def test_streams_go_through_and_are_counted() -> None:
    async def main() -> None:
        async with listening(echo) as target, running(forward(way_to(target))) as server:
            port = port_of(server.status())
            assert await exchange(port, b"x" * 100_000) == b"x" * 100_000
            await until(lambda: state(server).open == 0)
            found = state(server)
            assert (found.state, found.opened, found.bytes_in, found.bytes_out) == ("listening", 1, 100_000, 100_000)
            assert found.refused == {}
            tools = server._work["forward x"].tools
            assert (len(tools._streams), len(tools._accepted)) == (0, 0), "nothing is kept of what has ended"

    asyncio.run(main())


def test_a_stream_that_the_policy_forbids_is_reset_at_once_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "warren.streams")

    async def main() -> None:
        way = Way(refusal="the policy of home lets nobody from a to b", backends=(backend(1),))
        async with running(forward(way)) as server:
            assert await is_reset(port_of(server.status()))
            await until(lambda: state(server).open == 0)
            assert state(server).refused == {"policy": 1}
            assert state(server).last_refusal == "the policy of home lets nobody from a to b"

    asyncio.run(main())
    assert any("is refused (policy): the policy of home lets nobody" in line for line in caplog.messages)


def test_a_stream_that_nobody_takes_is_reset_with_the_reason() -> None:
    async def main() -> None:
        async with running(forward(way_to(free_port()))) as server:
            assert await is_reset(port_of(server.status()))
            await until(lambda: state(server).refused == {"connect": 1})

    asyncio.run(main())


def test_sources_that_are_not_listed_are_reset_before_anything_is_connected_to() -> None:
    async def main() -> None:
        came = []

        async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            came.append(1)

        limits = Limits(sources=("192.0.2.0/24",))
        async with listening(attend) as target, running(forward(way_to(target), limits=limits)) as server:
            assert await is_reset(port_of(server.status()))
            assert state(server).refused == {"source": 1}
            assert (came, state(server).opened) == ([], 0)

    asyncio.run(main())


def test_no_more_than_streams_max_are_open_at_once() -> None:
    async def main() -> None:
        limits = Limits(streams_max=2)
        async with listening(echo) as target, running(forward(way_to(target), limits=limits)) as server:
            port = port_of(server.status())
            async with client(port), client(port):
                await until(lambda: state(server).open == 2)
                assert await is_reset(port)
                assert state(server).refused == {"streams": 1}
            await until(lambda: state(server).open == 0)
            assert await exchange(port, b"again") == b"again"

    asyncio.run(main())


def test_a_source_that_is_too_fast_is_refused() -> None:
    async def main() -> None:
        limits = Limits(rate=0.001)
        async with listening(echo) as target, running(forward(way_to(target), limits=limits)) as server:
            port = port_of(server.status())
            for _ in range(10):
                assert await exchange(port, b"x") == b"x"
            assert await is_reset(port)
            assert state(server).refused == {"rate": 1}

    asyncio.run(main())


def test_unix_sockets_on_both_ends(tmp_path: Path) -> None:
    async def main() -> None:
        target = str(tmp_path / "target")
        unix = await asyncio.start_unix_server(_echo_and_close, target)
        place = Listen(path=str(tmp_path / "in"))
        way = Way(backends=(Backend(name="t", side="host", path=target),))
        async with running(forward(way, listen=(place,))) as server:
            assert state(server).places == (f"unix:{place.path}",)
            reader, writer = await asyncio.open_unix_connection(place.path)
            writer.write(b"hello")
            writer.write_eof()
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        assert not Path(place.path).exists()
        unix.close()
        await unix.wait_closed()

    asyncio.run(main())


async def _echo_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await echo(reader, writer)
    finally:
        writer.close()


async def say_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What the target was told by a PROXY header, and what came behind it."""
    data = await reader.readexactly(16)
    data += await reader.readexactly(proxy_protocol.missing_untrusted(data))
    decoded = proxy_protocol.decode_untrusted(data)
    assert decoded is not None
    writer.write(f"{decoded[0].source} ".encode() + await reader.read())
    writer.write_eof()


CLIENT = TransportAddress(ip_address("198.51.100.7"), 7777)
HEADER = proxy_protocol.encode(CLIENT, TransportAddress(ip_address("203.0.113.1"), 443))


def told(target: int, **more: object) -> Entry:
    return forward(Way(backends=(backend(target, proxy_out=True),)), **more)


def test_who_the_client_is_comes_in_by_a_header_and_goes_out_by_one() -> None:
    async def main() -> None:
        async with listening(say_client) as target, running(told(target, proxy_in=True)) as server:
            port = port_of(server.status())
            assert await exchange(port, HEADER + b"hello") == b"198.51.100.7:7777 hello"
            async with client(port) as sock:  # a byte at a time
                for byte in HEADER + b"hello":
                    await asyncio.get_running_loop().sock_sendall(sock, bytes((byte,)))
                    await asyncio.sleep(0)
                sock.shutdown(socket.SHUT_WR)
                assert await read_all(sock) == b"198.51.100.7:7777 hello"
                local = proxy_protocol.encode(None, None, local=True)
            assert (await exchange(port, local + b"x")).startswith(b"127.0.0.1:")

    asyncio.run(main())


def test_without_a_header_the_client_is_who_connects() -> None:
    async def main() -> None:
        async with listening(say_client) as target, running(told(target)) as server:
            port = port_of(server.status())
            async with client(port) as sock:
                own = sock.getsockname()[1]
                sock.shutdown(socket.SHUT_WR)
                assert await read_all(sock) == f"127.0.0.1:{own} ".encode()

    asyncio.run(main())


@pytest.mark.parametrize("data", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"GET / HTTP/1.1\r\n\r\n", HEADER[:20]])
def test_streams_without_a_proper_header_are_refused(data: bytes) -> None:
    async def main() -> None:
        async with listening(echo) as target, running(told(target, proxy_in=True)) as server:
            async with client(port_of(server.status())) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, data)
                sock.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    await read_all(sock)
            await until(lambda: state(server).refused == {"proxy-header": 1})

    asyncio.run(main())


def test_a_header_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADER_S", 0.02)

    async def main() -> None:
        async with listening(echo) as target, running(told(target, proxy_in=True)) as server:
            async with client(port_of(server.status())) as sock:
                with pytest.raises(ConnectionResetError):
                    await read_all(sock)
            assert state(server).refused == {"proxy-header": 1}

    asyncio.run(main())


def test_the_rate_is_for_the_client_that_a_header_names() -> None:
    async def main() -> None:
        limits = Limits(rate=0.001, sources=("127.0.0.0/8",))
        entry = told(0, proxy_in=True, limits=limits)
        async with listening(say_client) as target:
            entry = structs.replace(entry, way=Way(backends=(backend(target, proxy_out=True),)))
            async with running(entry) as server:
                port = port_of(server.status())
                for _ in range(10):
                    await exchange(port, HEADER)
                with pytest.raises(ConnectionResetError):
                    await exchange(port, HEADER)
                other = proxy_protocol.encode(TransportAddress(ip_address("198.51.100.8"), 1), None)
                assert await exchange(port, other) == b"198.51.100.8:1 "

    asyncio.run(main())


def test_who_is_not_in_the_list_may_not_say_that_somebody_in_it_is_the_client() -> None:
    """The sources of an entry behind a load balancer are the balancer's."""

    async def main() -> None:
        listed = proxy_protocol.encode(TransportAddress(ip_address("192.0.2.9"), 1), None)
        async with listening(say_client) as target:
            entry = told(target, proxy_in=True, limits=Limits(sources=("192.0.2.0/24",)))
            async with running(entry) as server:
                with pytest.raises(ConnectionResetError):
                    await exchange(port_of(server.status()), listed)
                assert state(server).refused == {"source": 1}

    asyncio.run(main())


def connector_entry(target: int, address: str, *members: str) -> Entry:
    place = Listen(side="overlay", address=address, port=CONNECTOR_PORT)
    return told(target, listen=(place,), proxy_in_from=members)


def test_members_that_carry_a_service_may_say_who_the_client_is() -> None:
    async def main() -> None:
        async with listening(say_client) as target, running(connector_entry(target, "127.83.1.1", "127.0.0.0/8")):
            got = await exchange(CONNECTOR_PORT, HEADER + b"!", "127.83.1.1")
            assert got == b"198.51.100.7:7777 !"

    asyncio.run(main())


@pytest.mark.parametrize("members", [(), ("192.0.2.0/24",)])
def test_others_may_not(members: tuple[str, ...]) -> None:
    async def main() -> None:
        async with (
            listening(say_client) as target,
            running(connector_entry(target, "127.83.1.2", *members)) as server,
        ):
            assert await is_reset(CONNECTOR_PORT, "127.83.1.2")
            assert state(server).refused == {"source": 1}

    asyncio.run(main())


def test_a_change_of_the_way_leaves_listeners_and_streams() -> None:
    async def main() -> None:
        async with listening(echo) as old, listening(say_port) as new, running(forward(way_to(old))) as server:
            port = port_of(server.status())
            async with client(port) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"before")
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"before"
                await server.configure(Config(entries=(forward(way_to(new)),)))
                assert port_of(server.status()) == port
                assert await exchange(port, b"") == str(new).encode()
                await asyncio.get_running_loop().sock_sendall(sock, b"after")
                assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"after"

    asyncio.run(main())


def test_what_is_not_in_the_config_any_more_ends_with_its_streams() -> None:
    async def main() -> None:
        other = structs.replace(forward(Way()), id="forward y")
        async with listening(echo) as target, running(forward(way_to(target)), other) as server:
            port = port_of(server.status())
            async with client(port) as sock:
                await until(lambda: server.status().entries[0].open == 1)
                await asyncio.get_running_loop().sock_sendall(sock, b"x")
                await asyncio.get_running_loop().sock_recv(sock, 1)
                status = await server.configure(Config(entries=(other,)))
                assert [one.id for one in status.entries] == ["forward y"]
                with pytest.raises(ConnectionResetError):
                    await read_all(sock)
            assert not await is_reset(port)

    asyncio.run(main())


def test_a_place_moves_from_one_entry_to_another() -> None:
    async def main() -> None:
        async with listening(say_port) as target, running(forward(way_to(target))) as server:
            port = port_of(server.status())
            moved = structs.replace(
                forward(way_to(target)), id="forward new", listen=(structs.replace(LOOPBACK, port=port),)
            )
            status = await server.configure(Config(entries=(moved,)))
            assert (status.entries[0].state, port_of(status)) == ("listening", port)

    asyncio.run(main())


def test_a_place_that_is_taken_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)

    async def main() -> None:
        changes = []
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            entry = forward(Way(), listen=(LOOPBACK, structs.replace(LOOPBACK, port=port)))
            async with running(entry, changed=lambda: changes.append(1)) as server:
                found = state(server)
                assert found.state == "failed"
                assert f"127.0.0.1:{port} is in use by another program" in found.reason
                assert len(found.places) == 1
                taken.close()
                await until(lambda: bool(changes))
                assert state(server).state == "listening"
                assert f"127.0.0.1:{port}" in state(server).places

    asyncio.run(main())


def test_an_entry_whose_target_is_dead_does_not_listen_and_does_once_it_lives() -> None:
    async def main() -> None:
        changes = []
        port = free_port()
        entry = forward(way_to(port), health=Health(every_s=0.02))
        async with running(entry, changed=lambda: changes.append(1)) as server:
            assert state(server).state == "unhealthy"
            assert "refuses connections" in state(server).reason
            assert state(server).places == ()
            target = await asyncio.start_server(_echo_and_close, "127.0.0.1", port)
            await until(lambda: state(server).state == "listening")
            await until(lambda: bool(changes))
            place = port_of(server.status())
            target.close()
            await target.wait_closed()
            await until(lambda: state(server).state == "unhealthy")
            assert not await is_reset(place)

    asyncio.run(main())


def test_another_target_does_not_close_the_listener_until_it_is_known_to_be_dead() -> None:
    async def main() -> None:
        health = Health(every_s=3600)
        async with (
            listening(say_port) as old,
            listening(say_port) as new,
            running(forward(way_to(old), health=health)) as server,
        ):
            port = port_of(server.status())
            listener = next(iter(server._work["forward x"].running._listeners.values()))  # type: ignore[attr-defined]
            await server.configure(Config(entries=(forward(way_to(new), health=health),)))
            assert listener.sock.fileno() >= 0
            assert await exchange(port, b"") == str(new).encode()
            await server.configure(Config(entries=(forward(way_to(free_port()), health=health),)))
            await until(lambda: state(server).state == "unhealthy")

    asyncio.run(main())


def test_a_stream_that_fails_makes_an_entry_unhealthy_at_once() -> None:
    async def main() -> None:
        target = await asyncio.start_server(_echo_and_close, "127.0.0.1", 0)
        entry = forward(way_to(target.sockets[0].getsockname()[1]), health=Health(every_s=3600))
        async with running(entry) as server:
            assert state(server).state == "listening"
            port = port_of(server.status())
            target.close()
            await target.wait_closed()
            assert await is_reset(port)
            await until(lambda: state(server).state == "unhealthy" and state(server).places == ())

    asyncio.run(main())


def test_a_host_without_descriptors_refuses_for_a_moment_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NO_ROOM_S", 0.02)

    async def main() -> None:
        async with listening(echo) as target, running(forward(way_to(target))) as server:
            running_entry = server._work["forward x"].running
            listener = next(iter(running_entry._listeners.values()))  # type: ignore[attr-defined]
            real, failures = listener.sock, []

            class Full:
                def accept(self) -> None:
                    failures.append(1)
                    if len(failures) < 3:
                        raise OSError(errno.EMFILE, "none left")
                    listener.sock = real
                    raise BlockingIOError

                def fileno(self) -> int:
                    return int(real.fileno())

            listener.sock = Full()
            assert await exchange(port_of_socket(real), b"x") == b"x"
            assert state(server).refused == {"resources": 2}
            assert "no file descriptors" in state(server).last_refusal

    asyncio.run(main())


def port_of_socket(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


@pytest.mark.logs_errors
def test_a_bug_in_a_kind_ends_one_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async def broken(*_: object) -> None:
            raise ZeroDivisionError

        def broken_at_once(*_: object) -> None:
            raise ZeroDivisionError

        async with listening(echo) as target, running(forward(way_to(target))) as server:
            running_entry = server._work["forward x"].running
            with monkeypatch.context() as patched:
                patched.setattr(running_entry, "_straight", None)
                patched.setattr(running_entry, "_kind", broken)
                assert await is_reset(port_of(server.status()))
            with monkeypatch.context() as patched:
                patched.setattr(Dialler, "begin", broken_at_once)
                assert await is_reset(port_of(server.status()))
            with monkeypatch.context() as patched:
                patched.setattr(Dialler, "finish", broken_at_once)
                assert await is_reset(port_of(server.status()))
            assert await exchange(port_of(server.status()), b"x") == b"x"
            await until(lambda: state(server).open == 0)

    asyncio.run(main())
