"""Who the clients of Caddy are."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from warren.l4 import peers
from warren.l4.config import Backend, Entry, Listen, Way
from warren.l4.kinds import Incoming, Refused
from warren.l4.peers import PeerTable
from warren.model.tunnel import TransportAddress


def client(address: str) -> TransportAddress:
    return TransportAddress(ip_address(address), 50000)


# The table


def test_a_connection_counts_until_it_is_over() -> None:
    table = PeerTable()
    over = table.remember("a", 443, ip_address("192.0.2.7"))
    table.remember("b", 443, ip_address("192.0.2.7"))
    over()
    over()
    assert len(table) == 1
    assert not table.became_websocket("a")


def test_one_source_has_so_many_and_others_still_come_in() -> None:
    table = PeerTable()
    overs = [
        table.remember(f"{number}", 80, ip_address(f"2001:db8::{number:x}"))
        for number in range(peers.PEERS_OF_ONE_SOURCE)
    ]
    with pytest.raises(Refused) as refused:
        table.remember("one more", 80, ip_address("2001:db8::ffff"))
    assert refused.value.reason == "streams"
    table.remember("another", 80, ip_address("2001:db8:0:1::"))
    overs[0]()
    table.remember("instead", 80, ip_address("2001:db8::ffff"))
    for over in overs:
        over()
    assert len(table) == 2


def test_all_together_have_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_MAX", 3)
    table = PeerTable()
    for number in range(3):
        table.remember(f"{number}", 80, ip_address(f"192.0.2.{number}"))
    with pytest.raises(Refused):
        table.remember("9", 80, ip_address("192.0.2.9"))
    assert len(table) == 3


class Carried:
    idle_s: float | None = peers.REQUEST_IDLE_S


def test_a_connection_is_a_websocket_from_when_the_site_has_agreed_to_its_end() -> None:
    table = PeerTable()
    over = table.remember("a", 443, ip_address("192.0.2.7"))
    stream = Carried()
    over.carried(stream)
    table.remember("b", 443, ip_address("192.0.2.7"))
    assert (table.websockets(443), stream.idle_s) == (0, peers.REQUEST_IDLE_S)
    for _ in range(2):
        assert table.became_websocket("a")
        assert (table.websockets(443), stream.idle_s) == (1, peers.WEBSOCKET_IDLE_S)
    assert table.websockets(80) == 0
    assert not table.became_websocket("c")
    over()
    over()
    assert table.websockets(443) == 0


def test_whoever_has_many_websockets_is_one_client() -> None:
    table = PeerTable()
    overs = []
    for ip in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.7", "192.0.2.200", "192.0.3.7"):
        overs.append(table.remember(ip, 443, ip_address(ip)))
        table.became_websocket(ip)
    assert table.websockets(443) == 3
    counts = []
    for over in overs:
        over()
        counts.append(table.websockets(443))
    assert counts == [3, 3, 2, 2, 1, 0]
    assert not table._websockets


# Streams to Caddy


class Caddy:
    """Its Unix socket, and what is used of the tools of an entry."""

    def __init__(self, directory: Path, backlog: int = 16) -> None:
        self.path = directory / "caddy.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.fspath(self.path))
        self.listener.listen(backlog)
        self.ends: list[Any] = []
        self.carried: list[socket.socket] = []

    def carry(self, incoming: socket.socket, outgoing: socket.socket, *, ended: Any, **_: Any) -> None:
        self.ends.append(ended)
        self.carried.append(outgoing)

    def entry(self, **way: Any) -> Entry:
        backend = Backend(name="caddy", side="host", port=8080, path=str(self.path))
        return Entry(id="gateway *:80", kind="ended", listen=(Listen(port=80),), way=Way(backends=(backend,), **way))

    async def take(self, ip: str | None, **way: Any) -> None:
        entry = self.entry(**way)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            incoming = Incoming(ours, None if ip is None else client(ip), None, entry.listen[0])
            await peers.handle_ended(incoming, entry, self)  # type: ignore[arg-type]

    def close(self) -> None:
        self.listener.close()
        for sock in self.carried:
            sock.close()
        for ended in self.ends:
            ended()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> PeerTable:
    table = PeerTable()
    monkeypatch.setattr(peers, "TABLE", table)
    return table


@pytest.fixture
def caddy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caddy]:
    with tempfile.TemporaryDirectory() as directory:  # a short path, for sockets
        made = Caddy(Path(directory), backlog=0)
        yield made
        made.close()


@pytest.mark.parametrize(
    ("ip", "shown"),
    [
        ("192.0.2.7", b"192.0.2.7"),
        ("2001:db8::7", b"2001:db8::7"),
        ("::ffff:192.0.2.7", b"192.0.2.7"),
        (None, b"127.0.0.1"),
    ],
)
def test_caddy_sees_the_clients_address_and_a_nonce_in_the_name_of_the_socket(
    ip: str | None, shown: bytes, table: PeerTable, caddy: Caddy
) -> None:
    asyncio.run(caddy.take(ip))
    accepted, name = caddy.listener.accept()
    accepted.close()
    match = re.fullmatch(rb"\0([0-9a-f.:]+)/([0-9a-f]{16})", name)
    assert match is not None
    assert match[1] == shown
    assert table.became_websocket(match[2].decode())
    assert table.websockets(8080) == 1
    caddy.ends.pop()()
    assert len(table) == 0


def test_a_stream_that_is_one_too_many_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch, table: PeerTable, caddy: Caddy
) -> None:
    monkeypatch.setattr(peers, "PEERS_OF_ONE_SOURCE", 0)
    with pytest.raises(Refused):
        asyncio.run(caddy.take("192.0.2.7"))
    assert caddy.carried == []


def test_a_caddy_that_is_not_there_is_told_and_nothing_is_remembered(table: PeerTable, caddy: Caddy) -> None:
    caddy.path.unlink()
    with pytest.raises(Refused, match="there is no socket caddy") as refused:
        asyncio.run(caddy.take("192.0.2.7"))
    assert refused.value.reason == "connect"
    assert len(table) == 0


def test_a_caddy_whose_queue_is_full_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, table: PeerTable, caddy: Caddy
) -> None:
    monkeypatch.setattr(peers, "QUEUE_FULL_S", 0.001)

    async def scene() -> None:
        await caddy.take("192.0.2.7")
        with pytest.raises(Refused) as refused:
            await caddy.take("192.0.2.8", connect_timeout_s=0.05)
        assert refused.value.reason == "timeout"
        assert len(table) == 1
        late = asyncio.create_task(caddy.take("192.0.2.9", connect_timeout_s=60.0))
        await asyncio.sleep(0)
        accepted, _ = caddy.listener.accept()
        accepted.close()
        async with asyncio.timeout(30):
            await late
        assert len(table) == 2

    asyncio.run(scene())
