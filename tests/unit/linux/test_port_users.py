"""Who has a port, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address

import pytest

from warren.linux import port_users
from warren.linux.port_users import bound_at


def test_sockets_of_udp_are_there_once_they_are_bound() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.9", 0))
        port = one.getsockname()[1]
        two.bind(("127.0.0.10", port))
        assert bound_at(port, "udp") == {ip_address("127.0.0.9"), ip_address("127.0.0.10")}
        two.connect(("127.0.0.9", port))
        assert ip_address("127.0.0.10") in bound_at(port, "udp")
        assert bound_at(port, "tcp") == frozenset()


def test_sockets_of_tcp_are_there_once_they_listen() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::ffff:127.0.0.9", 0))
        port = sock.getsockname()[1]
        assert bound_at(port, "tcp") == frozenset()
        sock.listen()
        assert bound_at(port, "tcp") == {ip_address("127.0.0.9")}
        with socket.create_connection(("127.0.0.9", port)), sock.accept()[0]:
            assert bound_at(port, "tcp") == {ip_address("127.0.0.9")}


def test_the_unspecified_address_is_told_as_such() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))
        assert bound_at(sock.getsockname()[1], "udp") == {ip_address("::")}


def test_sockets_that_are_known_are_left_out_by_their_inodes() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.9", 0))
        port = one.getsockname()[1]
        two.bind(("::1", port))
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (one, two)]
        assert bound_at(port, "udp", inodes[:1]) == {ip_address("::1")}
        assert bound_at(port, "udp", inodes) == frozenset()


@pytest.mark.parametrize(
    "part",
    [
        struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -2),
        struct.pack("=IHHII", 16, 20, 0, 1, 0),
    ],
)
def test_what_the_kernel_refuses_is_an_error(part: bytes) -> None:
    with pytest.raises(OSError, match=r"\w"):
        port_users._read(part, 53, set())
