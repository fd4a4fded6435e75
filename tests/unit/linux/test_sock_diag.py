"""Whose a socket is, as the kernel says."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import pytest

from warren.linux.sock_diag import owner_of
from warren.model.tunnel import TransportAddress

BOTH = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
NOBODY = 65534


def place(sock: socket.socket) -> TransportAddress:
    host, port = sock.getsockname()[:2]
    return TransportAddress(ip_address(host), port)


def family_of(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def connection(host: str) -> tuple[socket.socket, socket.socket]:
    with socket.create_server((host, 0), family=family_of(host)) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        return client, listener.accept()[0]


@BOTH
def test_a_connection_is_of_who_made_it(host: str) -> None:
    client, accepted = connection(host)
    with client, accepted:
        assert owner_of(place(client), place(accepted)) == os.getuid()
        assert owner_of(TransportAddress(place(client).ip, 1), place(accepted)) is None
        client.shutdown(socket.SHUT_WR)  # its process still has it
        assert owner_of(place(client), place(accepted)) == os.getuid()


@BOTH
def test_a_connection_that_its_process_has_closed_is_nobodys_and_not_roots(host: str) -> None:
    with socket.create_server((host, 0), family=family_of(host)) as listener:
        client = socket.create_connection(listener.getsockname()[:2])
        local = place(client)
        client.sendall(b"said and gone")
        client.close()
        accepted, _ = listener.accept()
        with accepted:
            assert owner_of(local, place(accepted)) is None  # FIN-WAIT-2
        assert owner_of(local, place(listener)) is None  # TIME-WAIT, or over


@BOTH
@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize("wildcard", [False, True])
def test_a_udp_socket_is_found_by_whom_it_speaks_to(host: str, connected: bool, wildcard: bool) -> None:
    with (
        socket.socket(family_of(host), socket.SOCK_DGRAM) as relay,
        socket.socket(family_of(host), socket.SOCK_DGRAM) as client,
    ):
        relay.bind((host, 0))
        client.bind(("" if wildcard else host, 0))
        if connected:
            client.connect(relay.getsockname())
        local = TransportAddress(ip_address(host), place(client).port)
        assert owner_of(local, place(relay), "udp") == os.getuid()
        assert owner_of(TransportAddress(local.ip, 1), place(relay), "udp") is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give sockets away")
def test_a_socket_of_another_user_is_told_apart() -> None:
    client, accepted = connection("127.0.0.1")
    with client, accepted:
        try:
            os.fchown(client.fileno(), NOBODY, -1)
        except OSError:
            pytest.skip("there is no other user in this namespace")
        assert owner_of(place(client), place(accepted)) == NOBODY
        assert owner_of(place(accepted), place(client)) == os.getuid()
