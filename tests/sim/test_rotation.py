"""WireGuard keys change while traffic runs: sessions outlive them, and the next sessions are made with new keys."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from tests.support.wireguard_pair import Host, Wire
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PeerChange
from warren.proto.wireguard.constants import DATA, INITIATION, RESPONSE
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.events import HandshakeCompleted, PeerRenamed

PACKETS_PER_S = 5


def talking(wire: Wire, psk: PresharedKey | None = None) -> tuple[Host, Host]:
    """Two hosts with a confirmed session that ``a`` initiated."""
    a, b = wire.pair(psk)
    a.send(a.packet_to(b))
    wire.settle()
    return a, b


def take_new_key(host: Host) -> PublicKey:
    """``host`` rotates its own key. Returns the old one."""
    old = host.public_key
    host.private_key = next_key(host)
    host.configure(private_key=host.private_key, keep_sessions=True)
    return old


def next_key(host: Host) -> PrivateKey:
    return PrivateKey(bytes([host.private_key.raw[0] ^ 0x55]) + host.private_key.raw[1:])


def learn_new_key(host: Host, other: Host, old: PublicKey) -> None:
    """``host`` is told that ``other`` has a new key."""
    host.configure(PeerChange(other.public_key, renamed_from=old))


class Traffic:
    """Steady traffic both ways; every packet is unlike any other."""

    def __init__(self, wire: Wire, a: Host, b: Host) -> None:
        self._wire, self._ways = wire, ((a, b), (b, a))
        self.sent: dict[str, list[bytes]] = {"a": [], "b": []}
        a.delivered.clear()
        b.delivered.clear()

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * PACKETS_PER_S)):
            for sender, receiver in self._ways:
                packet = sender.packet_to(receiver, b"%d" % len(self.sent[sender.name]))
                self.sent[sender.name].append(packet)
                sender.send(packet)
            self._wire.advance(1 / PACKETS_PER_S)

    def assert_nothing_lost(self) -> None:
        self._wire.advance(30)
        for sender, receiver in self._ways:
            assert sorted(receiver.delivered) == sorted(self.sent[sender.name])


def rotate(wire: Wire, a: Host, b: Host, steps: Sequence[str], traffic: Traffic) -> None:
    """Both hosts' keys change and become known, in the order that ``steps`` say, with traffic in between."""
    old = {"a": a.public_key, "b": b.public_key}
    new = {"a": next_key(a), "b": next_key(b)}
    hosts = {"a": a, "b": b}
    for step in steps:
        who, what = step.split()
        host, other = hosts[who], "b" if who == "a" else "a"
        if what == "rotates":
            host.private_key = new[who]
            host.configure(private_key=new[who], keep_sessions=True)
        else:
            host.configure(PeerChange(new[other].public_key(), renamed_from=old[other]))
        traffic.run(wire.random.uniform(0.2, 9.0))


ONE_SIDE = [("a rotates", "b learns"), ("b learns", "a rotates"), ("b rotates", "a learns"), ("a learns", "b rotates")]
BOTH_SIDES = list(permutations(("a rotates", "b learns", "b rotates", "a learns")))


@pytest.mark.parametrize("loss", [0.0, 0.3], ids=["no loss", "handshakes lost"])
@pytest.mark.parametrize("steps", [*ONE_SIDE, *BOTH_SIDES], ids=", ".join)
def test_a_rotation_loses_no_packet_of_running_traffic(steps: tuple[str, ...], loss: float) -> None:
    for seed in range(3):
        with Wire(seed, delay_s=0.03, jitter_s=0.02) as wire:
            a, b = talking(wire, PresharedKey(b"p" * 32))
            wire.filter = lambda _from, _to, data, wire=wire: data[0] == DATA or wire.random.random() >= loss  # type: ignore[misc]
            traffic = Traffic(wire, a, b)
            traffic.run(wire.random.uniform(0, 125))  # at any age of the session, renewal included
            rotate(wire, a, b, steps, traffic)
            rotated_ns = a.wall_clock_ns()
            traffic.run(200)
            traffic.assert_nothing_lost()
            assert a.status_of(b).last_handshake_ns > rotated_ns
            assert b.status_of(a).last_handshake_ns > rotated_ns
            for host in (a, b):
                assert host.device.counters["staged_dropped"] == 0
                assert len(host.device.status().peers) == 1


def test_keys_rotate_a_hundred_times_in_an_hour_of_traffic(twin: DataPath) -> None:
    with Wire(seed=40, datapath=twin) as wire:
        a, b = talking(wire)
        traffic = Traffic(wire, a, b)
        for number in range(50):
            for host, other in ((a, b), (b, a)) if number % 2 else ((b, a), (a, b)):
                old = take_new_key(host)
                traffic.run(1)
                learn_new_key(other, host, old)
                traffic.run(35)
        traffic.assert_nothing_lost()
        assert a.device.counters["handshakes_completed"] >= 25


def test_a_kept_session_ends_when_its_time_is_up(twin: DataPath) -> None:
    with Wire(seed=41, datapath=twin) as wire:
        a, b = talking(wire)
        take_new_key(a)  # and b never hears of it
        traffic = Traffic(wire, a, b)
        traffic.run(170)
        traffic.assert_nothing_lost()
        before = len(wire.messages(DATA))
        a.delivered.clear()
        b.delivered.clear()
        traffic.run(30)
        assert (a.delivered, b.delivered) == ([], [])
        assert len(wire.messages(DATA)) == before
        assert b.device.counters["handshake_unknown_peer"] > 0  # the new key is a stranger's
        assert a.device.counters["handshake_bad_mac1"] > 0  # and nothing is done with the old one


def test_no_session_is_kept_by_a_host_that_gives_its_key_up(twin: DataPath) -> None:
    with Wire(seed=51, datapath=twin) as wire:
        a, b = talking(wire)
        a.configure(private_key=PrivateKey(bytes(32)), keep_sessions=True)
        b.delivered.clear()
        b.send(b.packet_to(a))
        a.send(a.packet_to(b))
        wire.advance(5)
        assert (a.delivered, b.delivered) == ([], [])


def test_a_session_that_was_not_confirmed_yet_is_kept_too(twin: DataPath) -> None:
    with Wire(seed=42, datapath=twin) as wire:
        a, b = wire.pair()
        wire.filter = lambda source, _to, data: source != a.address or data[0] == INITIATION
        packet = a.packet_to(b)
        a.send(packet)
        wire.settle()  # b responded, and hears nothing under the new session yet
        take_new_key(b)
        wire.filter = lambda _from, _to, _data: True
        late = a.packet_to(b, b"under it")
        a.send(late)
        wire.settle()
        assert late in b.delivered
        back = b.packet_to(a, b"back")
        b.send(back)
        wire.settle()
        assert back in a.delivered


def test_a_handshake_under_way_begins_anew_at_once_with_our_new_key(twin: DataPath) -> None:
    with Wire(seed=43, datapath=twin) as wire:
        a, b = wire.pair()
        new = next_key(a)
        b.configure(PeerChange(new.public_key(), renamed_from=a.public_key))
        packet = a.packet_to(b)
        a.send(packet)
        wire.advance(0.5)
        assert b.device.counters["handshake_unknown_peer"] == 1
        a.configure(private_key=new, keep_sessions=True)
        wire.advance(0.1)
        assert b.delivered == [packet]
        assert len(wire.messages(INITIATION)) == 2


def test_nothing_is_sent_for_a_rotation_without_traffic(twin: DataPath) -> None:
    with Wire(seed=44, datapath=twin) as wire:
        a, b = talking(wire)
        wire.advance(30)
        before = len(wire.captured)
        learn_new_key(b, a, take_new_key(a))
        wire.advance(300)
        assert len(wire.captured) == before


def test_initiations_with_the_old_key_are_refused_after_a_rename(twin: DataPath) -> None:
    with Wire(seed=45, datapath=twin) as wire:
        a, b = talking(wire)
        old_key = a.private_key
        learn_new_key(b, a, take_new_key(a))
        thief = wire.host("thief", "198.51.100.66", "10.0.0.1")
        thief.private_key = old_key
        thief.configure(thief.peer(b), private_key=old_key)
        thief.wall_offset_ns = 10**12
        thief.send(thief.packet_to(b, b"with the old key"))
        wire.advance(20)
        assert b.device.counters["handshake_unknown_peer"] >= 1
        assert thief.device.counters["handshakes_completed"] == 0
        assert b.status_of(a).endpoint == a.peer(a).endpoint


def test_a_response_to_an_initiation_to_the_old_key_is_refused_after_a_rename(twin: DataPath) -> None:
    with Wire(seed=46, datapath=twin, delay_s=0.5) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        wire.advance(0.6)
        assert len(wire.messages(RESPONSE)) == 1  # under way
        a.configure(PeerChange(next_key(b).public_key(), renamed_from=b.public_key))
        wire.advance(3)
        assert a.device.counters["udp_unknown_index"] >= 1
        assert a.device.counters["handshakes_completed"] == 0


def test_timestamps_of_the_new_key_are_counted_by_themselves_and_only_rise(twin: DataPath) -> None:
    with Wire(seed=47, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = 10**18  # a's clock stands thirty years in the future
        a.send(a.packet_to(b))
        wire.settle()
        stale = wire.messages(INITIATION, a)[-1]
        old = a.public_key
        a.private_key = next_key(a)  # a is a new machine with the right time
        a.wall_offset_ns = 0
        a.restart()
        learn_new_key(b, a, old)
        a.configure(a.peer(b))
        a.device.up(wire.now)
        packet = a.packet_to(b, b"new key, earlier time")
        a.send(packet)
        wire.settle()
        assert packet in b.delivered
        fresh = wire.messages(INITIATION, a)[-1]
        responses = len(wire.messages(RESPONSE, b))
        wire.advance(1)
        wire.inject(b, fresh, ("198.51.100.66", 1))
        wire.inject(b, stale, ("198.51.100.66", 1))
        wire.settle()
        assert b.device.counters["handshake_replayed"] == 1
        assert b.device.counters["handshake_unknown_peer"] == 1  # the old key's
        assert len(wire.messages(RESPONSE, b)) == responses


def test_our_timestamps_rise_across_renames_whatever_the_clock_does(twin: DataPath) -> None:
    with Wire(seed=48, datapath=twin) as wire:
        a, b = talking(wire)
        a.wall_offset_ns = -(10**12)
        learn_new_key(a, b, take_new_key(b))
        wire.advance(200)
        packet = a.packet_to(b, b"later")
        a.send(packet)
        wire.settle()
        assert packet in b.delivered
        assert a.timestamps == sorted(set(a.timestamps))
        assert len(a.timestamps) == 2


def test_a_rename_keeps_everything_but_the_key(twin: DataPath) -> None:
    with Wire(seed=49, datapath=twin) as wire:
        a, b = talking(wire, PresharedKey(b"p" * 32))
        a.configure(a.peer(b, persistent_keepalive_s=25, allowed_ips=()))
        wire.settle()
        before = a.status_of(b)
        deadline = a.device.next_deadline()
        old = b.public_key
        b.private_key = next_key(b)
        learn_new_key(a, b, old)
        after = a.status_of(b)
        assert after.public_key == b.public_key
        for name in before.__slots__:
            if name != "public_key":
                assert getattr(after, name) == getattr(before, name), name
        assert a.device.next_deadline() == deadline
        assert a.events[-1] == PeerRenamed(old, b.public_key)


def test_packets_that_wait_are_sent_when_the_new_key_is_known(twin: DataPath) -> None:
    with Wire(seed=50, datapath=twin) as wire:
        a, b = wire.pair()
        old = take_new_key(b)
        packets = [a.packet_to(b, b"%d" % number) for number in range(20)]
        a.send(*packets)
        wire.advance(7)
        assert b.delivered == []
        learn_new_key(a, b, old)
        wire.advance(0.1)
        assert b.delivered == packets
        assert HandshakeCompleted(b.public_key, initiated_by_us=True) in a.events
