"""The life of sessions: renewal, limits, keepalives, forgetting (WireGuard §6)."""

from __future__ import annotations

import pytest

from tests.sim.sessions import connected
from tests.support.wireguard_pair import Host, Wire
from warren.identity.keys import PrivateKey
from warren.proto.wireguard.constants import DATA, INITIATION, REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.events import HandshakeCompleted, SessionRenewed, SessionsForgotten


def initiations(wire: Wire) -> int:
    return len(wire.messages(INITIATION))


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_traffic_for_three_hours_is_rekeyed_every_two_minutes_and_loses_nothing_to_it(
    twin: DataPath, loss: float
) -> None:
    with Wire(seed=20, datapath=twin) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        wire.settle()
        wire.filter = lambda _source, _destination, data: data[0] == DATA or wire.random.random() >= loss
        sent: dict[str, list[bytes]] = {"a": [], "b": []}
        for second in range(0, 3 * 3600, 2):
            for sender, receiver in ((a, b), (b, a)):
                packet = sender.packet_to(receiver, b"%d" % second)
                sent[sender.name].append(packet)
                sender.send(packet)
            wire.advance(2)
        assert b.delivered[1:] == sent["a"]
        assert a.delivered == sent["b"]
        assert a.device.counters["staged_dropped"] == b.device.counters["staged_dropped"] == 0
        if not loss:
            assert 3 * 3600 / 126 <= initiations(wire) <= 3 * 3600 / 120 + 1
            assert len(wire.messages(INITIATION, b)) == 0  # §6.2: only the initiator renews


def test_only_the_first_of_many_sessions_is_worth_a_log_line(twin: DataPath) -> None:
    with Wire(seed=21, datapath=twin) as wire:
        a, b = connected(wire)
        for _ in range(60):
            a.send(a.packet_to(b))
            wire.advance(10)
        for host, peer in ((a, b), (b, a)):
            told = [event for event in host.events if isinstance(event, HandshakeCompleted)]
            assert told[0] == HandshakeCompleted(peer.public_key, host is a)
            assert told[1:] == [SessionRenewed(peer.public_key, host is a)] * 4
            assert [event.level for event in told] == ["INFO", *["DEBUG"] * 4]


def test_a_receiver_that_never_sends_renews_at_165_seconds(twin: DataPath) -> None:
    with Wire(seed=22, datapath=twin) as wire:
        a, b = connected(wire)
        age = 20.0
        quiet_until = 164.0
        wire.advance(quiet_until - age)
        assert initiations(wire) == 1
        b.send(b.packet_to(a))  # 164 s: too early
        wire.advance(0.5)
        assert initiations(wire) == 1
        wire.advance(2.0)
        b.send(b.packet_to(a))  # 166.5 s
        wire.advance(0.5)
        assert initiations(wire) == 2
        b.send(b.packet_to(a))  # once per session is enough
        wire.advance(4.0)
        assert initiations(wire) == 2
        wire.advance(150.0)
        b.send(b.packet_to(a))  # the new session is 155 s old
        wire.advance(1.0)
        assert initiations(wire) == 2
        wire.advance(12.0)
        b.send(b.packet_to(a))
        wire.advance(1.0)
        assert initiations(wire) == 3


def test_keepalives_alone_renew_a_session_in_time(twin: DataPath) -> None:
    with Wire(seed=37, datapath=twin) as wire:
        a, b = wire.pair()
        a.configure(a.peer(b, persistent_keepalive_s=25))
        wire.advance(110)
        assert initiations(wire) == 1
        wire.advance(50)
        assert initiations(wire) == 2


def test_a_persistent_keepalive_without_an_endpoint_starts_when_there_is_one(twin: DataPath) -> None:
    with Wire(seed=38, datapath=twin) as wire:
        a, b = wire.pair()
        b.configure(b.peer(a, endpoint=None, persistent_keepalive_s=25))
        wire.advance(200)
        assert wire.captured == []
        b.configure(b.peer(a))
        wire.advance(26)
        assert a.status_of(b).last_handshake_ns > 0


def test_a_session_older_than_three_minutes_neither_sends_nor_receives(twin: DataPath) -> None:
    with Wire(seed=23, datapath=twin) as wire:
        a, b = connected(wire)
        b.send(b.packet_to(a, b"late"))
        late = wire.messages(DATA, b)[-1]
        wire.filter = lambda _source, _destination, _data: False
        wire.advance(165)
        data_before = len(wire.messages(DATA, b))
        wire.inject(a, wire.messages(DATA, b)[0], b.address)  # a replay, and also too late
        b.send(b.packet_to(a))
        assert len(wire.messages(DATA, b)) == data_before  # it waits for a new session
        delivered = list(a.delivered)
        wire.inject(a, late, b.address)
        assert a.delivered == delivered
        assert a.device.counters["udp_unknown_index"] >= 1


@pytest.mark.parametrize("side", ["initiator", "responder"])
def test_after_2_to_the_60_messages_either_side_renews(twin: DataPath, side: str) -> None:
    with Wire(seed=24, datapath=twin) as wire:
        a, b = connected(wire)
        sender, receiver = (a, b) if side == "initiator" else (b, a)
        set_counter(sender, REKEY_AFTER_MESSAGES)
        before = initiations(wire)
        sender.send(sender.packet_to(receiver))
        wire.settle()
        assert initiations(wire) == before + 1
        packet = sender.packet_to(receiver, b"on")
        sender.send(packet)
        wire.settle()
        assert packet in receiver.delivered
        assert initiations(wire) == before + 1


def set_counter(host: Host, counter: int) -> None:
    """Pretend that ``host`` sent so many messages under its session. There is no public way to send 2^60 of them."""
    (peer,) = host.device._peers.values()
    assert peer.keypairs.current is not None
    peer.keypairs.current.sealing.counter = counter


def test_the_last_counter_is_never_exceeded(twin: DataPath) -> None:
    with Wire(seed=25, datapath=twin) as wire:
        a, b = connected(wire)
        a.device.handshake_work(wire.now, 0)
        set_counter(a, REJECT_AFTER_MESSAGES - 2)
        wire.filter = lambda _source, _destination, data: data[0] == DATA  # no renewal
        packets = [a.packet_to(b, b"%d" % number) for number in range(5)]
        for packet in packets:
            a.send(packet)
        wire.advance(0.5)
        counters = [int.from_bytes(message[8:16], "little") for message in wire.messages(DATA, a)]
        assert max(counters) == REJECT_AFTER_MESSAGES - 1
        assert b.delivered[-2:] == packets[:2]
        wire.filter = lambda _source, _destination, _data: True
        wire.advance(10)
        assert b.delivered[-3:] == packets[2:]


def test_a_message_that_claims_a_counter_beyond_the_limit_is_dropped(twin: DataPath) -> None:
    with Wire(seed=26, datapath=twin) as wire:
        a, b = connected(wire)
        a.send(a.packet_to(b))
        message = bytearray(wire.messages(DATA, a)[-1])
        message[8:16] = REJECT_AFTER_MESSAGES.to_bytes(8, "little")
        wire.inject(b, bytes(message), a.address)
        assert b.device.counters["data_over_limit"] == 1


def test_data_that_is_not_answered_draws_a_keepalive_after_ten_seconds_and_no_more(twin: DataPath) -> None:
    with Wire(seed=27, datapath=twin) as wire:
        a, b = connected(wire)
        before = len(wire.messages(DATA, b))
        a.send(a.packet_to(b))
        wire.advance(9.9)
        assert len(wire.messages(DATA, b)) == before
        wire.advance(0.3)
        assert [len(message) for message in wire.messages(DATA, b)[before:]] == [32]
        wire.advance(60)
        assert len(wire.messages(DATA, b)) == before + 1  # keepalives are not answered
        assert initiations(wire) == 1


def test_data_that_keeps_coming_draws_a_keepalive_every_ten_seconds(twin: DataPath) -> None:
    with Wire(seed=28, datapath=twin) as wire:
        a, b = connected(wire)
        before = len(wire.messages(DATA, b))
        for _ in range(60):
            a.send(a.packet_to(b))
            wire.advance(1)
        assert 5 <= len(wire.messages(DATA, b)) - before <= 6


def test_silence_after_data_begins_a_handshake_after_fifteen_seconds(twin: DataPath) -> None:
    with Wire(seed=29, datapath=twin) as wire:
        a, b = connected(wire)
        wire.loss = 1.0
        a.send(a.packet_to(b))
        wire.advance(14.99)
        assert initiations(wire) == 1
        wire.advance(0.35)
        assert initiations(wire) == 2


def test_persistent_keepalives_go_out_whenever_nothing_else_did(twin: DataPath) -> None:
    with Wire(seed=30, datapath=twin) as wire:
        a, b = connected(wire)
        a.configure(a.peer(b, persistent_keepalive_s=25))
        wire.settle()
        before = len(wire.messages(DATA, a))
        wire.advance(90)
        assert len(wire.messages(DATA, a)) - before == 3
        a.configure(a.peer(b, persistent_keepalive_s=0))
        wire.advance(100)
        assert len(wire.messages(DATA, a)) - before == 3


def test_keys_are_forgotten_after_nine_minutes_without_a_new_session(twin: DataPath) -> None:
    with Wire(seed=31, datapath=twin) as wire:
        a, b = connected(wire)
        wire.loss = 1.0
        a.events.clear()
        wire.advance(3 * 180 - 22)
        assert a.events == []
        wire.advance(3)
        assert a.events == [SessionsForgotten(b.public_key)]
        assert not a.device._peers[b.public_key.raw].keypairs.clear()  # nothing was left to clear


def test_an_idle_device_wants_to_wake_for_forgetting_only_and_then_never(twin: DataPath) -> None:
    with Wire(seed=32, datapath=twin) as wire:
        a, _ = connected(wire)
        deadline = a.device.next_deadline()
        assert deadline is not None
        assert deadline.why == "no new session was made for a long time"
        wire.advance(600)
        assert a.device.next_deadline() is None


def test_a_new_private_key_ends_sending_and_the_peer_is_reached_with_the_new_one(twin: DataPath) -> None:
    with Wire(seed=33, datapath=twin) as wire:
        a, b = connected(wire)
        before = len(wire.messages(DATA, a))
        old = a.public_key
        a.private_key = PrivateKey(b"\x07" * 32)
        a.configure(private_key=a.private_key)
        b.configure(b.peer(a, endpoint=None))
        packet = a.packet_to(b, b"as another")
        a.send(packet)
        assert len(wire.messages(DATA, a)) == before
        wire.settle()
        assert packet in b.delivered
        assert {peer.public_key for peer in b.device.status().peers} == {old, a.public_key}


def test_a_removed_peer_is_gone_with_sessions_timers_and_waiting_packets(twin: DataPath) -> None:
    with Wire(seed=34, datapath=twin) as wire:
        a, b = connected(wire)
        a.send(a.packet_to(b))
        a.configure(a.peer(b, remove=True))
        wire.captured.clear()
        delivered = list(a.delivered)
        b.send(b.packet_to(a))
        wire.advance(0.5)
        a.send(a.packet_to(b))
        wire.advance(14)
        assert a.delivered == delivered
        assert wire.messages(DATA, a) == []
        assert a.device.counters["udp_unknown_index"] >= 1
        assert a.device.counters["tun_no_peer"] == 1
        wire.advance(3600)
        assert a.device.next_deadline() is None


def test_down_forgets_sessions_and_up_makes_new_ones(twin: DataPath) -> None:
    with Wire(seed=35, datapath=twin) as wire:
        a, b = connected(wire)
        a.device.down(wire.now)
        a.send(a.packet_to(b))
        b.send(b.packet_to(a))
        wire.advance(0.5)
        assert a.device.counters["tun_device_down"] == 1
        assert a.device.counters["udp_unknown_index"] == 1
        a.device.up(wire.now)
        packet = a.packet_to(b, b"again")
        a.send(packet)
        wire.settle()
        assert packet in b.delivered
        assert a.events.count(HandshakeCompleted(b.public_key, initiated_by_us=True)) == 2


def test_a_device_without_a_private_key_is_deaf_and_dumb(twin: DataPath) -> None:
    with Wire(seed=36, datapath=twin) as wire:
        a, b = connected(wire)
        a.configure(private_key=PrivateKey(bytes(32)))
        sent = len(wire.messages(DATA, a)) + initiations(wire)
        a.send(a.packet_to(b))
        b.send(b.packet_to(a, b"unheard"))
        wire.advance(30)
        assert len(wire.messages(DATA, a)) + len(wire.messages(INITIATION, a)) == sent
        assert b.packet_to(a, b"unheard") not in a.delivered
        assert a.device.status().private_key is None
