"""Streams that have no task of their own: how they come about, and how those end that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec import structs

from tests.support.l4_ends import (
    LIMIT_S,
    LOOPBACK,
    backend,
    client,
    echo,
    forward,
    free_port,
    is_reset,
    listening,
    nobody,
    port_of,
    read_all,
    running,
    state,
    until,
    way_to,
)
from warren.l4 import own_places
from warren.l4.config import Backend, Closed, Config, Health, Limits, Opened, Way
from warren.l4.overlay import HostSockets
from warren.l4.serve import Server
from warren.l4.straight import TOGETHER_S, Straight
from warren.model.tunnel import IPAddress
from warren.proto.proxy_protocol import decode_untrusted


def straight(server: Server) -> Straight:
    found = server._work["forward x"].running._straight  # type: ignore[attr-defined]
    assert isinstance(found, Straight)
    return found


def settled(server: Server) -> bool:
    """Nothing is kept of a stream."""
    tools = server._work["forward x"].tools
    return not any((state(server).open, tools._streams, tools._accepted, straight(server)._opening, len(server._pump)))


@contextlib.asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """A port whose queue is full: no connection comes about, and none is refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        port: int = listener.getsockname()[1]
        yield port


@contextlib.asynccontextmanager
async def connecting(**more: object) -> AsyncIterator[tuple[Server, socket.socket, int]]:
    """An entry, a client whose stream is being connected, and where to."""
    async with (
        deaf() as port,
        running(forward(way_to(port, **more))) as server,
        client(port_of(server.status())) as sock,
    ):
        await until(lambda: bool(straight(server)._opening))
        yield server, sock, port


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main()

    asyncio.run(limited())


def test_a_stream_to_one_address_has_no_task() -> None:
    async def main() -> None:
        async with listening(echo) as target, running(forward(way_to(target))) as server:
            async with client(port_of(server.status())) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"x")
                assert await asyncio.get_running_loop().sock_recv(sock, 1) == b"x"
                assert server._work["forward x"].running._tasks == set()  # type: ignore[attr-defined]
                sock.shutdown(socket.SHUT_WR)
                assert await read_all(sock) == b""
            await until(lambda: settled(server))

    run(main)


class Nest:
    """Sockets that another process makes."""

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return await HostSockets().open(family, kind, protocol)


def test_what_has_to_wait_for_somebody_is_not_begun_at_once() -> None:
    async def main() -> None:
        here = Backend(name="b", side="overlay", host="127.0.0.1", port=1)
        name = Backend(name="b", side="host", host="localhost", port=1)
        path = Backend(name="b", side="host", path="/nowhere")
        server = Server(HostSockets(), nobody, lambda: None)
        inside = Server(Nest(), nobody, lambda: None)
        try:
            dialler = server._shared.dialler
            for one in (here, backend(1), path):
                assert dialler.only(Way(backends=(one,))) is not None
            assert dialler.only(Way(backends=(name,))) is None
            assert dialler.only(Way()) is None
            assert dialler.only(way_to(1, 2)) is None
            assert dialler.only(Way(backends=(here,), refusal="the policy says no")) is None
            assert inside._shared.dialler.only(Way(backends=(here,))) is None
        finally:
            await server.close()
            await inside.close()

    run(main)


@pytest.mark.parametrize("told", [{"proxy_out": True}, {}], ids=["told", "not told"])
def test_the_target_is_told_who_the_client_is_where_that_is_due(told: dict[str, object]) -> None:
    async def main() -> None:
        got: list[bytes] = []

        async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read())

        async with listening(attend) as target, running(forward(Way(backends=(backend(target, **told),)))) as server:
            port = port_of(server.status())
            async with client(port) as sock:
                name = sock.getsockname()
                await asyncio.get_running_loop().sock_sendall(sock, b"hello")
                sock.shutdown(socket.SHUT_WR)
                await read_all(sock)
            await until(lambda: settled(server))
            assert state(server).bytes_in == 5
        if "proxy_out" in told:
            decoded = decode_untrusted(got[0][:28])
            assert decoded is not None
            source, destination = decoded[0].source, decoded[0].destination
            assert source is not None
            assert destination is not None
            assert (str(source.ip), source.port, destination.port) == (*name, port)
            assert got[0][28:] == b"hello"
        else:
            assert got == [b"hello"]

    run(main)


def test_nobody_is_waited_for_longer_than_the_way_says() -> None:
    async def main() -> None:
        health = Health(every_s=3600)
        async with (
            deaf() as dead,
            listening(echo) as alive,
            running(forward(way_to(alive), health=health)) as server,
        ):
            port = port_of(server.status())
            straight(server).plan(way_to(dead, connect_timeout_s=0.05))
            assert await is_reset(port)
            assert state(server).refused == {"timeout": 1}
            assert state(server).last_refusal == f"b (127.0.0.1:{dead}) did not answer in 0.05 s"
            assert state(server).state == "unhealthy"
            await until(lambda: settled(server))

    run(main)


def test_each_of_several_streams_has_its_own_time() -> None:
    async def main() -> None:
        async with connecting(connect_timeout_s=3600) as (server, first, port):
            straight(server).plan(way_to(port, connect_timeout_s=0.02))
            async with client(port_of(server.status())) as second:
                with pytest.raises(ConnectionResetError):
                    await read_all(second)
            assert (state(server).open, len(straight(server)._opening)) == (1, 1)
            assert first.fileno() >= 0
            straight(server).plan(way_to(port, connect_timeout_s=0.02))
            assert await is_reset(port_of(server.status())), "though the first has hours left"

    run(main)


def test_of_thousands_of_streams_not_each_makes_a_look_at_all_of_them() -> None:
    async def main() -> None:
        async with connecting(connect_timeout_s=3600) as (server, _, _):
            found = straight(server)
            ((sock, opening),) = found._opening.items()
            now = asyncio.get_running_loop().time()
            found._opening[sock] = opening._replace(due=now + TOGETHER_S / 2)
            found._look()
            assert len(found._opening) == 1
            assert found._timer is not None
            assert found._timer.when() >= now + TOGETHER_S

    run(main)


def test_a_stream_that_is_refused_is_reset_and_counted_and_nothing_of_it_is_left() -> None:
    async def main() -> None:
        dead = free_port()
        async with running(forward(way_to(dead))) as server:
            assert await is_reset(port_of(server.status()))
            await until(lambda: settled(server))
            found = state(server)
            assert (found.refused, found.opened) == ({"connect": 1}, 1)
            assert found.last_refusal == f"b (127.0.0.1:{dead}) refuses connections: is the program there running?"

    run(main)


def test_a_client_that_goes_while_its_stream_is_being_connected_is_not_waited_for() -> None:
    async def main() -> None:
        async with connecting() as (server, sock, _):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            await until(lambda: settled(server))
            assert state(server).refused == {}

    run(main)


def test_streams_that_are_being_connected_count_as_open() -> None:
    async def main() -> None:
        async with (
            deaf() as port,
            running(forward(way_to(port), limits=Limits(streams_max=1))) as server,
            client(port_of(server.status())),
        ):
            await until(lambda: state(server).open == 1)
            assert await is_reset(port_of(server.status()))
            assert state(server).refused == {"streams": 1}

    run(main)


def test_a_stream_that_is_being_connected_ends_with_its_entry() -> None:
    async def main() -> None:
        async with connecting() as (server, sock, _):
            await server.configure(Config())
            with pytest.raises(ConnectionResetError):
                await read_all(sock)
            assert len(server._pump) == 0

    run(main)


@pytest.mark.parametrize("side", ["overlay", "host"])
def test_a_stream_that_is_being_connected_ends_when_it_may_not_go_there_any_more(side: str) -> None:
    """On the host's side targets may change under it."""

    async def main() -> None:
        async with deaf() as port:
            way = Way(backends=(structs.replace(backend(port), side=side),), connect_timeout_s=3600)
            async with running(forward(way)) as server, client(port_of(server.status())) as sock:
                await until(lambda: bool(straight(server)._opening))
                elsewhere = structs.replace(way.backends[0], host="127.0.0.2")
                await server.configure(Config(entries=(forward(Way(backends=(elsewhere,))),)))
                if side == "overlay":
                    with pytest.raises(ConnectionResetError):
                        await read_all(sock)
                    assert settled(server)
                else:
                    assert len(straight(server)._opening) == 1

    run(main)


def test_another_way_is_the_way_of_the_next_stream() -> None:
    async def main() -> None:
        async with listening(echo) as target, running(forward(way_to(free_port()))) as server:
            port = port_of(server.status())
            assert await is_reset(port)
            entry = server._work["forward x"].running.entry
            for refusal in ("", "the policy says no", ""):
                way = way_to(target, refusal=refusal)
                await server.configure(Config(entries=(structs.replace(entry, way=way),)))
                if refusal:
                    assert await is_reset(port)
                    continue
                async with client(port) as sock:
                    await asyncio.get_running_loop().sock_sendall(sock, b"x")
                    assert await asyncio.get_running_loop().sock_recv(sock, 1) == b"x"
            assert state(server).refused == {"connect": 1, "policy": 1}

    run(main)


def test_what_leads_back_here_is_refused() -> None:
    async def main() -> None:
        port = free_port()
        entry = forward(way_to(port), listen=(structs.replace(LOOPBACK, port=port),))
        async with running(entry) as server:
            assert await is_reset(port)
            assert state(server).refused == {"connect": 1}
            assert "a loop" in state(server).last_refusal
            assert settled(server)

    run(main)


def test_the_address_from_which_it_is_gone_to_shows_what_leads_back_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a listener for all addresses only that tells which ones are this host's."""

    async def main() -> None:
        asked: list[object] = []

        def leads_back(kind: int, ip: IPAddress, port: int, local: IPAddress | None = None) -> bool:
            asked.append(local)
            return local == ip

        async with listening(echo) as target, running(forward(way_to(target))) as server:
            monkeypatch.setattr(own_places, "listens", lambda kind, port: port == target)
            monkeypatch.setattr(own_places, "leads_back", leads_back)
            assert await is_reset(port_of(server.status()))
            assert asked == [None, ip_address("127.0.0.1")]
            assert "a loop" in state(server).last_refusal
            await until(lambda: settled(server))

    run(main)


def test_what_is_closed_is_not_begun_to_be_connected_to() -> None:
    async def main() -> None:
        closed = (Closed(prefix="127.0.0.0/8", what="link-local"),)
        async with listening(echo) as target, running(forward(way_to(target, closed=closed))) as server:
            assert await is_reset(port_of(server.status()))
            assert state(server).refused == {"policy": 1}
            opened = (Opened(prefix="127.0.0.1/32"),)
            entry = server._work["forward x"].running.entry
            way = way_to(target, closed=closed, opened=opened)
            await server.configure(Config(entries=(structs.replace(entry, way=way),)))
            async with client(port_of(server.status())) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"x")
                assert await asyncio.get_running_loop().sock_recv(sock, 1) == b"x"

    run(main)


def test_a_socket_that_is_not_there_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        way = Way(backends=(Backend(name="t", side="host", path=str(tmp_path / "none")),))
        async with running(forward(way)) as server:
            assert await is_reset(port_of(server.status()))
            assert state(server).refused == {"connect": 1}
            assert "there is no socket" in state(server).last_refusal
            assert settled(server)

    run(main)


def test_idle_time_begins_when_the_connection_is_there() -> None:
    async def main() -> None:
        async with connecting(idle_s=0.01, connect_timeout_s=0.2) as (server, sock, _):
            with pytest.raises(ConnectionResetError):
                await read_all(sock)
            assert state(server).refused == {"timeout": 1}, "it is late, not idle"

    run(main)
