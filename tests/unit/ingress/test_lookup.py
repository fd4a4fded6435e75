"""What the stream process says of Caddy's connections, and what its silence means."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.ingress import lookup
from warren.ingress.lookup import Lookup
from warren.ingress.sites import Ports
from warren.l4.peer_lookup import PeerLookup
from warren.l4.peers import PeerTable
from warren.model.tunnel import TransportAddress

PORTS = Ports(8080, 8443)
CLIENT, OTHER = (TransportAddress(ip_address(f"192.0.2.{number}"), 5000) for number in (7, 8))


def run(scene: Callable[[Path], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory) / "peers.sock"))  # type: ignore[arg-type]


def test_clients_with_websockets_at_both_ports_are_counted_and_the_others_led_away() -> None:
    async def scene(path: Path) -> None:
        table = PeerTable()
        answering = PeerLookup(path, table)
        await answering.start()
        for port in (1, 2, 3):
            for server in (PORTS.http, PORTS.https):
                table.remember(port, server, OTHER if port == 2 else CLIENT)
        for port, server in ((1, PORTS.http), (1, PORTS.https), (2, PORTS.https)):
            table.asked(port, server, websocket=True)
        asking = Lookup(path)
        assert await asking.websockets(PORTS) == 3
        assert await asking.websockets(Ports(1, 2)) == 0
        await asking.leave(PORTS)
        assert table.is_left(PORTS.http)
        assert table.is_left(PORTS.https)
        await answering.close()

    run(scene)


def test_where_no_stream_process_is_there_are_no_connections() -> None:
    async def scene(path: Path) -> None:
        assert await Lookup(path).websockets(PORTS) == 0
        await Lookup(path).leave(PORTS)

    run(scene)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 No\r\n\r\n"])
def test_one_that_does_not_say_it_may_have_some(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "ANSWER_WITHIN_S", 0.1)

    async def scene(path: Path) -> None:
        over = asyncio.Event()

        async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await over.wait()
            writer.transport.abort()

        server = await asyncio.start_unix_server(silent, path)
        assert await Lookup(path).websockets(PORTS) is None
        await Lookup(path).leave(PORTS)
        over.set()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    run(scene)
