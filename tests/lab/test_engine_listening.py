"""A controller at a real data plane: its STUN, its relays, its sockets and its pins, between hosts of a lab."""

from __future__ import annotations

import asyncio
import random
import select
import shutil
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.floods import PACKETS_PER_S, SECONDS, flood, forged_sources
from tests.support.tunnels import INTERFACE, TunnelEnd, readdress, warren_end
from warren.engine.userspace.client import UserspaceEngine
from warren.identity.keys import PublicKey
from warren.lab import Host, Lab
from warren.lab.traffic import tcp_transfer
from warren.linux.udp import UdpSocket
from warren.model.datagrams import ControlDatagram, ControlEvent
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange, Way
from warren.proto.stun.message import Class, Method, encode
from warren.proto.turn.channel import channel_of_train, rechannel_train, wrap_train

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"),
]

LEFT, RIGHT = "10.77.0.1", "10.77.0.2"
PORT = 51820
PATIENCE_S = 40.0
MEGABYTE = 1 << 20
LEFT_CHANNEL, RIGHT_CHANNEL = 0x4001, 0x4002


def stun(number: int, size: int = 20) -> bytes:
    """A Binding request of ``size`` bytes, a multiple of four."""
    padding = [(0x0026, bytes(size - 24))] if size > 20 else []
    return encode(Method.BINDING, Class.REQUEST, number.to_bytes(12, "big"), padding)


def at(host: str, port: int = PORT) -> TransportAddress:
    return TransportAddress(ip_address(host), port)


# What runs on a host.


def configure(*peers: PeerChange) -> None:
    async def run() -> None:
        await (await UserspaceEngine.attach(INTERFACE)).configure(TunnelChange(peers=peers))

    asyncio.run(run())


def say(datagrams: list[ControlDatagram], answers: int = 0) -> list[ControlEvent]:
    """Listen, send ``datagrams``, and return what was heard once it is ``answers`` events."""

    async def run() -> list[ControlEvent]:
        heard: list[ControlEvent] = []
        port = await (await UserspaceEngine.attach(INTERFACE)).listen(heard.append)
        for datagram in datagrams:
            port.send(datagram)
        async with asyncio.timeout(PATIENCE_S):
            while len(heard) < answers:
                await asyncio.sleep(0.01)
        port.close()
        return heard

    return asyncio.run(run())


def listen_for_ever(ready: Path) -> None:
    """A controller that hears everything and does nothing."""

    async def run() -> None:
        await (await UserspaceEngine.attach(INTERFACE)).listen(lambda _: None)
        ready.touch()
        await asyncio.Event().wait()

    asyncio.run(run())


def hand_over_and_stay(ready: Path, peer: PublicKey, endpoint: TransportAddress) -> None:
    """A controller that moves the path to ``peer`` to a socket of its own."""

    async def run() -> None:
        engine = await UserspaceEngine.attach(INTERFACE)
        port = await engine.listen(lambda _: None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("0.0.0.0", 0))  # noqa: S104 - as the data plane's own
            number = port.hand_over(sock)
            own = sock.getsockname()[1]
        change = PeerChange(peer, endpoint=endpoint, way=Way(socket=number), pinned=True)
        await engine.configure(TunnelChange(peers=(change,)))
        ready.write_text(str(own))
        await asyncio.Event().wait()

    asyncio.run(run())


def echo(address: str) -> None:
    """Send every datagram back to where it came from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, PORT))
        while True:
            data, source = sock.recvfrom(65536)
            sock.sendto(data, source)


def forward(left: tuple[str, int], right: tuple[str, int]) -> None:
    """Carry ChannelData between two ends, whole trains at a time."""
    sock = UdpSocket.bound(socket.AF_INET, 3478, 0)
    buffer = bytearray(1 << 16)
    view = memoryview(buffer)
    while True:
        select.select([sock], [], [])
        while (received := sock.receive_into(buffer)) is not None:
            channel = channel_of_train(buffer, received.length, received.stride)
            out, channel = (right, RIGHT_CHANNEL) if channel == LEFT_CHANNEL else (left, LEFT_CHANNEL)
            rechannel_train(buffer, received.length, received.stride, channel)
            sock.send(view[: received.length], received.stride, out, b"", 0)


@pytest.fixture
def ends(lab: Lab) -> tuple[TunnelEnd, TunnelEnd]:
    """A pair that reaches each other directly."""
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.0.1/24", "10.9.0.2/24")
    left, right = warren_end(one, f"{LEFT}/24"), warren_end(two, f"{RIGHT}/24")
    left.peer(right, "endpoint", f"10.9.0.2:{PORT}")
    right.peer(left)
    assert left.ping(RIGHT)
    return left, right


def begin(host: Host, controller: Callable[..., None], *arguments: object) -> tuple[Path, Callable[[], None]]:
    """Run a controller; the file it says to be ready by, and how to kill it."""
    ready = host.directory / f"{controller.__name__}-ready"
    call = host.begin(controller, ready, *arguments)
    host.wait_for(ready.exists)
    return ready, call.cancel


def test_stun_leaves_from_the_wireguard_port_by_the_interface_that_is_named(lab: Lab) -> None:
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.1.1/24", "10.9.1.2/24", interfaces=("up1", "up1"))
    lab.link(one, two, "10.9.2.1/24", "10.9.2.2/24", interfaces=("up2", "up2"))
    # Both ways lead to the same address, and the routes prefer the first.
    two.ip("address add 192.0.2.2/32 dev lo")
    one.ip("route add 192.0.2.2 via 10.9.1.2 dev up1 metric 1", "route add 192.0.2.2 via 10.9.2.2 dev up2 metric 2")
    warren_end(one, f"{LEFT}/24")
    echoing = two.begin(echo, "192.0.2.2")
    indices = {name: int(one.run(["cat", f"/sys/class/net/{name}/ifindex"]).stdout) for name in ("up1", "up2")}
    two.wait_for(["sh", "-c", f"ss -Huln sport = :{PORT} | grep -q ."])
    ways = [Way(), Way(interface=indices["up2"]), Way(ip_address("10.9.2.1"), indices["up2"])]
    watched = {name: one.capture(name) for name in indices}
    events = one.call(say, [ControlDatagram(stun(n), at("192.0.2.2"), way) for n, way in enumerate(ways)], 3)
    echoing.cancel()
    heard = {event.data: event for event in events if isinstance(event, ControlDatagram)}
    assert {event.remote for event in heard.values()} == {at("192.0.2.2")}
    sources = [str(heard[stun(n)].way.source) for n in range(3)]
    assert sources == ["10.9.1.1", "10.9.2.1", "10.9.2.1"]
    assert {event.way.interface for event in heard.values()} <= set(indices.values())
    for number, name in enumerate(("up1", "up2", "up2")):
        sent = [packet for packet in watched[name].packets() if packet.endswith(stun(number))]
        assert any(packet[34:36] == PORT.to_bytes(2, "big") for packet in sent), "from the WireGuard port"


def test_a_relayed_pair_transfers_intact_both_ways(lab: Lab) -> None:
    one, relay, two = lab.host("one"), lab.host("relay"), lab.host("two")
    lab.link(one, relay, "10.9.1.1/24", "10.9.1.9/24")
    lab.link(two, relay, "10.9.2.2/24", "10.9.2.9/24", interfaces=("eth0", "eth1"))
    left, right = warren_end(one, f"{LEFT}/24"), warren_end(two, f"{RIGHT}/24")
    left.peer(right)
    right.peer(left)
    forwarding = relay.begin(forward, ("10.9.1.1", PORT), ("10.9.2.2", PORT))
    relay.wait_for(["sh", "-c", "ss -Huln sport = :3478 | grep -q ."])
    for end, other, server, channel in (
        (left, right, "10.9.1.9", LEFT_CHANNEL),
        (right, left, "10.9.2.9", RIGHT_CHANNEL),
    ):
        change = PeerChange(other.key.public_key(), endpoint=at(server, 3478), way=Way(channel=channel), pinned=True)
        end.host.call(configure, change)
    try:
        assert left.ping(RIGHT, count=3)
        assert right.ping(LEFT, size=4000)
        assert tcp_transfer(one, two, RIGHT, 8 * MEGABYTE + 3).intact
        assert tcp_transfer(two, one, LEFT, 8 * MEGABYTE + 5).intact
    finally:
        forwarding.cancel()
    for end in (left, right):
        counters = end.statistics()
        assert counters["roamed"] == counters["channel_data_malformed"] == counters["inner_no_room"] == 0
        assert counters["handshakes_completed"] == 1
    assert left.dump()[0][2] == "10.9.1.9:3478", "the stock wg shows the relay"


def test_a_pinned_peer_stays_put_until_the_controller_is_killed(ends: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = ends
    right.host.call(configure, PeerChange(left.key.public_key(), endpoint=at("10.9.0.1"), pinned=True))
    _, kill = begin(right.host, listen_for_ever)
    readdress(left.host, "10.9.0.1", "10.9.0.11")
    received = int(right.dump()[0][5])
    left.ping(RIGHT, wait_s=1)
    right.host.wait_for(lambda: int(right.dump()[0][5]) > received)
    assert right.endpoint() == f"10.9.0.1:{PORT}"
    kill()
    right.host.wait_for(lambda: left.ping(RIGHT, wait_s=1))
    assert right.endpoint() == f"10.9.0.11:{PORT}"


def test_a_session_moves_to_a_socket_that_was_handed_over_and_outlives_who_did(
    ends: tuple[TunnelEnd, TunnelEnd],
) -> None:
    left, right = ends
    ready, kill = begin(left.host, hand_over_and_stay, right.key.public_key(), at("10.9.0.2"))
    own = int(ready.read_text())
    assert own != PORT
    assert tcp_transfer(left.host, right.host, RIGHT, 4 * MEGABYTE + 1).intact
    assert right.endpoint() == f"10.9.0.1:{own}"
    kill()
    assert tcp_transfer(right.host, left.host, LEFT, 4 * MEGABYTE + 1).intact
    assert right.endpoint() == f"10.9.0.1:{own}"
    assert left.statistics()["handshakes_completed"] == right.statistics()["handshakes_completed"] == 1
    # The interface goes down and up: the socket of its own is still there.
    left.host.ip(f"link set {INTERFACE} down", f"link set {INTERFACE} up")
    left.host.wait_for(lambda: left.ping(RIGHT, wait_s=1))
    # Back at its own port nobody needs the socket; the next controller that ends leaves it closed.
    left.host.call(configure, PeerChange(right.key.public_key(), endpoint=at("10.9.0.2")))
    left.host.call(say, [])
    left.host.wait_for(["sh", "-c", f"! ss -Huln sport = :{own} | grep -q ."])
    assert left.ping(RIGHT)


def test_probes_that_must_not_be_fragmented_are_lost_at_a_bottleneck_and_others_are_not(lab: Lab) -> None:
    one, router, two = lab.host("one"), lab.router("router"), lab.host("two")
    lab.link(one, router, "10.9.1.1/24", "10.9.1.9/24", mtu=1500)
    lab.link(two, router, "10.9.2.2/24", "10.9.2.9/24", interfaces=("eth0", "eth1"), mtu=1300)
    one.ip("route add 10.9.2.0/24 via 10.9.1.9")
    two.ip("route add 10.9.1.0/24 via 10.9.2.9")
    warren_end(one, f"{LEFT}/24")
    warren_end(two, f"{RIGHT}/24")
    arrived = two.begin(say, [], 3)
    two.wait_for(lambda: _listens(two))
    fits, beyond, local = (size - 28 for size in (1300, 1304, 1504))
    probes = [
        ControlDatagram(stun(1, beyond), at("10.9.2.2"), dont_fragment=True),
        ControlDatagram(stun(2, local), at("10.9.2.2"), dont_fragment=True),
        ControlDatagram(stun(3, fits), at("10.9.2.2"), dont_fragment=True),
        ControlDatagram(stun(4, beyond), at("10.9.2.2")),
        ControlDatagram(stun(5, local), at("10.9.2.2")),
    ]
    one.call(say, probes)
    events = arrived.result(PATIENCE_S)
    assert [event.data for event in events if isinstance(event, ControlDatagram)] == [
        stun(3, fits),
        stun(4, beyond),
        stun(5, local),
    ]


def _listens(host: Host) -> bool:
    return "ESTAB" in host.run(["ss", "-Hxa", "src", f"/var/run/wireguard/{INTERFACE}.control"]).stdout


@pytest.mark.parametrize("listening", [False, True])
def test_a_flood_of_stun_and_channel_data_stops_no_data_and_is_answered_by_nothing(
    ends: tuple[TunnelEnd, TunnelEnd], lab: Lab, listening: bool
) -> None:
    left, right = ends
    attacker = lab.host("attacker")
    lab.link(attacker, left.host, "10.9.66.66/24", "10.9.66.1/24", interfaces=("eth0", "eth9"))
    left.host.ip("route add 198.18.0.0/15 via 10.9.66.66")
    if listening:
        begin(left.host, listen_for_ever)
    rng = random.Random(1)
    messages = [stun(n) for n in range(200)] + [wrap_train(stun(n), 20, LEFT_CHANNEL) for n in range(200)]
    packets = forged_sources(rng, messages, "10.9.66.1", PORT)
    capture = attacker.capture("eth0")
    flooding = attacker.begin(flood, "10.9.66.1", packets)
    try:
        assert tcp_transfer(right.host, left.host, LEFT, 8 * MEGABYTE).intact
        assert tcp_transfer(left.host, right.host, RIGHT, 8 * MEGABYTE).intact
        assert flooding.result(100) == PACKETS_PER_S * SECONDS
    finally:
        flooding.cancel()
    counters = left.statistics()
    assert counters["channel_data_refused"] > 0
    assert counters["control_limited" if listening else "control_unheard"] > 0
    assert left.ping(RIGHT, count=3)
    answers = [packet for packet in capture.packets() if packet[26:30] == bytes([10, 9, 66, 1]) and packet[23] == 17]
    assert answers == []
    assert max(log.read_text().count("\n") for log in lab.artifacts.glob("one-warren*.log")) < 100
