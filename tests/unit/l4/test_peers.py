"""Who the clients of Caddy are."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from warren.l4 import peers
from warren.l4.config import Backend, Entry, Listen, Way
from warren.l4.kinds import Connected, Incoming, Refused
from warren.l4.peers import PeerTable
from warren.model.tunnel import TransportAddress


def client(address: str) -> TransportAddress:
    return TransportAddress(ip_address(address), 50000)


# The table


def test_a_connection_is_known_by_both_its_ports_until_it_is_forgotten() -> None:
    table = PeerTable()
    forget = table.remember(40000, 80, client("192.0.2.7"))
    table.remember(40000, 443, client("2001:db8::7"))
    assert str(table.client(40000, 80)) == "192.0.2.7"
    assert str(table.client(40000, 443)) == "2001:db8::7"
    assert table.client(40001, 80) is None
    forget()
    assert table.client(40000, 80) is None
    table.remember(40000, 80, client("192.0.2.8"))
    forget()
    assert str(table.client(40000, 80)) == "192.0.2.8"


def test_a_mapped_address_is_told_as_ipv4_and_a_program_of_this_host_as_loopback() -> None:
    table = PeerTable()
    table.remember(1, 80, client("::ffff:192.0.2.7"))
    table.remember(2, 80, None)
    assert str(table.client(1, 80)) == "192.0.2.7"
    assert str(table.client(2, 80)) == "127.0.0.1"


def test_one_source_has_so_many_and_others_still_come_in() -> None:
    table = PeerTable()
    forgets = [table.remember(port, 80, client(f"2001:db8::{port:x}")) for port in range(peers.PEERS_OF_ONE_SOURCE)]
    with pytest.raises(Refused) as refused:
        table.remember(60000, 80, client("2001:db8::ffff"))
    assert refused.value.reason == "streams"
    table.remember(60000, 80, client("2001:db8:0:1::"))
    forgets[0]()
    table.remember(60001, 80, client("2001:db8::ffff"))
    for forget in forgets:
        forget()
    assert len(table) == 2


def test_all_together_have_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_MAX", 3)
    table = PeerTable()
    for number in range(3):
        table.remember(number, 80, client(f"192.0.2.{number}"))
    with pytest.raises(Refused):
        table.remember(9, 80, client("192.0.2.9"))
    assert len(table) == 3


class Carried:
    idle_s: float | None = peers.REQUEST_IDLE_S


def test_a_connection_is_a_websocket_from_the_request_for_one_to_the_next_request() -> None:
    table = PeerTable()
    forget = table.remember(40000, 443, client("192.0.2.7"))
    stream = Carried()
    forget.carried(stream)
    table.remember(40001, 443, client("192.0.2.7"))
    seen = []
    for websocket in (False, True, True, False, True):
        assert str(table.asked(40000, 443, websocket=websocket)) == "192.0.2.7"
        seen.append((table.websockets(443), stream.idle_s))
    request, web = (0, peers.REQUEST_IDLE_S), (1, peers.WEBSOCKET_IDLE_S)
    assert seen == [request, web, web, request, web]
    assert table.websockets(80) == 0
    assert table.asked(1, 443, websocket=True) is None
    forget()
    forget()
    assert table.websockets(443) == 0


def test_whoever_has_many_websockets_is_one_client() -> None:
    table = PeerTable()
    forgets = []
    for number, ip in enumerate(("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.7")):
        forgets.append(table.remember(number, 443, client(ip)))
        table.asked(number, 443, websocket=True)
    assert table.websockets(443) == 2
    counts = []
    for forget in forgets:
        forget()
        counts.append(table.websockets(443))
    assert counts == [2, 2, 1, 0]
    assert not table._websockets


def test_who_is_to_leave_is_told_as_long_as_there_are_such_connections() -> None:
    table = PeerTable()
    table.leave(443)
    assert not table.is_left(443), "a later Caddy may have that port"
    forgets = [table.remember(port, 443, client("192.0.2.7")) for port in (1, 2)]
    table.leave(443)
    forgets[0]()
    assert table.is_left(443)
    assert not table.is_left(80)
    forgets[1]()
    table.remember(3, 443, client("192.0.2.7"))
    assert not table.is_left(443)


# Streams to Caddy


class FakeTools:
    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.sock: socket.socket | None = None

    async def connect(self, way: Way, client: TransportAddress | None, local: Any = None) -> Connected:
        self.sock = socket.create_connection(self.server.getsockname())
        return Connected(self.sock, way.backends[0])

    def carry(self, incoming: socket.socket, outgoing: socket.socket, *, ended: Any, **_: Any) -> None:
        self.ends.append(ended)


ENTRY = Entry(
    id="gateway *:80",
    kind="ended",
    listen=(Listen(port=80),),
    way=Way(backends=(Backend(name="caddy", side="host", host="127.0.0.1", port=1),)),
)


def test_a_stream_to_caddy_is_known_by_the_ports_that_caddy_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    table = PeerTable()
    monkeypatch.setattr(peers, "TABLE", table)
    tools = FakeTools()
    ours, theirs = socket.socketpair()

    async def scene() -> None:
        incoming = Incoming(ours, client("192.0.2.7"), None, ENTRY.listen[0])
        await peers.handle_ended(incoming, ENTRY, tools)  # type: ignore[arg-type]
        seen_by_caddy, peer = tools.server.accept()
        with seen_by_caddy:
            assert str(table.client(peer[1], tools.server.getsockname()[1])) == "192.0.2.7"

    with ours, theirs, tools.server:
        asyncio.run(scene())
        assert tools.sock is not None
        with tools.sock:
            tools.ends[0]()
    assert len(table) == 0


def test_a_stream_that_is_one_too_many_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_OF_ONE_SOURCE", 0)
    tools = FakeTools()
    ours, theirs = socket.socketpair()
    with ours, theirs, tools.server:
        with pytest.raises(Refused):
            asyncio.run(
                peers.handle_ended(Incoming(ours, client("192.0.2.7"), None, ENTRY.listen[0]), ENTRY, tools)  # type: ignore[arg-type]
            )
        assert tools.sock is not None
        assert tools.sock.fileno() == -1
