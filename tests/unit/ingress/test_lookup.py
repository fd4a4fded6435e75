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

PORTS = Ports(8080, 8443)
CLIENT, OTHER = ip_address("192.0.2.7"), ip_address("198.51.100.8")


def run(scene: Callable[[Path], Awaitable[None]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory) / "peers.sock"))  # type: ignore[arg-type]


def test_clients_with_websockets_at_both_ports_are_counted() -> None:
    async def scene(path: Path) -> None:
        table = PeerTable()
        answering = PeerLookup(path, table)
        await answering.start()
        for number, client in enumerate((CLIENT, OTHER, CLIENT)):
            for server in (PORTS.http, PORTS.https):
                table.remember(f"{number} {server}", server, client)
        for name in (f"0 {PORTS.http}", f"0 {PORTS.https}", f"1 {PORTS.https}"):
            table.became_websocket(name)
        asking = Lookup(path)
        assert await asking.websockets(PORTS) == 3
        assert await asking.websockets(Ports(1, 2)) == 0
        await answering.close()

    run(scene)


def test_where_no_stream_process_is_there_are_no_connections() -> None:
    async def scene(path: Path) -> None:
        assert await Lookup(path).websockets(PORTS) == 0

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
        over.set()
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)

    run(scene)
