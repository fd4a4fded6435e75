"""Targets that an authority may not name: what is closed is not connected to, by whatever name it is found."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from ipaddress import ip_address
from typing import Literal

import pytest
from msgspec import structs

from tests.support.l4_ends import LIMIT_S, nobody, running
from warren.l4.closed_places import objection
from warren.l4.config import Backend, Closed, Config, Entry, Health, Limits, Listen, Opened, Way
from warren.l4.connect import Dialler
from warren.l4.kinds import Refused
from warren.l4.overlay import HostSockets
from warren.l4.pump import Pump
from warren.l4.tools import EntryTools, Shared

CLOSED = (
    Closed(prefix="10.77.0.0/16", what="an address of network home"),
    Closed(prefix="fd12:3456:789a::/48", what="an address of network home"),
    Closed(prefix="169.254.0.0/16", what="link-local"),
)
OUTSIDE, INSIDE = "127.0.0.1", "127.0.0.2"
"""Where the tests listen: the second one is closed."""
HERE = (Closed(prefix=f"{INSIDE}/32", what="an address of network home"),)


def why(text: str, port: int = 80, *opened: Opened) -> str:
    return objection(ip_address(text), port, Way(closed=CLOSED, opened=opened))


@pytest.mark.parametrize(
    "text",
    [
        "10.77.0.5",
        "fd12:3456:789a:2::1",
        "169.254.169.254",
        "::ffff:10.77.0.5",
        "::ffff:169.254.169.254",
        "::10.77.0.5",
        "64:ff9b::10.77.0.5",
        "2002:0a4d:0005::1",
        "2001:db8::5efe:10.77.0.5",
    ],
)
def test_what_is_closed_is_closed_in_whatever_way_it_is_written(text: str) -> None:
    assert "[services] allow" in why(text)


@pytest.mark.parametrize(
    "text", ["10.78.0.5", "127.0.0.1", "::1", "fd12:3456:789b::1", "192.0.2.1", "::ffff:192.0.2.1"]
)
def test_everything_else_is_open(text: str) -> None:
    assert why(text) == ""
    assert objection(ip_address("10.77.0.5"), 80, Way()) == ""


def test_the_sentence_says_whose_it_is_and_what_the_operator_can_do() -> None:
    assert why("10.77.0.5") == (
        "10.77.0.5 is an address of network home, where no service leads unless the operator of this node names it: "
        'agent.toml, [services] allow has to have "10.77.0.5:80" (and "*:*" for everything else)'
    )
    assert '"[fd12:3456:789a::1]:80"' in why("fd12:3456:789a::1")


def test_the_operator_opens_addresses_and_ports() -> None:
    opened = Opened(prefix="10.77.0.0/24", ports=(80, 89))
    assert why("10.77.0.5", 85, opened) == ""
    assert why("::ffff:10.77.0.5", 85, opened) == ""
    assert why("10.77.0.5", 90, opened)
    assert why("10.77.1.5", 85, opened)


# At work


@contextlib.contextmanager
def both(kind: int) -> Iterator[tuple[int, socket.socket, socket.socket]]:
    """One port, and who is at it outside and inside."""
    with socket.socket(socket.AF_INET, kind) as one, socket.socket(socket.AF_INET, kind) as two:
        one.bind((OUTSIDE, 0))
        port = one.getsockname()[1]
        two.bind((INSIDE, port))
        for sock in (one, two):
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.listen()
        yield port, one, two


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main()

    asyncio.run(limited())


def names(monkeypatch: pytest.MonkeyPatch, *answers: tuple[str, ...]) -> None:
    """The resolver's answers, one after the other; the last one again and again."""
    left = list(answers)

    async def getaddrinfo(host: str, port: int, *, type: int = 0, **_: object) -> list[object]:  # noqa: A002
        found = left.pop(0) if len(left) > 1 else left[0]
        return [
            (socket.AF_INET6, type, 0, "", (ip, port, 0, 0)) if ":" in ip else (socket.AF_INET, type, 0, "", (ip, port))
            for ip in found
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def way(port: int, host: str = "target.example", **more: object) -> Way:
    return Way(backends=(Backend(name=host, side="host", host=host, port=port),), closed=HERE, **more)  # type: ignore[arg-type]


def was_asked(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


async def refusal(dialler: Dialler, to: Way) -> str:
    with pytest.raises(Refused) as refused:
        (await dialler.connect(to, None, None)).sock.close()
    assert refused.value.reason == "policy"
    return str(refused.value)


@pytest.mark.parametrize("answers", [(INSIDE,), (f"::ffff:{INSIDE}",), (INSIDE, f"::ffff:{INSIDE}")])
def test_a_name_that_leads_to_closed_addresses_alone_is_refused(
    answers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with both(socket.SOCK_STREAM) as (port, _, inside):

        async def main() -> None:
            names(monkeypatch, answers)
            said = await refusal(Dialler(HostSockets(), lambda: 0.0), way(port))
            assert said.startswith(f"target.example leads to {ip_address(answers[-1])}: {INSIDE} is an address of ")
            assert not was_asked(inside)

        run(main)


def test_of_the_addresses_of_a_name_only_the_open_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with both(socket.SOCK_STREAM) as (port, outside, inside):

        async def main() -> None:
            names(monkeypatch, (INSIDE, OUTSIDE, f"::ffff:{INSIDE}"))
            dialler = Dialler(HostSockets(), lambda: 0.0)
            (await dialler.connect(way(port), None, None)).sock.close()
            assert was_asked(outside)
            outside.close()
            with pytest.raises(Refused):
                (await dialler.connect(way(port), None, None)).sock.close()
            assert not was_asked(inside)

        run(main)


def test_a_name_that_leads_elsewhere_after_it_was_looked_at_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with both(socket.SOCK_STREAM) as (port, outside, inside):

        async def main() -> None:
            names(monkeypatch, (OUTSIDE,), (INSIDE,))
            now = iter(range(0, 1000, 100))
            dialler = Dialler(HostSockets(), lambda: float(next(now)))  # nothing is remembered
            (await dialler.connect(way(port), None, None)).sock.close()
            assert was_asked(outside)
            assert INSIDE in await refusal(dialler, way(port))
            assert not was_asked(inside)

        run(main)


def test_an_address_of_a_way_is_held_against_the_list_too() -> None:
    with both(socket.SOCK_STREAM) as (port, outside, inside):

        async def main() -> None:
            dialler = Dialler(HostSockets(), lambda: 0.0)
            assert (await refusal(dialler, way(port, INSIDE))).startswith(f"{INSIDE} is an address of network home")
            assert not was_asked(inside)
            opened = way(port, INSIDE, opened=(Opened(prefix=f"{INSIDE}/32", ports=(port, port)),))
            (await dialler.connect(opened, None, None)).sock.close()
            assert was_asked(inside)
            assert not was_asked(outside)

        run(main)


@pytest.mark.parametrize("open_ports", [True, False])
def test_a_stream_that_comes_in_is_reset_and_nobody_is_asked(open_ports: bool) -> None:
    with both(socket.SOCK_STREAM) as (port, _, inside):

        async def main() -> None:
            opened = (Opened(prefix=f"{INSIDE}/32", ports=(port, port)),) if open_ports else ()
            entry = Entry(id="a", listen=(Listen(address=OUTSIDE),), way=way(port, INSIDE, opened=opened))
            async with running(entry) as server:
                place = server.status().entries[0].places[0].rpartition(":")[2]
                reader, writer = await asyncio.open_connection(OUTSIDE, int(place))
                try:
                    if open_ports:
                        (await asyncio.get_running_loop().sock_accept(inside))[0].close()
                        assert await reader.read() == b""
                    else:
                        with pytest.raises(ConnectionResetError):
                            await reader.read()
                        assert server.status().entries[0].refused == {"policy": 1}
                finally:
                    writer.close()
                    with contextlib.suppress(ConnectionError):
                        await writer.wait_closed()
            assert not was_asked(inside)

        run(main)


def test_a_service_whose_name_leads_there_is_unhealthy_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with both(socket.SOCK_STREAM) as (port, _, inside):

        async def main() -> None:
            names(monkeypatch, (INSIDE,))
            entry = Entry(id="a", listen=(Listen(address=OUTSIDE),), way=way(port), health=Health(every_s=60.0))
            async with running(entry) as server:
                (state,) = server.status().entries
                assert state.state == "unhealthy"
                assert f"{INSIDE} is an address of network home" in state.reason
            assert not was_asked(inside)

        run(main)


@contextlib.asynccontextmanager
async def asking(kind: str, to: Way) -> AsyncIterator[tuple[socket.socket, Callable[[], dict[str, int]]]]:
    """A client of an entry of UDP, and what that has refused."""
    entry = Entry(id="a", kind=kind, listen=(Listen(protocol="udp", address=OUTSIDE),), way=to)  # type: ignore[arg-type]
    async with running(entry) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            port = server.status().entries[0].places[0].rpartition(":")[2]
            client.connect((OUTSIDE, int(port)))
            yield client, lambda: server.status().entries[0].refused


READ = b"\0\1file\0octet\0"


@pytest.mark.parametrize("kind", ["plain", "tftp"])
@pytest.mark.parametrize("named", [True, False])
def test_datagrams_do_not_go_there_either(kind: str, named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with both(socket.SOCK_DGRAM) as (port, outside, inside):

        async def main() -> None:
            names(monkeypatch, (INSIDE,))
            loop = asyncio.get_running_loop()
            async with asking(kind, way(port, "target.example" if named else INSIDE)) as (client, refused):
                await loop.sock_sendall(client, READ)
                while not refused().get("policy"):
                    await asyncio.sleep(0.01)
            names(monkeypatch, (INSIDE, OUTSIDE))
            if named:
                async with asking(kind, way(port)) as (client, refused):
                    await loop.sock_sendall(client, READ)
                    assert await loop.sock_recv(outside, 100) == READ
            with pytest.raises(BlockingIOError):
                inside.recv(100)

        run(main)


# Later


def open_way(port: int) -> Way:
    return structs.replace(way(port), closed=())


async def received(sock: socket.socket) -> bytes:
    """What comes next; nothing when it was reset."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, 100)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("kind", ["plain", "ftp"])
@pytest.mark.parametrize("is_inside", [True, False])
def test_an_open_stream_ends_when_what_its_name_led_to_is_closed(
    kind: Literal["plain", "ftp"], is_inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with both(socket.SOCK_STREAM) as (port, outside, inside):

        async def main() -> None:
            loop = asyncio.get_running_loop()
            names(monkeypatch, (INSIDE if is_inside else OUTSIDE,))
            entry = Entry(id="a", kind=kind, listen=(Listen(address=OUTSIDE),), way=open_way(port))
            async with running(entry) as server:
                place = server.status().entries[0].places[0].rpartition(":")[2]
                with socket.create_connection((OUTSIDE, int(place)), LIMIT_S) as client:
                    client.setblocking(False)
                    target, _ = await loop.sock_accept(inside if is_inside else outside)
                    with target:
                        target.send(b"220 one\r\n")
                        assert await received(client) == b"220 one\r\n"
                        await server.configure(Config(entries=(structs.replace(entry, way=way(port)),)))
                        if is_inside:
                            assert await received(client) == b""
                        else:
                            await loop.sock_sendall(client, b"NOOP\r\n")
                            assert await received(target) == b"NOOP\r\n"

        run(main)


def test_a_stream_that_was_being_connected_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with both(socket.SOCK_STREAM) as (port, *_):

        async def main() -> None:
            names(monkeypatch, (INSIDE,))
            pump, dialler = Pump(), Dialler(HostSockets(), lambda: 0.0)
            try:
                tools = EntryTools("a", Shared(HostSockets(), pump, dialler, nobody, lambda: 0.0))
                tools.way = open_way(port)
                (await tools.connect(open_way(port), None)).sock.close()
                tools.way = way(port)
                with pytest.raises(Refused, match="leads to what was closed") as refused:
                    (await tools.connect(open_way(port), None)).sock.close()
                assert refused.value.reason == "policy"
            finally:
                pump.close()

        run(main)


@pytest.mark.parametrize("kind", ["plain", "tftp"])
def test_a_flow_ends_when_what_its_name_led_to_is_closed(
    kind: Literal["plain", "tftp"], monkeypatch: pytest.MonkeyPatch
) -> None:
    with both(socket.SOCK_DGRAM) as (port, _, inside):

        async def main() -> None:
            loop = asyncio.get_running_loop()
            names(monkeypatch, (INSIDE,))
            entry = Entry(id="a", kind=kind, listen=(Listen(protocol="udp", address=OUTSIDE),), way=open_way(port))
            async with running(entry) as server:
                place = server.status().entries[0].places[0].rpartition(":")[2]
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    client.setblocking(False)
                    client.connect((OUTSIDE, int(place)))
                    await loop.sock_sendall(client, READ)
                    assert await loop.sock_recv(inside, 100) == READ
                    await server.configure(Config(entries=(structs.replace(entry, limits=Limits(streams_max=7)),)))
                    assert server.status().entries[0].open == 1
                    await server.configure(Config(entries=(structs.replace(entry, way=way(port)),)))
                    assert server.status().entries[0].open == 0

        run(main)
