"""The relay on hosts of its own: what strangers get out of it, and how users share it (FAULTS A-AMP, A-REL, F-RBR)."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.floods import PACKETS_PER_S, SECONDS, flood, forged_sources
from tests.support.packets import udp_packet
from tests.support.turn_clients import TurnAsker, error_of, place, send_indication
from warren.lab import Host, Lab, Process
from warren.proto.stun.attributes import pack_requested_transport
from warren.proto.stun.message import Attribute, Class, Method, encode

pytestmark = pytest.mark.lab

RELAY, CLIENT, PEER, ATTACKER = "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.66"
PORT = 3478
MEGABYTE = 1 << 20
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_FRAME_BYTES = 42  # Ethernet, IPv4, UDP
_QUIET_S = 1.0

CONFIG = """
secrets = ["{secret}"]
tcp_port = 3478
[users]
u = "p"
v = "q"
w = "r"
[peers]
allow = ["10.9.0.0/16"]
[limits]
total_mbit_s = {total}
"""


@dataclass
class Scene:
    lab: Lab
    relay: Host
    client: Host
    peer: Host
    attacker: Host
    process: Process

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024


def start(lab: Lab, total_mbit_s: int = 0) -> Scene:
    lan = lab.bridge("lan")
    hosts = []
    for name, address in (("relay", RELAY), ("client", CLIENT), ("peer", PEER), ("attacker", ATTACKER)):
        host = lab.host(name)
        lab.attach(host, lan, f"{address}/24")
        hosts.append(host)
    relay, client, peer, attacker = hosts
    # Forged sources lie in a range that answers can be routed to, or the relay would only lose them by itself.
    relay.run(["ip", "route", "add", "198.18.0.0/15", "via", ATTACKER])
    config = relay.directory / "relay.toml"
    config.write_text(CONFIG.format(secret="0123456789abcdef", total=total_mbit_s))
    command = [sys.executable, "-m", "warren", "relay", "run", "--config", str(config)]
    process = relay.start([*command, "--state", str(relay.directory)], name="relay")
    relay.wait_for(lambda: "relaying at" in process.log.read_text())
    return Scene(lab, relay, client, peer, attacker, process)


@pytest.fixture
def scene(lab: Lab) -> Scene:
    return start(lab)


# What strangers get


def unproven_messages() -> dict[str, bytes]:
    """Every kind of message by which somebody who proves nothing could be answered, as short as it can be."""
    transport = (int(Attribute.REQUESTED_TRANSPORT), pack_requested_transport())
    name = (int(Attribute.USERNAME), b"u")
    realm = (int(Attribute.REALM), b"warren")
    nonce = (int(Attribute.NONCE), b"n")
    key = bytes(16)
    made = {
        "binding": encode(Method.BINDING, Class.REQUEST, bytes(12)),
        "binding with something unknown": encode(Method.BINDING, Class.REQUEST, bytes(12), [(0x7777, b"")]),
        "allocate": encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [transport]),
        "empty allocate": encode(Method.ALLOCATE, Class.REQUEST, bytes(12)),
        "refresh": encode(Method.REFRESH, Class.REQUEST, bytes(12)),
        "permission": encode(Method.CREATE_PERMISSION, Class.REQUEST, bytes(12)),
        "channel": encode(Method.CHANNEL_BIND, Class.REQUEST, bytes(12)),
        "send": encode(Method.SEND, Class.INDICATION, bytes(12), [(Attribute.DATA, b"x")]),
        "unknown method": encode(0x123, Class.REQUEST, bytes(12)),
        "response": encode(Method.BINDING, Class.SUCCESS, bytes(12)),
        "channel data": b"\x40\0\0\4abcd",
        "garbage": b"\xff" * 20,
        "half a proof": encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [transport, name], key=key),
        "a nonce of nobody": encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [name, realm, nonce], key=key),
        "wireguard": b"\1\0\0\0" + bytes(144),
    }
    return {**made, "old binding": b"\0\1\0\0" + bytes(16)}


def ask_often(messages: dict[str, bytes], times: int) -> dict[str, tuple[int, int]]:
    """Bytes out and in for each kind, each kind from a socket of its own."""
    measured = {}
    for name, message in messages.items():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((RELAY, PORT))
            sock.setblocking(False)
            answered = 0
            for number in range(times):
                sock.send(message)
                if number % 20 == 0:
                    time.sleep(0.001)
                answered += _received(sock)
            time.sleep(0.2)
            measured[name] = times * len(message), answered + _received(sock)
    return measured


def _received(sock: socket.socket) -> int:
    total = 0
    while True:
        try:
            total += len(sock.recv(65536))
        except (BlockingIOError, ConnectionRefusedError):
            return total


def test_who_proves_nothing_gets_no_more_than_he_sent(scene: Scene) -> None:
    measured = scene.attacker.call(ask_often, unproven_messages(), 600, timeout=60)
    assert len(measured) >= 15
    ratios = {name: back / sent for name, (sent, back) in measured.items()}
    assert {name: ratio for name, ratio in ratios.items() if ratio > 1.0} == {}
    assert ratios["binding"] > 0, "it does answer"


def test_a_flood_of_forged_sources_is_answered_little_and_kept_nothing_of(scene: Scene) -> None:
    rng = random.Random(1)
    messages = [
        encode(
            Method.ALLOCATE,
            Class.REQUEST,
            rng.randbytes(12),
            [(Attribute.REQUESTED_TRANSPORT, pack_requested_transport())],
        )
        for _ in range(500)
    ]
    before = scene.resident_bytes()
    capture = scene.attacker.capture("eth0")
    flooding = scene.attacker.begin(flood, RELAY, forged_sources(rng, messages, RELAY, PORT))
    try:
        round_trip = scene.client.call(talk, 40, timeout=100)
        assert flooding.result(100) == PACKETS_PER_S * SECONDS
    finally:
        flooding.cancel()
    capture.stop()
    assert round_trip == 40, "who is let in works on"
    answers = [packet for packet in capture.packets() if packet[23:24] == b"\x11" and packet[34:36] == b"\x0d\x96"]
    answered = sum(len(packet) - _FRAME_BYTES for packet in answers)
    assert answered <= PACKETS_PER_S * SECONDS * 28
    assert scene.resident_bytes() - before < 16 * MEGABYTE


def talk(times: int) -> int:
    """Send to oneself through the relay, a little at a time; how often that came back."""
    client = Client("u")
    relayed = client.relayed()
    client.bind(0x4001, relayed)
    client.sock.settimeout(1)
    came = 0
    for number in range(times):
        came += any(_comes_back(client.sock, struct.pack("!HHI", 0x4001, 4, number)) for _ in range(5))
        time.sleep(0.05)
    return came


def _comes_back(sock: socket.socket, data: bytes) -> bool:
    sock.send(data)
    try:
        while sock.recv(2048) != data:
            pass  # an earlier one, late
    except TimeoutError:
        return False
    return True


def test_a_spoofed_source_moves_nobody(scene: Scene) -> None:
    """FAULTS F-RBR: data and requests with a client's address and the wrong port, or a forged proof, change nothing."""
    sink = listening_at(scene.peer, 7000)
    client_port, relayed_port = scene.client.call(hold_and_send, 7000)
    peer = place(PEER, 7000)
    forged_refresh = encode(
        Method.REFRESH,
        Class.REQUEST,
        bytes(12),
        [
            (Attribute.LIFETIME, bytes(4)),
            (Attribute.USERNAME, b"u"),
            (Attribute.REALM, b"warren"),
            (Attribute.NONCE, b"n"),
        ],
        key=b"not the key",
    )
    packets = []
    for port in (client_port, client_port + 1):
        source = (CLIENT, RELAY)
        packets.append(udp_packet(*source, forged_refresh, (port, PORT)))
        if port != client_port:
            packets.append(udp_packet(*source, b"\x40\1\0\6stolen", (port, PORT)))
            packets.append(udp_packet(*source, send_indication(peer, b"stolen"), (port, PORT)))
    packets.append(udp_packet(ATTACKER, RELAY, b"\x40\1\0\6stolen", (client_port, PORT)))
    scene.attacker.call(send_raw, packets * 5)
    came = everything_that_comes(sink, 30.0)
    assert came == [(b"mine", relayed_port)] * len(came)
    assert len(came) >= 1


def hold_and_send(peer_port: int) -> tuple[int, int]:
    client = Client("u")
    relayed = client.relayed()
    client.bind(0x4001, place(PEER, peer_port))
    client.sock.send(b"\x40\1\0\4mine")
    return client.sock.getsockname()[1], relayed.port


def listening_at(host: Host, port: int) -> socket.socket:
    """The caller closes it."""
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", port))
    return sock


def everything_that_comes(sock: socket.socket, first_within_s: float) -> list[tuple[bytes, int]]:
    """All that comes, with its source's port, until it is quiet; closes the socket."""
    found = []
    with sock:
        sock.settimeout(first_within_s)
        with contextlib.suppress(TimeoutError):
            while True:
                data, source = sock.recvfrom(2048)
                found.append((data, source[1]))
                sock.settimeout(_QUIET_S)
    return found


def send_raw(packets: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, (RELAY, 0))


def test_it_is_no_open_proxy(scene: Scene) -> None:
    answers = scene.attacker.call(try_to_get_in)
    assert set(answers.values()) == {401}


def try_to_get_in() -> dict[str, int]:
    tried = {}
    for name, password in (("u", "wrong"), ("nobody", "p"), ("1:u", "p"), ("99999999999:x", "x"), ("", "")):
        client = Client(name, password)
        tried[name] = error_of(client.allocate())
    return tried


def test_nothing_behind_the_relay_can_be_reached_through_it(scene: Scene) -> None:
    service = listening_at(scene.relay, 7001)
    scene.client.call(knock_at_the_relay, 7001)
    assert everything_that_comes(service, _QUIET_S) == []


def knock_at_the_relay(port: int) -> None:
    client = Client("u")
    client.relayed()
    for host in ("127.0.0.1", "0.0.0.0", "169.254.169.254", "192.168.0.1"):  # noqa: S104
        assert error_of(client.permit(place(host, port))) == 403
        client.sock.send(send_indication(place(host, port), b"x"))
    own = place(RELAY, port)
    assert error_of(client.permit(own)) == 0  # of other allocations
    client.sock.send(send_indication(own, b"x"))
    client.bind(0x4001, own)
    client.sock.send(b"\x40\1\0\1x")
    client.refresh(600)


# How users share


def test_a_hog_leaves_the_others_their_shares(lab: Lab) -> None:
    """Three users of a narrow relay: two want more than there is, one wants little."""
    scene = start(lab, total_mbit_s=20)
    sinks = [listening_at(scene.peer, port) for port in (7000, 7001, 7002)]
    counting = scene.peer.begin(count_by_port, sinks)
    for sink in sinks:
        sink.close()
    hogs = [
        scene.attacker.begin(push, "u", 7000, 1200, 40, 0.002, 3.5),
        scene.client.begin(push, "v", 7001, 300, 40, 0.002, 3.5),
    ]
    modest = scene.client.begin(push, "w", 7002, 200, 1, 0.01, 3.5)
    for one in hogs:
        one.result(60)
    sent = modest.result(60)
    (first, second, third), seconds = counting.result(60)
    # By what they ask for, or by packets, it would be four to one; and a twentieth for the modest one.
    assert 0.6 <= _on_the_wire(first, 1200) / _on_the_wire(second, 300) <= 1.6
    assert third >= 0.9 * sent, "who wants less than his share gets all of it"
    total = sum(_on_the_wire(count, size) for count, size in ((first, 1200), (second, 300), (third, 200)))
    assert total * 8 <= seconds * 20e6 * 1.25


def _on_the_wire(datagrams: int, size: int) -> int:
    return datagrams * (size + 64)


def push(username: str, port: int, size: int, per_train: int, pause_s: float, seconds: float) -> int:
    """Send through the relay; how many datagrams."""
    client = Client(username, {"u": "p", "v": "q", "w": "r"}[username])
    client.relayed()
    client.bind(0x4001, place(PEER, port))
    train = (struct.pack("!HH", 0x4001, size) + bytes(size)) * per_train
    control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size + 4))] if per_train > 1 else []
    sent = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.sock.sendmsg([train], control)
        sent += per_train
        time.sleep(pause_s)
    return sent


def count_by_port(sockets: list[socket.socket]) -> tuple[list[int], float]:
    """How many datagrams came to each until it is quiet, and in how many seconds."""
    counts = [0] * len(sockets)
    began = last = 0.0
    patience_s = 30.0
    with selectors.DefaultSelector() as selector:
        for index, sock in enumerate(sockets):
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, index)
        while ready := selector.select(patience_s):
            last, patience_s = time.monotonic(), _QUIET_S
            began = began or last
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        key.fileobj.recv(2048)
                        counts[key.data] += 1
    return counts, last - began


def test_it_runs_with_no_privileges_left(scene: Scene) -> None:
    status = Path(f"/proc/{scene.process.pid}/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    assert effective & ~(1 << 10) == 0, "all but binding low ports"
    assert "NoNewPrivs:\t1" in status


def test_it_stops_when_it_is_told(scene: Scene) -> None:
    assert scene.process.stop(60) == 0


def test_who_has_time_limited_credentials_is_let_in(scene: Scene) -> None:
    assert scene.client.call(come_with_credentials, int(time.time()) + 300) == 0
    assert scene.client.call(come_with_credentials, int(time.time()) - 300) == 401


def come_with_credentials(expires: int) -> int:
    from warren.proto.turn.credentials import rest_password, rest_username

    name = rest_username("node", expires)
    return error_of(Client(name, rest_password(b"0123456789abcdef", name)).allocate())


class Client(TurnAsker):
    """Runs inside a host."""

    def __init__(self, username: str, password: str = "p") -> None:  # noqa: S107
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((RELAY, PORT))
        self.sock.settimeout(1)
        super().__init__(self._exchange, username, password)

    def _exchange(self, data: bytes) -> bytes:
        for _ in range(10):
            self.sock.send(data)
            try:
                while (answer := self.sock.recv(65536))[0] >= 0x40 or answer[8:20] != data[8:20]:
                    pass
            except TimeoutError:
                continue
            return answer
        raise TimeoutError("the relay does not answer")
