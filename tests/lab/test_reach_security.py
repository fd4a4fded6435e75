"""A hostile relay: what it sees, and what it can do to those who use it (FAULTS A-RLY)."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.reach_lab import World
from warren.lab import Host, Lab

SECRET = b"nobody but Bob may read this line of text"
pytestmark = pytest.mark.timeout(300)


def two_behind_relays(lab: Lab) -> tuple[World, Host, Host]:
    """Alice and Bob with nothing between them but two relays, and a relayed path in use."""
    world = World(lab, relays=2)
    world.start()
    alice, bob = world.site("homea", "symmetric").host("alice"), world.site("homeb", "symmetric").host("bob")
    world.join(alice, bob)
    world.pings(alice, bob)
    world.wait_path(alice, bob, "relayed")
    # One of them over TLS is left for one over UDP, which the rules here are about.
    alice.wait_for(lambda: any(world.peer(alice, bob).get("relay") == host.name for host in world.relays), 60.0)
    return world, alice, bob


def used(world: World, alice: Host, bob: Host) -> Host:
    """The relay at which the path ends or begins."""
    place = world.peer(alice, bob)
    found = [one for one in world.relays if place.get("relay") == one.name]
    assert len(found) == 1, place
    return found[0]


def rule(host: Host, what: str) -> None:
    """Of what ``host`` sends by UDP as a relay."""
    host.nft(f"table inet hostile {{ chain out {{ type filter hook output priority 0;\n{what}\n}}\n}}")


CHANNEL_DATA = "udp sport 3478 @th,64,8 >= 0x40 @th,64,8 <= 0x4f"
WIREGUARD_IN_CHANNEL = f"{CHANNEL_DATA} @th,96,8 >= 1 @th,96,8 <= 4 @th,104,24 0"
WIREGUARD = "udp sport >= 49152 @th,64,8 >= 1 @th,64,8 <= 4 @th,72,24 0"


def test_a_relay_sees_no_plaintext(lab: Lab) -> None:
    world, alice, bob = two_behind_relays(lab)
    captures = [host.capture("eth0") for host in world.relays]
    with (
        bob.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver,
        alice.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((world.address(bob), 0))
        receiver.settimeout(20.0)
        for _ in range(10):
            sender.sendto(SECRET, receiver.getsockname())
            assert receiver.recv(2048) == SECRET
    sender.close()
    receiver.close()
    packets = [packet for capture in captures for packet in capture.packets()]
    assert sum(len(packet) > len(SECRET) for packet in packets) >= 10, "it did go by the relays"
    names = (b"alice", b"\xa3bob", b'"bob"')  # as msgpack and JSON have it: three letters alone occur in ciphertext
    assert not any(text in packet for packet in packets for text in (SECRET, *names))


def test_a_relay_that_swallows_everything_is_left_within_ten_seconds(lab: Lab) -> None:
    world, alice, bob = two_behind_relays(lab)
    stream = world.stream(alice, bob, 20.0)
    time.sleep(3.0)
    hostile, at = used(world, alice, bob), time.monotonic()
    rule(hostile, "udp sport { 3478, 49152-65535 } drop")
    assert stream.result().longest_gap_s(at) < 13.0  # ten, and what a busy machine takes
    assert used(world, alice, bob) is not hostile


def test_a_relay_that_carries_checks_and_swallows_packets_is_left(lab: Lab) -> None:
    world, alice, bob = two_behind_relays(lab)
    stream, back = world.stream(alice, bob, 40.0), world.stream(bob, alice, 40.0)
    time.sleep(3.0)
    hostile, at = used(world, alice, bob), time.monotonic()
    rule(hostile, f"{WIREGUARD_IN_CHANNEL} drop\n{WIREGUARD} drop")
    received = stream.result(), back.result()
    assert max(one.longest_gap_s(at) for one in received) > 2.0, "it did swallow them"
    assert max(one.longest_gap_s(at) for one in received) < 15.0
    assert all(max(one.at.values()) > at + 30.0 for one in received), "and it goes on"
    world.pings(alice, bob)
