"""Attackers on the path and off it change nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.sessions import connected
from tests.support.packets import udp_packet
from tests.support.wireguard_pair import Host, Wire
from warren.identity.keys import PublicKey
from warren.model.tunnel import TunnelStatus
from warren.proto.wireguard.admission import HANDSHAKE_QUEUE_MAX
from warren.proto.wireguard.constants import COOKIE_REPLY, COOKIE_REPLY_BYTES, DATA, INITIATION, RESPONSE
from warren.proto.wireguard.cookie import CookieJar
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.messages import unpack_cookie_reply_untrusted

MALLORY = ("203.0.113.66", 6666)


def flood(wire: Wire, victim: Host, count: int, seed: int = 1) -> None:
    """Initiations with a valid mac1 and nothing else right, from ever new addresses, none of them processed."""
    victim.handshake_budget = 0
    jar = CookieJar(victim.public_key.raw)
    for number in range(count):
        body = bytes([INITIATION, 0, 0, 0]) + wire.random.randbytes(112)
        source = (f"10.{seed}.{number // 250}.{number % 250}", 1000 + number)
        wire.inject(victim, jar.add_macs(body, 0.0), source)


def snapshot(host: Host) -> tuple[TunnelStatus, int]:
    return host.device.status(), len(host.delivered)


# Replays.


def test_replaying_every_captured_message_changes_nothing_and_draws_no_answer(twin: DataPath) -> None:
    with Wire(seed=60, datapath=twin) as wire:
        a, b = connected(wire)
        captured = list(wire.captured)
        wire.random.shuffle(captured)
        assert {data[0] for _, _, data in captured} == {INITIATION, RESPONSE, DATA}
        for victim in (a, b):
            before = snapshot(victim)
            for source, _, data in captured * 2:
                wire.inject(victim, data, source)
                wire.inject(victim, data, MALLORY)
            assert snapshot(victim) == before
            assert victim.device.take_transmits() == []
        assert b.device.counters["handshake_replayed"] == 4
        assert b.device.counters["data_replayed"] >= 4
        assert a.device.counters["udp_unknown_index"] >= 2  # the response: its handshake is over
        packet = a.packet_to(b, b"still there")
        a.send(packet)
        wire.settle()
        assert packet in b.delivered


def test_replays_during_a_session_do_not_disturb_the_next_handshake(twin: DataPath) -> None:
    with Wire(seed=61, datapath=twin) as wire:
        a, b = connected(wire)
        for _ in range(60):
            a.send(a.packet_to(b))
            b.send(b.packet_to(a))
            wire.advance(5)
            for source, _, data in wire.captured[-12:]:
                wire.inject(a, data, source)
                wire.inject(b, data, source)
        assert len(b.delivered) == 61
        assert len(wire.messages(INITIATION)) == 3


def test_a_duplicating_network_delivers_each_packet_once(twin: DataPath) -> None:
    with Wire(seed=62, datapath=twin, duplicate=1.0, jitter_s=0.1) as wire:
        a, b = connected(wire)
        packets = [a.packet_to(b, b"%d" % number) for number in range(500)]
        a.send(*packets)
        wire.settle()
        assert sorted(b.delivered[1:]) == sorted(packets)


def test_reordering_within_the_window_loses_nothing(twin: DataPath) -> None:
    with Wire(seed=63, datapath=twin) as wire:
        a, b = connected(wire)
        wire.jitter_s = 0.5
        packets = [a.packet_to(b, b"%d" % number) for number in range(3000)]
        for packet in packets:
            a.send(packet)
        wire.settle()
        assert len(b.delivered) == 1 + 3000


# Floods.


def test_handshakes_that_do_not_know_our_key_are_not_even_queued(twin: DataPath) -> None:
    with Wire(seed=64, datapath=twin) as wire:
        _, b = connected(wire)
        b.handshake_budget = 0
        for size, kind in ((148, INITIATION), (148, INITIATION)):
            wire.inject(b, bytes([kind, 0, 0, 0]) + wire.random.randbytes(size - 4), MALLORY)
        assert b.device.pending_handshakes == 0
        assert b.device.counters["handshake_bad_mac1"] == 2


def test_a_response_that_nobody_waits_for_is_not_even_queued(twin: DataPath) -> None:
    with Wire(seed=85, datapath=twin) as wire:
        a, b = connected(wire)
        a.handshake_budget = 0
        wire.inject(a, wire.messages(RESPONSE)[0], b.address)
        assert a.device.pending_handshakes == 0
        assert a.device.counters["udp_unknown_index"] == 1


def test_the_queue_of_handshakes_is_bounded_and_load_is_answered_with_cookies_that_are_shorter(twin: DataPath) -> None:
    with Wire(seed=65, datapath=twin) as wire:
        _, b = connected(wire)
        flood(wire, b, 1000)
        assert b.device.pending_handshakes == HANDSHAKE_QUEUE_MAX // 8
        replies = b.device.take_transmits()
        assert 0 < len(replies) <= 1000 - HANDSHAKE_QUEUE_MAX // 8
        assert {(len(reply.data), reply.data[0]) for reply in replies} == {(COOKIE_REPLY_BYTES, COOKIE_REPLY)}


def test_under_load_a_genuine_peer_gets_through_with_a_cookie(twin: DataPath) -> None:
    with Wire(seed=66, datapath=twin) as wire:
        a, b = wire.pair()
        flood(wire, b, 500)
        packet = a.packet_to(b)
        a.send(packet)
        for turn in range(100):
            flood(wire, b, 100, seed=2 + turn)
            b.device.handshake_work(wire.now, 100)
            wire.collect(b)
            wire.advance(0.1)
        assert b.delivered == [packet]
        assert a.device.counters["cookies_taken"] == 1
        assert len(wire.messages(INITIATION, a)) == 2


def test_established_sessions_do_not_notice_a_flood(twin: DataPath) -> None:
    with Wire(seed=67, datapath=twin) as wire:
        a, b = connected(wire)
        for turn in range(20):
            flood(wire, b, 50, seed=turn)
            packet = a.packet_to(b, b"%d" % turn)
            a.send(packet)
            wire.advance(0.05)
            assert b.delivered[-1] == packet


def test_load_ends_a_second_after_the_queue_was_worked_off(twin: DataPath) -> None:
    with Wire(seed=68, datapath=twin) as wire:
        a, b = wire.pair()
        flood(wire, b, 500)
        b.handshake_budget = 1_000_000
        b.device.handshake_work(wire.now, 1_000_000)
        assert b.device.pending_handshakes == 0
        b.device.take_transmits()
        wire.advance(1.01)
        a.send(a.packet_to(b))
        wire.settle()
        assert len(b.delivered) == 1
        assert len(wire.messages(COOKIE_REPLY)) == 0


def test_who_proves_its_address_may_still_not_send_more_than_twenty_a_second(twin: DataPath) -> None:
    with Wire(seed=69, datapath=twin) as wire:
        a, b = wire.pair()
        flood(wire, b, 500)
        b.handshake_budget = 0
        a.send(a.packet_to(b))
        wire.advance(0.1)
        jar = a.device._peers[b.public_key.raw].cookies
        before = b.device.pending_handshakes
        for _ in range(100):
            body = bytes([INITIATION, 0, 0, 0]) + wire.random.randbytes(112)
            wire.inject(b, jar.add_macs(body, wire.now), a.address)
            wire.advance(0.01)
        assert 20 <= b.device.pending_handshakes - before <= 20 + 5
        assert b.device.counters["handshake_limited"] >= 75


def test_a_cookie_of_one_address_is_worth_nothing_at_another(twin: DataPath) -> None:
    with Wire(seed=70, datapath=twin) as wire:
        a, b = wire.pair()
        flood(wire, b, 500)
        b.handshake_budget = 0
        a.send(a.packet_to(b))
        wire.advance(0.1)
        jar = a.device._peers[b.public_key.raw].cookies
        message = jar.add_macs(bytes([INITIATION, 0, 0, 0]) + bytes(112), wire.now)
        before = b.device.pending_handshakes
        wire.inject(b, message, (a.address[0], a.address[1] + 1))
        wire.inject(b, message, MALLORY)
        assert b.device.pending_handshakes == before
        wire.inject(b, message, a.address)
        assert b.device.pending_handshakes == before + 1


def test_cookie_replies_to_one_network_are_limited(twin: DataPath) -> None:
    with Wire(seed=71, datapath=twin) as wire:
        _, b = connected(wire)
        flood(wire, b, 2000)  # 10.1.x.0/24: eight networks
        replies = b.device.take_transmits()
        by_network: dict[str, int] = {}
        for reply in replies:
            network = reply.endpoint.address[0].rsplit(".", 1)[0]
            by_network[network] = by_network.get(network, 0) + 1
        assert max(by_network.values()) <= 101
        assert b.device.counters["cookies_withheld"] == 2000 - HANDSHAKE_QUEUE_MAX // 8 - len(replies)


def test_cookie_replies_are_limited_however_many_networks_are_forged(twin: DataPath) -> None:
    with Wire(seed=83, datapath=twin) as wire:
        _, b = connected(wire)
        flood(wire, b, 200)
        b.device.take_transmits()
        jar = CookieJar(b.public_key.raw)
        message = jar.add_macs(bytes([INITIATION, 0, 0, 0]) + bytes(112), 0.0)
        for network in range(2200):
            wire.inject(b, message, (f"172.{network // 250}.{network % 250}.1", 1))
        assert len(b.device.take_transmits()) < 2001
        assert b.device.counters["cookies_withheld"] >= 200


def test_the_queue_is_bounded_even_when_every_source_has_a_cookie(twin: DataPath) -> None:
    with Wire(seed=84, datapath=twin) as wire:
        _, b = connected(wire)
        flood(wire, b, 200)
        b.device.take_transmits()
        for number in range(400):
            source = (f"172.16.{number // 200}.{number % 200}", 1)
            jar = CookieJar(b.public_key.raw)
            wire.inject(b, jar.add_macs(bytes([INITIATION, 0, 0, 0]) + bytes(112), wire.now), source)
            (answer,) = b.device.take_transmits()
            assert jar.take(unpack_cookie_reply_untrusted(answer.data), wire.now)
            for _ in range(5):
                wire.inject(b, jar.add_macs(bytes([INITIATION, 0, 0, 0]) + bytes(112), wire.now), source)
            wire.advance(0.02)
        assert b.device.pending_handshakes == HANDSHAKE_QUEUE_MAX
        assert b.device.counters["handshake_queue_full"] > 0


def test_a_replayed_cookie_reply_is_taken_once(twin: DataPath) -> None:
    with Wire(seed=72, datapath=twin) as wire:
        a, b = wire.pair()
        flood(wire, b, 500)
        a.send(a.packet_to(b))
        wire.advance(0.1)
        (reply,) = (data for _, destination, data in wire.captured if destination == a.address)
        assert a.device.counters["cookies_taken"] == 1
        wire.inject(a, reply, b.address)
        wire.inject(a, reply, MALLORY)
        assert (a.device.counters["cookies_taken"], a.device.counters["cookies_refused"]) == (1, 2)


def test_genuine_initiations_in_quick_succession_are_answered_once(twin: DataPath) -> None:
    with Wire(seed=73, datapath=twin) as wire:
        a, b = wire.pair()
        wire.filter = lambda _source, _destination, data: data[0] != INITIATION
        for _ in range(3):
            a.send(a.packet_to(b))
            wire.advance(6)
        first, second, third = wire.messages(INITIATION, a)[:3]
        wire.inject(b, first, a.address)
        wire.inject(b, second, a.address)
        assert b.device.counters["handshake_too_often"] == 1
        assert b.device.counters["responses_sent"] == 1
        wire.advance(0.021)
        wire.inject(b, third, a.address)
        assert b.device.counters["responses_sent"] == 2


def test_forged_data_for_a_live_session_costs_a_drop_each(twin: DataPath) -> None:
    with Wire(seed=74, datapath=twin) as wire:
        a, b = connected(wire)
        genuine = wire.messages(DATA, a)[-1]
        before = snapshot(b)
        for number in range(200):
            forged = genuine[:8] + (100 + number).to_bytes(8, "little") + wire.random.randbytes(64)
            wire.inject(b, forged, a.address)
        assert b.device.counters["data_forged"] == 200
        assert snapshot(b) == before
        packet = a.packet_to(b, b"genuine")
        a.send(packet)
        wire.settle()
        assert b.delivered[-1] == packet


# Spoofed inner sources.

SPOOFED = [
    "10.0.0.2",  # the receiver's own
    "10.0.0.3",  # another peer's
    "10.0.7.7",  # in another peer's subnet
    "10.9.9.9",  # nobody's
    "127.0.0.1",
    "0.0.0.0",  # noqa: S104
    "255.255.255.255",
    "224.0.0.1",
    "fd00::2",
    "fd00::3",
    "fd00:7::7",
    "::1",
    "::",
    "::ffff:10.0.0.1",  # the sender's own, but as an IPv6 address
    "::10.0.0.1",
    "ff02::1",
    "fe80::1",
]


@pytest.mark.parametrize("source", SPOOFED)
def test_a_packet_whose_source_is_not_the_senders_is_dropped(twin: DataPath, source: str) -> None:
    with Wire(seed=75, datapath=twin) as wire:
        a, b = connected(wire)
        c = wire.host("c", "192.0.2.3", "10.0.0.3", "10.0.7.0/24", "fd00::3", "fd00:7::/64")
        b.configure(b.peer(c))
        destination = "10.0.0.2" if "." in source and ":" not in source else "fd00::2"
        before = len(b.delivered)
        spoofed = udp_packet(source, destination, b"evil")
        genuine = a.packet_to(b, b"good")
        a.send(genuine, spoofed, genuine)
        wire.settle()
        assert b.delivered[before:] == [genuine, genuine]
        assert b.device.counters["inner_spoofed"] == 1


def test_a_run_of_spoofed_packets_is_dropped_although_it_would_merge_into_one_frame(twin: DataPath) -> None:
    with Wire(seed=76, datapath=twin) as wire:
        a, b = connected(wire)
        a.send(*[udp_packet("10.0.0.3", "10.0.0.2", bytes(1000)) for _ in range(8)])
        train = b"".join(wire.messages(DATA, a)[-8:])
        before = len(b.delivered)
        wire.inject(b, train, a.address, stride=len(train) // 8)
        assert len(b.delivered) == before
        assert b.device.counters["inner_spoofed"] >= 1


def test_trains_of_two_peers_between_two_deliveries_are_each_judged_by_their_own_sender(twin: DataPath) -> None:
    with Wire(seed=77, datapath=twin) as wire:
        a, b = connected(wire)
        c = wire.host("c", "192.0.2.3", "10.0.0.3")
        c.configure(c.peer(b))
        b.configure(b.peer(c, endpoint=None))
        c.send(c.packet_to(b))
        wire.settle()
        wire.loss = 1.0
        genuine, spoofed = a.packet_to(b, b"1"), udp_packet("10.0.0.1", "10.0.0.2", b"2")
        a.send(genuine)
        c.send(spoofed)
        for sender in (a, c):
            message = bytearray(wire.messages(DATA, sender)[-1])
            b.device.receive(message, len(message), len(message), sender.address, b"", 0, wire.now)
        assert [bytes(frame)[10:] for frame in b.device.take_frames()] == [genuine]
        assert b.device.counters["inner_spoofed"] == 1


def test_a_change_of_allowed_ips_counts_at_once_in_both_directions(twin: DataPath) -> None:
    with Wire(seed=78, datapath=twin) as wire:
        a, b = connected(wire)
        b.configure(b.peer(a, endpoint=None, replace_allowed_ips=True, allowed_ips=()))
        before = len(b.delivered)
        a.send(a.packet_to(b))
        b.send(b.packet_to(a))
        wire.settle()
        assert len(b.delivered) == before
        assert b.device.counters["inner_spoofed"] == 1
        assert b.device.counters["tun_no_peer"] == 1


# Low-order keys (RFC 7748 §6.1; the list of the kernel's netns.sh).

LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:4].hex())
def test_no_handshake_is_made_with_a_peer_whose_key_is_of_low_order(twin: DataPath, point: bytes) -> None:
    with Wire(seed=79, datapath=twin) as wire:
        a, b = wire.pair()
        a.configure(replace(a.peer(b, persistent_keepalive_s=1), public_key=PublicKey(point)))
        wire.advance(10)
        assert len(wire.messages(INITIATION)) == 0
        assert a.device.counters["handshake_key_refused"] >= 1


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:4].hex())
def test_a_handshake_with_an_ephemeral_key_of_low_order_is_refused(twin: DataPath, point: bytes) -> None:
    with Wire(seed=80, datapath=twin) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        genuine = wire.messages(INITIATION)[0]
        forged = CookieJar(b.public_key.raw).add_macs(genuine[:8] + point + genuine[40:116], 0.0)
        wire.inject(b, forged, MALLORY)
        assert b.device.take_transmits() == []
        assert b.device.counters["handshake_forged"] == 1
        wire.filter = lambda _source, _destination, data: data[0] != RESPONSE
        wire.advance(0.1)
        response = wire.messages(RESPONSE)[0]
        forged = CookieJar(a.public_key.raw).add_macs(response[:12] + point + response[44:60], 0.0)
        wire.inject(a, forged, MALLORY)
        assert a.device.counters["handshake_forged"] == 1
        wire.inject(a, response, b.address)  # the forgery did not end the handshake
        assert a.device.counters["handshakes_completed"] == 1


# Arbitrary bytes.


@given(st.data())
def test_arbitrary_trains_never_raise_and_never_change_a_session(data: st.DataObject) -> None:
    with Wire(seed=81) as wire:
        a, b = connected(wire)
        before = snapshot(b)
        genuine = [message for _, _, message in wire.captured]
        for _ in range(data.draw(st.integers(1, 4))):
            junk = data.draw(
                st.one_of(
                    st.binary(max_size=300),
                    st.builds(_with_prefix, st.sampled_from(genuine), st.integers(0, 40), st.binary(max_size=200)),
                    st.builds(_flipped, st.sampled_from(genuine), st.integers(0, 8 * 160)),
                )
            )
            stride = data.draw(st.integers(1, 200))
            wire.inject(b, junk, MALLORY, stride=stride)
        assert snapshot(b) == before
        assert b.device.take_transmits() == []
        packet = a.packet_to(b, b"still there")
        a.send(packet)
        wire.settle()
        assert b.delivered[-1] == packet


def _with_prefix(genuine: bytes, length: int, rest: bytes) -> bytes:
    return genuine[:length] + rest


def _flipped(genuine: bytes, bit: int) -> bytes:
    changed = bytearray(genuine)
    changed[bit // 8 % len(changed)] ^= 1 << bit % 8
    return bytes(changed)


def test_a_train_cut_anywhere_is_taken_as_far_as_it_is_genuine(twin: DataPath) -> None:
    with Wire(seed=82, datapath=twin) as wire:
        a, b = connected(wire)
        wire.loss = 1.0
        flows = [(4000 + number, 5000) for number in range(10)]  # one each, so that nothing is merged
        packets = [udp_packet("10.0.0.1", "10.0.0.2", b"hello", ports) for ports in flows]
        a.send(*packets)
        messages = wire.messages(DATA, a)[-10:]
        train = b"".join(messages[:5]) + wire.random.randbytes(len(messages[0])) + b"".join(messages[5:])
        before = len(b.delivered)
        rx_bytes = b.status_of(a).rx_bytes
        wire.inject(b, train[:-1], a.address, stride=len(messages[0]))
        assert b.delivered[before:] == packets[:9]
        assert b.status_of(a).rx_bytes == rx_bytes + 9 * len(messages[0])
        assert (b.device.counters["data_forged"], b.device.counters["udp_malformed"]) == (1, 1)
