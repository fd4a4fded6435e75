"""Connections as the kernel lists and ends them."""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket, OperationFailed
from warren.linux import tcp_diag
from warren.linux.tcp_sockets import (
    KernelTcp,
    Opened,
    TcpSocket,
    connections_now,
    end_now,
    pack_sockets,
    sockets_untrusted,
)
from warren.model.tunnel import IPNetwork

AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root may end connections of others")


def connection(host: str, *, dual: bool = False) -> tuple[socket.socket, socket.socket]:
    """Who connects from 127.0.0.1 or ::1, and what was accepted at ``host``."""
    family = socket.AF_INET6 if dual or ":" in host else socket.AF_INET
    with socket.create_server(("::" if dual else host, 0), family=family, dualstack_ipv6=dual) as listener:
        source = "::1" if ":" in host else "127.0.0.1"
        client = socket.create_connection((host, listener.getsockname()[1]), 10, (source, 0))
        accepted = listener.accept()[0]
    accepted.settimeout(10)
    return client, accepted


def networks(*texts: str) -> list[IPNetwork]:
    return [ip_network(text) for text in texts]


def found_at(*texts: str, port: int) -> list[TcpSocket]:
    """The ends here of connections from the remote ``port``: other tests have connections, too."""
    return [one for one in connections_now(networks(*texts)) if one.ends[3] == port]


def mapped(host: str) -> bytes:
    return ip_address(host).packed if ":" in host else IPv6Address(f"::ffff:{host}").packed


@pytest.mark.parametrize(("host", "dual"), [("127.7.7.7", False), ("127.7.7.7", True), ("::1", False)])
def test_a_connection_is_found_by_its_own_address(host: str, dual: bool) -> None:
    client, accepted = connection(host, dual=dual)
    with client, accepted:
        port = client.getsockname()[1]
        here = f"{host}/{128 if ':' in host else 32}"
        many = [f"fd00:{number:x}::/32" for number in range(500)] + [f"10.{number}.0.0/16" for number in range(250)]
        for prefixes in ([here], [here, *many], [*many, here], ["127.7.0.0/16", "::/64"]):
            (found,) = found_at(*prefixes, port=port)
            assert found.family == (socket.AF_INET6 if dual or ":" in host else socket.AF_INET)
            assert found.ends == (
                mapped(host),
                mapped("::1" if ":" in host else "127.0.0.1"),
                accepted.getsockname()[1],
                port,
            )
        assert found_at(*many, "127.7.7.8/32", "127.0.0.1/32", "::2/128", port=port) == []
        assert connections_now([]) == []


def test_listeners_and_what_has_ended_are_not_found() -> None:
    with socket.create_server(("127.7.7.7", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        client.close()
        assert accepted.recv(1) == b""
        accepted.close()
        assert found_at("127.0.0.1/32", port=listener.getsockname()[1]) == []  # it waits for its name to be free
        assert all(one.ends[3] for one in connections_now(networks("127.0.0.0/8", "::/0")))


def test_too_many_prefixes_are_refused() -> None:
    prefixes = [ip_network((number << 96, 32)) for number in range(tcp_diag.PREFIXES_MAX + 1)]
    with pytest.raises(OperationFailed, match="1024 prefixes"):
        connections_now(prefixes)
    assert connections_now(prefixes[1:]) is not None


@AS_ROOT
@pytest.mark.parametrize(("host", "dual"), [("127.7.7.7", False), ("127.7.7.7", True), ("::1", False)])
def test_one_is_ended_and_no_other(host: str, dual: bool) -> None:
    client, accepted = connection(host, dual=dual)
    other, spared = connection(host, dual=dual)
    with client, accepted, other, spared:
        (found,) = found_at("127.7.7.7/32", "::1/128", port=client.getsockname()[1])
        assert asyncio.run(KernelTcp().end([found])) == 1
        with pytest.raises(ConnectionAbortedError):
            accepted.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert end_now([found, found]) == 0
        other.sendall(b"x")
        assert spared.recv(1) == b"x"


@AS_ROOT
def test_one_that_came_later_to_the_same_ports_is_not_meant() -> None:
    client, accepted = connection("127.7.7.7")
    with client, accepted:
        (found,) = found_at("127.7.7.7/32", port=client.getsockname()[1])
        mistaken = found._replace(id=found.id[:-8] + bytes((found.id[-8] ^ 1,)) + found.id[-7:])
        assert end_now([mistaken]) == 0
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"


@AS_ROOT
def test_many_are_ended_at_once() -> None:
    with socket.create_server(("127.7.7.7", 0), backlog=300) as listener:
        clients = [socket.create_connection(listener.getsockname()) for _ in range(200)]
        accepted = [listener.accept()[0] for _ in clients]
        port = listener.getsockname()[1]
        found = [one for one in connections_now(networks("127.7.7.7/32")) if one.ends[2] == port]
        assert len(found) == 200
        assert end_now(found) == 200
        for sock in (*clients, *accepted):
            sock.close()


SOCKETS = st.builds(
    TcpSocket,
    st.sampled_from([int(socket.AF_INET), int(socket.AF_INET6)]),
    st.binary(min_size=48, max_size=48).filter(lambda one: one[-8:] != b"\xff" * 8),
    st.sampled_from([Opened.UNTOLD, Opened.UNKNOWN, Opened.KNOWN]),
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
    st.integers(0, 65535),
)


@given(st.lists(SOCKETS, max_size=5))
def test_a_list_arrives_as_it_was_sent(sockets: list[TcpSocket]) -> None:
    assert sockets_untrusted(pack_sockets(sockets)) == sockets


@given(st.binary(max_size=300) | st.binary(min_size=84, max_size=84))
def test_any_bytes_are_a_list_or_malformed(data: bytes) -> None:
    try:
        found = sockets_untrusted(data)
    except MalformedPacket:
        return
    assert pack_sockets(found) == data


def test_what_would_mean_any_socket_is_malformed() -> None:
    for one in (
        TcpSocket(socket.AF_INET, bytes(40) + b"\xff" * 8),
        TcpSocket(socket.AF_UNIX, bytes(48)),
        TcpSocket(0, bytes(48)),
    ):
        with pytest.raises(MalformedPacket):
            sockets_untrusted(pack_sockets([one]))
