"""Two devices make sessions, over good and bad networks."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.wireguard_pair import Host, Wire
from warren.identity.keys import PresharedKey
from warren.proto.wireguard.constants import DATA, INITIATION, INITIATION_BYTES, RESPONSE, RESPONSE_BYTES
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.events import HandshakeCompleted, HandshakeGaveUp


def assert_talk(wire: Wire, a: Host, b: Host, seconds: float = 1.0) -> None:
    """A packet of each family goes each way."""
    for sender, receiver in ((a, b), (b, a)):
        for family in (0, 1):
            packet = sender.packet_to(receiver, b"%f" % wire.now, family)
            sender.send(packet)
            wire.advance(seconds)
            assert packet in receiver.delivered


@pytest.mark.parametrize("psk", [None, PresharedKey(b"p" * 32)], ids=["no psk", "psk"])
def test_a_packet_makes_a_session_and_arrives(twin: DataPath, psk: PresharedKey | None) -> None:
    with Wire(seed=1, datapath=twin) as wire:
        a, b = wire.pair(psk)
        packet = a.packet_to(b)
        a.send(packet)
        wire.settle()
        assert b.delivered == [packet]
        assert [len(m) for m in wire.messages(INITIATION)] == [INITIATION_BYTES]
        assert [len(m) for m in wire.messages(RESPONSE)] == [RESPONSE_BYTES]
        assert_talk(wire, a, b)


def test_a_different_preshared_key_makes_no_session(twin: DataPath) -> None:
    with Wire(seed=2, datapath=twin) as wire:
        a, b = wire.pair(PresharedKey(b"p" * 32))
        b.configure(b.peer(a, preshared_key=PresharedKey(b"q" * 32)))
        a.send(a.packet_to(b))
        wire.advance(30)
        assert b.delivered == []
        assert a.device.counters["handshake_forged"] > 1
        assert a.device.counters["handshakes_completed"] == 0


def test_the_responder_sends_nothing_until_the_initiator_confirmed(twin: DataPath) -> None:
    with Wire(seed=3, datapath=twin) as wire:
        a, b = wire.pair()
        wire.filter = lambda source, _destination, data: source != a.address or data[0] != DATA
        a.send(a.packet_to(b))
        wire.settle()
        b.send(b.packet_to(a))
        wire.settle()
        assert wire.messages(DATA, b) == []
        assert a.delivered == []


def test_a_session_without_packets_is_confirmed_by_a_keepalive(twin: DataPath) -> None:
    with Wire(seed=4, datapath=twin) as wire:
        a, b = wire.pair()
        a.configure(a.peer(b, persistent_keepalive_s=25))
        wire.settle()
        assert [len(m) for m in wire.messages(DATA)] == [32]
        assert a.events[-1:] == [HandshakeCompleted(b.public_key, initiated_by_us=True)]
        assert b.events[-1:] == [HandshakeCompleted(a.public_key, initiated_by_us=False)]
        packet = b.packet_to(a)
        b.send(packet)
        wire.settle()
        assert a.delivered == [packet]


def test_staged_packets_arrive_in_order_and_the_oldest_give_way(twin: DataPath) -> None:
    with Wire(seed=5, datapath=twin) as wire:
        a, b = wire.pair()
        packets = [a.packet_to(b, b"%04d" % number) for number in range(200)]
        for packet in packets:  # one batch each: trains of one
            a.send(packet)
        wire.settle()
        assert b.delivered == packets[-128:]
        assert a.device.counters["staged_dropped"] == 200 - 128


@pytest.mark.parametrize("seed", range(5))
def test_both_initiating_at_once_talk_without_waiting_for_a_retransmission(twin: DataPath, seed: int) -> None:
    with Wire(seed, datapath=twin, jitter_s=0.02) as wire:
        a, b = wire.pair()
        b.configure(b.peer(a))
        to_b, to_a = a.packet_to(b), b.packet_to(a)
        a.send(to_b)
        b.send(to_a)
        wire.settle()
        assert (a.delivered, b.delivered) == ([to_a], [to_b])
        assert len(wire.messages(INITIATION)) == 2
        assert_talk(wire, a, b)


def test_a_response_that_comes_after_the_peers_own_handshake_was_confirmed_is_too_late(twin: DataPath) -> None:
    with Wire(seed=12, datapath=twin) as wire:
        a, b = wire.pair()
        b.configure(b.peer(a))
        wire.filter = lambda source, _destination, data: data[0] != RESPONSE or source == a.address
        a.send(a.packet_to(b))
        b.send(b.packet_to(a))
        wire.advance(0.1)
        assert len(a.delivered) == 1  # under the session that b initiated
        wire.inject(a, wire.messages(RESPONSE, b)[0], b.address)
        assert a.device.counters["udp_unknown_index"] == 1
        assert a.device.counters["handshakes_completed"] == 1
        assert_talk(wire, a, b)


@pytest.mark.parametrize(("loss", "within_s"), [(0.05, 30.0), (0.2, 30.0), (0.5, 90.0)])
@pytest.mark.parametrize("seed", range(8))
def test_a_lossy_network_delays_the_handshake_but_does_not_prevent_it(seed: int, loss: float, within_s: float) -> None:
    with Wire(seed, loss=loss, duplicate=0.1, delay_s=0.05, jitter_s=0.2) as wire:
        a, b = wire.pair()
        for _ in range(int(within_s * 2)):
            a.send(a.packet_to(b))
            wire.advance(0.5)
            if b.delivered:
                break
        assert b.delivered


def test_an_unanswered_handshake_is_retried_every_five_seconds_and_given_up_after_ninety(twin: DataPath) -> None:
    with Wire(seed=6, datapath=twin, loss=1.0) as wire:
        a, b = wire.pair()
        started = wire.now
        a.send(a.packet_to(b))
        sent_at: list[float] = []
        while wire.now < started + 120:
            before = len(wire.messages(INITIATION))
            wire.advance(0.01)
            sent_at += [wire.now] * (len(wire.messages(INITIATION)) - before)
        gaps = [later - earlier for earlier, later in pairwise(sent_at)]
        assert all(5.0 <= gap <= 5.35 for gap in gaps)
        assert len({round(gap, 3) for gap in gaps}) > 5  # the jitter
        assert 90 <= sent_at[-1] - started < 110
        assert a.events == [HandshakeGaveUp(b.public_key)]
        wire.loss = 0.0
        wire.advance(60)
        assert b.delivered == []  # the packet was purged
        assert_talk(wire, a, b)


def test_a_peer_that_stays_away_is_reported_once_and_again_after_it_was_there(twin: DataPath) -> None:
    with Wire(seed=13, datapath=twin, loss=1.0) as wire:
        a, b = wire.pair()
        a.configure(a.peer(b, persistent_keepalive_s=25))
        wire.advance(1000)
        assert a.events.count(HandshakeGaveUp(b.public_key)) == 1
        wire.loss = 0.0
        wire.advance(60)
        wire.loss = 1.0
        wire.advance(1000)
        assert a.events.count(HandshakeGaveUp(b.public_key)) == 2


def test_a_new_packet_after_giving_up_begins_anew(twin: DataPath) -> None:
    with Wire(seed=7, datapath=twin, loss=1.0) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        wire.advance(200)
        wire.loss = 0.0
        packet = a.packet_to(b, b"second")
        a.send(packet)
        wire.settle()
        assert b.delivered == [packet]


def test_the_transfer_counters_count_whole_authenticated_messages(twin: DataPath) -> None:
    with Wire(seed=8, datapath=twin) as wire:
        a, b = wire.pair()
        packet = a.packet_to(b, bytes(100))  # 128 bytes of packet, 160 of message
        a.send(packet)
        wire.settle()
        assert (a.status_of(b).tx_bytes, a.status_of(b).rx_bytes) == (148 + 160, 92)
        assert (b.status_of(a).tx_bytes, b.status_of(a).rx_bytes) == (92, 148 + 160)


def test_without_an_endpoint_packets_wait_for_one(twin: DataPath) -> None:
    with Wire(seed=9, datapath=twin) as wire:
        a, b = wire.pair()
        to_a = b.packet_to(a)
        b.send(to_a)
        wire.advance(2.0)
        assert wire.captured == []
        b.configure(b.peer(a, allowed_ips=()))
        wire.settle()
        assert a.delivered == [to_a]


def test_a_lost_response_after_which_the_initiator_fell_silent_does_not_leave_packets_waiting(twin: DataPath) -> None:
    with Wire(seed=10, datapath=twin) as wire:
        a, b = wire.pair()
        b.configure(b.peer(a))
        wire.filter = lambda _source, _destination, data: data[0] != RESPONSE
        a.send(a.packet_to(b))
        wire.advance(0.1)
        wire.filter = lambda _source, _destination, _data: True
        a.restart()
        a.configure(a.peer(b, endpoint=None))
        a.device.up(wire.now)
        packet = b.packet_to(a)
        b.send(packet)
        wire.advance(6)
        assert packet in a.delivered


def test_one_wire_one_hundred_peers(twin: DataPath) -> None:
    with Wire(seed=11, datapath=twin) as wire:
        hub = wire.host("hub", "192.0.2.250", "10.1.0.0")
        spokes = [wire.host(f"s{n}", f"198.51.100.{n}", f"10.1.0.{n}") for n in range(1, 101)]
        hub.configure(*(hub.peer(spoke, persistent_keepalive_s=25) for spoke in spokes))
        for spoke in spokes:
            spoke.configure(spoke.peer(hub, endpoint=None))
        wire.advance(2.0)
        assert hub.device.counters["handshakes_completed"] == 100
        packets = [hub.packet_to(spoke) for spoke in spokes]
        hub.send(*packets)
        wire.settle()
        assert [spoke.delivered for spoke in spokes] == [[packet] for packet in packets]


def test_the_round_trip_of_a_handshake_is_known_to_its_initiator(twin: DataPath) -> None:
    with Wire(seed=14, datapath=twin, delay_s=0.04) as wire:
        a, b = wire.pair()
        assert a.status_of(b).handshake_rtt_ns == 0
        a.send(a.packet_to(b))
        wire.settle()
        assert a.status_of(b).handshake_rtt_ns == pytest.approx(80e6)
        assert b.status_of(a).handshake_rtt_ns == 0


def test_lost_attempts_do_not_count_into_the_round_trip(twin: DataPath) -> None:
    with Wire(seed=15, datapath=twin, delay_s=0.04) as wire:
        a, b = wire.pair()
        wire.loss = 1.0
        a.send(a.packet_to(b))
        wire.advance(12)
        wire.loss = 0.0
        wire.advance(5)
        assert a.status_of(b).handshake_rtt_ns == pytest.approx(80e6)


def test_a_late_answer_to_an_attempt_that_was_repeated_is_no_answer(twin: DataPath) -> None:
    with Wire(seed=16, datapath=twin, delay_s=3.0) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        wire.advance(8)  # the first answer comes after six seconds, and the second attempt left after five
        assert a.device.counters["udp_unknown_index"] == 1
        assert a.status_of(b).handshake_rtt_ns == 0


def test_an_answer_that_waited_its_turn_here_counts_from_its_arrival(twin: DataPath) -> None:
    with Wire(seed=17, datapath=twin, delay_s=0.04) as wire:
        a, b = wire.pair()
        a.handshake_budget = 0
        a.send(a.packet_to(b))
        wire.advance(2)
        assert a.device.pending_handshakes == 1
        a.device.handshake_work(wire.now, 1)
        assert a.status_of(b).handshake_rtt_ns == pytest.approx(80e6)
