"""Forwards of UDP between a host and the overlay of a rootless node, by the real stream process."""

from __future__ import annotations

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.l4_nest import LAN, NEST, PEER, NestWorld, ask_udp, echo
from warren.l4.config import Backend, Entry, Health, Limits, Listen, Way
from warren.lab import Lab

ECHO = 7777


@pytest.fixture
def world(lab: Lab) -> Iterator[NestWorld]:
    made = NestWorld(lab)
    try:
        for host, addresses in ((made.peer, PEER), (made.lan, LAN)):
            for address in addresses:
                host.begin(echo, address, ECHO)
                host.wait_for(["sh", "-c", f"ss -Hlnu | grep -F '{address}' | grep -q :{ECHO}"])
        yield made
    finally:
        made.close()


def forward(name: str, listen: Listen, side: str, host: str, limits: Limits | None = None) -> Entry:
    backend = Backend(name=host, side="overlay" if side == "overlay" else "host", host=host, port=ECHO)
    return Entry(id=name, listen=(listen,), way=Way(backends=(backend,)), limits=limits or Limits())


def inwards(number: int, address: str, backend: str) -> Entry:
    return forward(f"in {number}", Listen(protocol="udp", address=address, port=6000 + number), "overlay", backend)


def test_both_ways_between_all_ip_versions(world: NestWorld) -> None:
    pairs = [(outside, inside) for outside in ("127.0.0.1", "::1") for inside in PEER]
    outwards = [(outside, inside) for outside in NEST for inside in LAN]
    world.configure(
        *(inwards(number, *pair) for number, pair in enumerate(pairs)),
        *(
            forward(f"out {n}", Listen(side="overlay", protocol="udp", address=a, port=6000 + n), "host", b)
            for n, (a, b) in enumerate(outwards)
        ),
    )
    router = {"192.168.50.2": b"192.168.50.1 ", "fd50::2": b"fd50::1 "}
    for number, (outside, inside) in enumerate(pairs):
        with world.router.socket(family_of(outside), socket.SOCK_DGRAM) as sock:
            for data in (b"question", b"", b"x" * 9000):
                seen = NEST[PEER.index(inside)].encode() + b" "
                assert ask_udp(sock, outside, 6000 + number, data) == (seen + data, (outside, 6000 + number))
    for number, (outside, inside) in enumerate(outwards):
        with world.peer.socket(family_of(outside), socket.SOCK_DGRAM) as sock:
            answer = ask_udp(sock, outside, 6000 + number, b"question")
            assert answer == (router[inside] + b"question", (outside, 6000 + number))


def test_a_thousand_flows_get_their_own_answers_and_live_on_without_the_helper(world: NestWorld) -> None:
    world.configure(inwards(0, "127.0.0.1", PEER[1]))
    with clients(world, 1000) as socks:
        assert exchange(socks, b"first") == 1000
        (state,) = world.status().entries
        assert (state.open, state.opened, state.refused) == (1000, 1000, {})
        os.kill(world.pid, signal.SIGKILL)
        assert exchange(socks, b"second") == 1000


def test_a_flood_of_flows_stays_below_its_ceiling(world: NestWorld) -> None:
    listen = Listen(protocol="udp", address="127.0.0.1", port=6000)
    world.configure(forward("in", listen, "overlay", PEER[0], Limits(streams_max=50)))
    with clients(world, 300) as socks:
        exchange(socks, b"flood")
    (state,) = world.status().entries
    assert state.open == 50
    assert state.opened >= 300


def test_a_rate_holds_until_there_is_another(world: NestWorld) -> None:
    listen = Listen(protocol="udp", address="127.0.0.1", port=6000)
    world.configure(forward("in", listen, "overlay", PEER[0], Limits(rate=0.1)))
    with clients(world, 100) as socks:
        for sock in socks:
            sock.sendto(b"x", ("127.0.0.1", 6000))
        world.router.wait_for(lambda: world.status().entries[0].refused.get("rate", 0) >= 89)
    refused = world.status().entries[0].refused["rate"]
    assert refused <= 90  # a burst of ten, and perhaps one more meanwhile
    world.configure(forward("in", listen, "overlay", PEER[0], Limits(rate=1000.0)))
    with clients(world, 100) as socks:
        assert exchange(socks, b"allowed") == 100
    assert world.status().entries[0].refused["rate"] == refused


def test_a_target_that_is_not_there_is_known_by_icmp_and_found_when_it_comes(world: NestWorld) -> None:
    lan = LAN[1]
    backend = Backend(name="late", side="host", host=lan, port=ECHO + 1)
    listen = Listen(side="overlay", protocol="udp", address=NEST[0], port=6000)
    world.configure(Entry(id="out", listen=(listen,), way=Way(backends=(backend,)), health=Health(every_s=1)))
    world.router.wait_for(lambda: world.status().entries[0].state == "unhealthy")
    (state,) = world.status().entries
    assert (state.places, state.reason) == ((), "late takes no datagrams: is the program there running?")
    world.lan.begin(echo, lan, ECHO + 1)
    world.router.wait_for(lambda: world.status().entries[0].state == "listening")
    with world.peer.socket(family_of(NEST[0]), socket.SOCK_DGRAM) as sock:
        assert ask_udp(sock, NEST[0], 6000, b"question")[0].endswith(b" question")


@contextmanager
def clients(world: NestWorld, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(world.router.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]


def exchange(socks: list[socket.socket], word: bytes) -> int:
    """How many get back what they said, each something else; twenty at a time, as queues are short."""
    right = 0
    with selectors.DefaultSelector() as selector:
        for number, sock in enumerate(socks):
            sock.setblocking(False)
            sock.sendto(word + b"%d" % number, ("127.0.0.1", 6000))
            selector.register(sock, selectors.EVENT_READ, word + b"%d" % number)
            while len(selector.get_map()) > (20 if number + 1 < len(socks) else 0):
                ready = selector.select(20)
                if not ready:
                    return right
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    right += key.fileobj.recv(2000).partition(b" ")[2] == key.data
                    selector.unregister(key.fileobj)
    return right


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
