"""WireGuard keys of both ends change again and again under real traffic: not a datagram is lost, no stream breaks.

Protocol time runs forty times faster, so that sessions are also renewed with the new keys while the traffic runs.
"""

from __future__ import annotations

import random
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.tunnels import INTERFACE, TunnelEnd, private_key, warren_end
from warren.identity.keys import PrivateKey
from warren.lab import Call, Lab
from warren.lab.traffic import tcp_transfer, udp_series
from warren.model.tunnel import PeerChange, TunnelChange
from warren.proto import uapi

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"),
]

LEFT, RIGHT = "10.77.0.1", "10.77.0.2"
CLOCK_RATE = 40.0
ROUNDS = 10
PAUSE_S = (0.05, 0.3)
"""Between two steps of a rotation: at most 12 s of protocol time, and there are four steps."""


@pytest.fixture
def pair(lab: Lab) -> tuple[TunnelEnd, TunnelEnd]:
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.0.1/24", "10.9.0.2/24")
    left = warren_end(one, f"{LEFT}/24", clock_rate=CLOCK_RATE)
    right = warren_end(two, f"{RIGHT}/24", clock_rate=CLOCK_RATE)
    left.peer(right, "endpoint", "10.9.0.2:51820")
    right.peer(left, "endpoint", "10.9.0.1:51820")
    assert left.ping(RIGHT)
    return left, right


@contextmanager
def rotating(left: TunnelEnd, right: TunnelEnd, seed: int) -> Iterator[Call[None]]:
    """Both keys rotate :data:`ROUNDS` times in the background; at the end the ends have the last keys."""
    sockets = [f"/proc/{end.host.pid}/root/run/wireguard/{INTERFACE}.sock" for end in (left, right)]
    running = left.host.begin(_rotate, sockets, [left.host.name, right.host.name], seed)
    try:
        yield running
        running.result(60.0)
    finally:
        running.cancel()
    left.key, right.key = (_key(end.host.name, ROUNDS) for end in (left, right))


def _key(name: str, number: int) -> PrivateKey:
    return private_key(f"{name} {number}") if number else private_key(name)


def _rotate(sockets: list[str], names: list[str], seed: int) -> None:
    rng = random.Random(seed)
    for number in range(1, ROUNDS + 1):
        steps = []
        for end in (0, 1):
            key, old = _key(names[end], number), _key(names[end], number - 1).public_key()
            steps.append((end, TunnelChange(key, keep_sessions=True)))
            steps.append((1 - end, TunnelChange(peers=(PeerChange(key.public_key(), renamed_from=old),))))
        rng.shuffle(steps)
        for end, change in steps:
            _configure(sockets[end], change)
            time.sleep(rng.uniform(*PAUSE_S))


def _configure(path: str, change: TunnelChange) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(uapi.pack_change(change))
        answer = connection.recv(4096)
    if answer != b"errno=0\n\n":
        raise AssertionError(answer)


def assert_renewed(left: TunnelEnd, right: TunnelEnd) -> None:
    """Sessions were made with keys that did not exist at the start, and now both ends know each other's last one."""
    for end, other in ((left, right), (right, left)):
        assert [peer[0] for peer in end.dump()] == [other.key.public_key().base64]
        statistics = end.statistics()
        assert statistics["handshakes_completed"] >= 2
        assert statistics["staged_dropped"] == 0
        assert statistics["inner_spoofed"] == 0
    assert left.ping(RIGHT)
    assert right.ping(LEFT)


@pytest.mark.parametrize("way", ["there", "back"])
def test_not_a_datagram_is_lost_while_keys_rotate(pair: tuple[TunnelEnd, TunnelEnd], way: str) -> None:
    left, right = pair
    sender, receiver, address = (left, right, RIGHT) if way == "there" else (right, left, LEFT)
    with rotating(left, right, seed=1):
        series = udp_series(sender.host, receiver.host, address, count=7000, pause_s=0.001)
    assert series.received == 7000
    assert series.duplicates == 0
    assert_renewed(left, right)


def test_a_stream_goes_on_while_keys_rotate(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    with rotating(left, right, seed=3) as rotation:
        for _ in range(1000):
            assert tcp_transfer(left.host, right.host, RIGHT, 60 << 20, timeout=30).intact
            if rotation.is_done:
                break
    assert_renewed(left, right)
