"""Connections in a namespace of their own: how they were opened where addresses are translated, and those of a nest."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from warren.engine.rootless.calls import Line
from warren.engine.rootless.messages import Connections, EndConnections
from warren.engine.rootless.nest import Nest
from warren.errors import OperationFailed
from warren.lab import Host, Lab
from warren.linux.tcp_sockets import END_MAX, Opened, TcpSocket, connections_now, end_now, pack_sockets
from warren.model.tunnel import IPAddress

MEANT, LISTENING = 80, 8080
TRACKING = "table inet t { chain c { type filter hook prerouting priority 0; ct state established accept; }; }"
REDIRECT = """
table inet t {
    chain d { type nat hook output priority -100; tcp dport 80 redirect to :8080; }
}
"""


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("host")


def opened(address: str, port: int, at: int) -> tuple[int, IPAddress, IPAddress, int]:
    """How it was opened, says the kernel, when somebody connects to ``port`` and is accepted at ``at``; and whether it
    was ended.
    """
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = stack.enter_context(socket.create_server((address, at), family=family))
        client = stack.enter_context(socket.create_connection((address, port), 10))
        accepted = stack.enter_context(listener.accept()[0])
        found = connections_now([ip_network(address)])
        (one,) = [one for one in found if one.ends[2] == at]
        assert end_now([one]) == 1
        with pytest.raises(ConnectionAbortedError):
            accepted.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    return one.opened, _address(one.source), _address(one.destination), one.port


def _address(raw: bytes) -> IPAddress:
    six = IPv6Address(raw)
    return six.ipv4_mapped or six


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_it_was_opened_to_the_port_that_was_meant_not_to_where_the_host_redirects(host: Host, address: str) -> None:
    ip = ip_address(address)
    assert host.call(opened, address, LISTENING, LISTENING)[0] == Opened.UNKNOWN  # nothing is tracked
    host.nft(TRACKING)
    assert host.call(opened, address, LISTENING, LISTENING) == (Opened.KNOWN, ip, ip, LISTENING)
    host.nft(REDIRECT)
    assert host.call(opened, address, MEANT, LISTENING) == (Opened.KNOWN, ip, ip, MEANT)


def in_a_nest(run: Path) -> None:
    asyncio.run(_in_a_nest(run))


async def _in_a_nest(run: Path) -> None:
    nest = await Nest.start(run)
    try:
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(await nest.sockets.open(socket.AF_INET6, socket.SOCK_STREAM))
            listener.bind(("::1", LISTENING))
            listener.listen()
            ends = []
            for _ in range(2):
                client = stack.enter_context(await nest.sockets.open(socket.AF_INET6, socket.SOCK_STREAM))
                await asyncio.get_running_loop().sock_connect(client, ("::1", LISTENING))
                ends.append((client, stack.enter_context(listener.accept()[0])))
            found = [one for one in await nest.tcp.connections([ip_network("::1")]) if one.ends[2] == LISTENING]
            assert len(found) == 2
            assert await nest.tcp.connections([ip_network("fd00::/8")]) == []
            (mine,) = [one for one in found if one.ends[3] == ends[0][0].getsockname()[1]]
            assert end_now([mine]) == 0  # outside there is no such connection
            assert await nest.tcp.end([mine]) == 1
            assert await nest.tcp.end([mine]) == 0
            with pytest.raises(ConnectionAbortedError):
                ends[0][1].recv(1)
            ends[1][0].send(b"x")
            assert await asyncio.get_running_loop().sock_recv(ends[1][1], 1) == b"x"
            await _refuses(nest, mine)
    finally:
        await nest.close()


async def _refuses(nest: Nest, one: TcpSocket) -> None:
    line = Line(nest.path)
    try:
        for request, said in (
            (EndConnections(pack_sockets([one] * (END_MAX + 1))), "more than 4096"),
            (EndConnections(b"nonsense"), "no list of connections"),
            (EndConnections(pack_sockets([one._replace(id=one.id[:40] + b"\xff" * 8)])), "no connection"),
            (Connections(("nonsense",)), "not an address"),
            (Connections(tuple(f"fd00:{number:x}::/32" for number in range(1100))), "more than 1024"),
        ):
            with pytest.raises(OperationFailed, match=said):
                await line.ask(request)
    finally:
        line.close()
    assert (await nest.tcp.connections([ip_network("::1")])) != []


def test_those_of_a_nest_are_listed_and_ended_by_its_helper_within_bounds(host: Host) -> None:
    run = host.directory / "run"
    run.mkdir(mode=0o700)
    host.call(in_a_nest, run)
