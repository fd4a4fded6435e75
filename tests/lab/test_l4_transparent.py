"""A rootless node stands for a subnet behind it: TCP and UDP end in its nest and go on from its host."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from msgspec import structs

from tests.support.l4_nest import LAN, PORT, NestWorld, ask_tcp, ask_udp, behind, echo
from warren.lab import Lab

ROUTER = {"192.168.50.2": b"192.168.50.1 ", "fd50::2": b"fd50::1 "}
ECHO = 7777


@pytest.fixture
def world(lab: Lab) -> Iterator[NestWorld]:
    made = NestWorld(lab)
    try:
        yield made
    finally:
        made.close()


def test_tcp_and_udp_reach_what_is_behind_and_answers_come_from_there(world: NestWorld) -> None:
    assert [entry.state for entry in world.configure(*behind()).entries] == ["listening", "listening"]
    servers = [world.lan.begin(echo, address, ECHO) for address in LAN]
    for address in LAN:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        world.lan.wait_for(["sh", "-c", f"ss -Hlnu | grep -F '{address}' | grep -q :{ECHO}"])
        big = b"x" * 300_000
        assert ask_tcp(world.peer, address, ECHO, big) == ROUTER[address] + big
        with world.peer.socket(family, socket.SOCK_DGRAM) as one, world.peer.socket(family, socket.SOCK_DGRAM) as two:
            for number in range(3):  # the first by the listener, the others by the flow's own socket
                for sock in (one, two):
                    data = b"%d" % number
                    assert ask_udp(sock, address, ECHO, data) == (ROUTER[address] + data, (address, ECHO))
            assert ask_udp(one, address, ECHO, big[:5000])[0] == ROUTER[address] + big[:5000]
    tcp, udp = world.status().entries
    assert (tcp.opened, udp.opened, udp.open) == (2, 4, 4)
    assert not tcp.refused
    assert not udp.refused
    assert all(not server.is_over for server in servers)


def test_nothing_but_what_is_behind_is_gone_to(world: NestWorld) -> None:
    """Addresses of the router's own host, and the listener itself, are no way in."""
    world.configure(*behind())
    for address in ("10.99.0.2", "fd99::2"):  # the listener is on the nest's loopback
        with pytest.raises(OSError, match="refused"):
            ask_tcp(world.peer, address, PORT, b"")
    world.configure(*(structs.replace(one, allowed=("192.0.2.0/24",)) for one in behind()))
    with pytest.raises(OSError, match="reset"):
        ask_tcp(world.peer, LAN[0], ECHO, b"x")
    with world.peer.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (LAN[0], ECHO))
        world.peer.wait_for(lambda: world.status().entries[1].refused == {"policy": 1})
    assert world.status().entries[0].refused == {"policy": 1}
