"""Floods against a running tunnel: what was established keeps working, memory stays, and nothing is amplified.

Each flood is bounded in packets and time and stays inside the lab. How much speed is left is measured by the
benchmarks; here only what must hold on any machine is asserted.
"""

from __future__ import annotations

import random
import shutil
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.floods import PACKETS_PER_S, SECONDS, flood, forged_sources, initiations
from tests.support.packets import udp_packet
from tests.support.tunnels import TunnelEnd, warren_end
from warren.lab import Host, Lab
from warren.lab.traffic import tcp_transfer

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"),
]

VICTIM, FRIEND, NEWCOMER, ATTACKER = "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.66"
INNER_VICTIM, INNER_FRIEND, INNER_NEWCOMER = "10.77.0.1", "10.77.0.2", "10.77.0.3"
PORT = 51820
MEGABYTE = 1 << 20
INITIATION_BYTES = 148


@dataclass
class Scene:
    lab: Lab
    victim: TunnelEnd
    friend: TunnelEnd
    newcomer: TunnelEnd
    attacker: Host

    def flood_during_transfer(self, packets: list[bytes]) -> None:
        """Replay ``packets`` (whole IPv4 packets) at the victim while a transfer runs through its tunnel."""
        before = resident_bytes(self.victim)
        flooding = self.attacker.begin(flood, VICTIM, packets)
        try:
            assert tcp_transfer(self.friend.host, self.victim.host, INNER_VICTIM, 16 * MEGABYTE).intact
            assert tcp_transfer(self.victim.host, self.friend.host, INNER_FRIEND, 16 * MEGABYTE).intact
            assert flooding.result(100) == PACKETS_PER_S * SECONDS
        finally:
            flooding.cancel()
        assert resident_bytes(self.victim) - before < 16 * MEGABYTE
        assert self.friend.ping(INNER_VICTIM, count=5)


@pytest.fixture
def scene(lab: Lab) -> Scene:
    lan = lab.bridge("lan")
    hosts = {}
    for name, address in (("victim", VICTIM), ("friend", FRIEND), ("newcomer", NEWCOMER), ("attacker", ATTACKER)):
        hosts[name] = lab.host(name)
        lab.attach(hosts[name], lan, f"{address}/24")
    # Forged sources lie in a range that the victim can route answers to, or it would only lose them by itself.
    hosts["victim"].run(["ip", "route", "add", "198.18.0.0/15", "via", ATTACKER])
    victim = warren_end(hosts["victim"], f"{INNER_VICTIM}/24")
    friend = warren_end(hosts["friend"], f"{INNER_FRIEND}/24")
    newcomer = warren_end(hosts["newcomer"], f"{INNER_NEWCOMER}/24")
    for end in (friend, newcomer):
        victim.peer(end)
        end.peer(victim, "endpoint", f"{VICTIM}:{PORT}")
    assert friend.ping(INNER_VICTIM)
    return Scene(lab, victim, friend, newcomer, hosts["attacker"])


def resident_bytes(end: TunnelEnd) -> int:
    status = Path(f"/proc/{end.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_initiations_of_strangers_disturb_nobody_and_get_no_answer(scene: Scene) -> None:
    rng = random.Random(1)
    capture = scene.attacker.capture("eth0")
    scene.flood_during_transfer(forged_sources(rng, initiations(rng, 500, None), VICTIM, PORT))
    capture.stop()
    counted = scene.victim.statistics()
    assert counted["handshake_bad_mac1"] > PACKETS_PER_S * SECONDS / 20  # of some the kernel rids a busy machine
    assert counted["cookies_sent"] == counted["handshake_forged"] == 0
    assert not [packet for packet in capture.packets() if is_answer(packet)]


def test_initiations_that_know_the_key_get_smaller_answers_and_a_newcomer_gets_through(scene: Scene) -> None:
    rng = random.Random(2)
    messages = initiations(rng, 500, scene.victim.key.public_key().raw)
    capture = scene.attacker.capture("eth0")
    flooding = scene.attacker.begin(flood, VICTIM, forged_sources(rng, messages, VICTIM, PORT))
    try:
        scene.victim.host.wait_for(lambda: scene.victim.statistics()["cookies_sent"] > 0, timeout=60)
        # Under load an initiation is answered by a cookie, and only the next, 5 s later, by a session.
        assert scene.newcomer.ping(INNER_VICTIM, wait_s=30)
        flooding.result(100)
    finally:
        flooding.cancel()
    capture.stop()
    answers = [packet for packet in capture.packets() if is_answer(packet)]
    assert answers
    answered = sum(len(packet) - 42 for packet in answers)
    assert answered <= PACKETS_PER_S * SECONDS * INITIATION_BYTES
    assert max(len(packet) - 42 for packet in answers) <= 64
    assert scene.friend.ping(INNER_VICTIM, count=5)


def test_initiations_that_know_the_key_do_not_stop_a_transfer(scene: Scene) -> None:
    rng = random.Random(3)
    messages = initiations(rng, 500, scene.victim.key.public_key().raw)
    scene.flood_during_transfer(forged_sources(rng, messages, VICTIM, PORT))
    counted = scene.victim.statistics()
    assert counted["handshake_forged"] > 0
    assert counted["cookies_sent"] + counted["cookies_withheld"] > counted["handshake_forged"]


def test_forged_data_for_a_live_session_changes_nothing(scene: Scene) -> None:
    rng = random.Random(4)
    capture = scene.victim.host.capture("eth0")
    assert scene.friend.ping(INNER_VICTIM)
    capture.stop()
    (index,) = {packet[46:50] for packet in capture.packets() if packet[42:46] == b"\4\0\0\0" and to_victim(packet)}
    messages = [b"\4\0\0\0" + index + struct.pack("<Q", 2**40 + n) + rng.randbytes(1424) for n in range(200)]
    spoofed = [udp_packet(FRIEND, VICTIM, message, (PORT, PORT)) for message in messages]
    scene.flood_during_transfer(spoofed)
    counted = scene.victim.statistics()
    assert counted["data_forged"] > PACKETS_PER_S * SECONDS / 20
    assert counted["handshakes_completed"] == 1, "no forged counter moved the window: the session lives on"


def test_a_replayed_conversation_moves_nothing_and_gets_no_answer(scene: Scene) -> None:
    capture = scene.victim.host.capture("eth0")
    assert scene.newcomer.ping(INNER_VICTIM, count=10)
    capture.stop()
    frames = [frame for frame in capture.packets() if to_victim(frame) and frame[26:30] == socket.inet_aton(NEWCOMER)]
    # The checksum of a locally made frame is left to a network card that is not there: 0 means "none" (RFC 768).
    recorded = [frame[14:40] + bytes(2) + frame[42:] for frame in frames]
    kinds = {packet[28] for packet in recorded}
    assert kinds == {1, 4}, "the handshake and the data were recorded"
    before = scene.victim.statistics()
    watching = scene.newcomer.host.capture("eth0")
    random.Random(5).shuffle(recorded)
    scene.attacker.call(replay, recorded * 5)
    scene.victim.host.wait_for(
        lambda: scene.victim.statistics()["data_replayed"] >= before["data_replayed"] + 5 * 10, timeout=10
    )
    assert scene.newcomer.ping(INNER_VICTIM)
    watching.stop()
    after = scene.victim.statistics()
    assert after["handshake_replayed"] + after["handshake_too_often"] >= 5
    assert after["responses_sent"] == before["responses_sent"]
    from_victim = [packet for packet in watching.packets() if packet[26:30] == socket.inet_aton(VICTIM)]
    assert len(from_victim) <= 2, "the answer to our own ping, and a keepalive at most"


def replay(packets: list[bytes]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for packet in packets:
            raw.sendto(packet, (VICTIM, 0))


def is_answer(frame: bytes) -> bool:
    """An Ethernet frame with a UDP packet from the victim's tunnel port."""
    return frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[34:36] == PORT.to_bytes(2, "big")


def to_victim(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\0" and frame[23] == 17 and frame[30:34] == socket.inet_aton(VICTIM)
