"""Endpoints follow authenticated messages and nothing else (WireGuard §2.1)."""

from __future__ import annotations

from ipaddress import ip_address

from tests.sim.sessions import connected
from tests.support.wireguard_pair import Host, Wire
from warren.model.tunnel import TransportAddress
from warren.proto.wireguard.constants import DATA
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.events import PeerRoamed

ELSEWHERE = ("203.0.113.9", 4444)
LOCAL = b"\0\0\0\0" + bytes([192, 0, 2, 2]) + bytes(4)


def endpoint_of(host: Host, other: Host) -> TransportAddress | None:
    return host.status_of(other).endpoint


def test_data_from_a_new_address_moves_the_endpoint(twin: DataPath) -> None:
    with Wire(seed=40, datapath=twin) as wire:
        a, b = connected(wire)
        before = a.address
        a.address = ELSEWHERE
        a.send(a.packet_to(b))
        wire.settle()
        assert endpoint_of(b, a) == TransportAddress(ip_address(ELSEWHERE[0]), ELSEWHERE[1])
        assert b.events[-1] == PeerRoamed(a.public_key, before, ELSEWHERE)
        packet = b.packet_to(a)
        b.send(packet)
        wire.settle()
        assert packet in a.delivered


def test_a_handshake_from_a_new_address_moves_the_endpoint_also_to_the_other_family(twin: DataPath) -> None:
    with Wire(seed=41, datapath=twin) as wire:
        a, b = connected(wire)
        wire.advance(200)
        a.address = ("2001:db8::5", 4444, 0, 0)
        wire.filter = lambda source, _destination, data: source != a.address or data[0] != DATA
        a.send(a.packet_to(b))
        wire.settle()
        assert endpoint_of(b, a) == TransportAddress(ip_address("2001:db8::5"), 4444)


def test_a_keepalive_moves_the_endpoint(twin: DataPath) -> None:
    with Wire(seed=42, datapath=twin) as wire:
        a, b = connected(wire)
        a.configure(a.peer(b, persistent_keepalive_s=25))
        wire.settle()
        a.address = ELSEWHERE
        wire.advance(26)
        assert endpoint_of(b, a) == TransportAddress(ip_address(ELSEWHERE[0]), ELSEWHERE[1])


def test_replayed_and_forged_messages_from_elsewhere_move_nothing(twin: DataPath) -> None:
    with Wire(seed=43, datapath=twin) as wire:
        a, b = connected(wire)
        before = endpoint_of(b, a)
        for _, _, data in list(wire.captured):
            wire.inject(b, data, ELSEWHERE)
            forged = bytearray(data)
            forged[-1] ^= 1
            wire.inject(b, bytes(forged), ELSEWHERE)
            if data[0] == DATA:
                ahead = bytearray(data)
                ahead[8:16] = (1000).to_bytes(8, "little")
                wire.inject(b, bytes(ahead), ELSEWHERE)
        assert endpoint_of(b, a) == before
        assert b.device.counters["data_forged"] > 0


def test_a_message_caught_and_delivered_first_by_someone_else_moves_the_endpoint_until_the_peer_speaks(
    twin: DataPath,
) -> None:
    with Wire(seed=44, datapath=twin) as wire:
        a, b = connected(wire)
        before = endpoint_of(b, a)
        wire.loss = 1.0
        a.send(a.packet_to(b))
        wire.loss = 0.0
        wire.inject(b, wire.messages(DATA, a)[-1], ELSEWHERE)
        assert endpoint_of(b, a) != before  # §2.1: it is authentic
        a.send(a.packet_to(b))
        wire.settle()
        assert endpoint_of(b, a) == before


def test_roaming_to_and_fro_is_told_at_most_once_a_second(twin: DataPath) -> None:
    with Wire(seed=45, datapath=twin) as wire:
        a, b = connected(wire)
        home = a.address
        b.events.clear()
        for number in range(100):
            a.address = ELSEWHERE if number % 2 else home
            a.send(a.packet_to(b))
            wire.advance(0.01)
        wire.advance(0.5)
        assert b.device.counters["roamed"] > 90
        assert len(b.events) <= 2


def test_answers_leave_from_the_address_that_was_spoken_to(twin: DataPath) -> None:
    with Wire(seed=46, datapath=twin) as wire:
        a, b = wire.pair()
        b.local = LOCAL
        a.send(a.packet_to(b))
        wire.settle()
        assert b.sent_from[-1] == LOCAL
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == LOCAL


def test_a_configured_endpoint_forgets_the_source_address(twin: DataPath) -> None:
    with Wire(seed=47, datapath=twin) as wire:
        a, b = connected(wire)
        b.local = LOCAL
        a.send(a.packet_to(b))
        wire.settle()
        b.configure(b.peer(a))
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == b""


def test_an_unanswered_handshake_forgets_the_source_address(twin: DataPath) -> None:
    with Wire(seed=48, datapath=twin) as wire:
        a, b = connected(wire)
        b.local = LOCAL
        a.send(a.packet_to(b))
        wire.settle()
        wire.loss = 1.0
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == LOCAL
        wire.advance(16)
        assert b.sent_from[-1] == b""


def test_a_retransmitted_initiation_forgets_the_source_address(twin: DataPath) -> None:
    with Wire(seed=50, datapath=twin) as wire:
        a, b = connected(wire)
        b.local = LOCAL
        a.send(a.packet_to(b))
        wire.advance(200)
        wire.loss = 1.0
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == LOCAL
        wire.advance(6)
        assert b.sent_from[-1] == b""


def test_the_owner_can_have_source_addresses_forgotten(twin: DataPath) -> None:
    with Wire(seed=49, datapath=twin) as wire:
        a, b = connected(wire)
        b.local = LOCAL
        a.send(a.packet_to(b))
        wire.settle()
        b.device.forget_sources()
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == b""


def test_a_handshake_that_waits_begins_anew_at_once_when_it_is_told_another_address(twin: DataPath) -> None:
    with Wire(seed=50, datapath=twin) as wire:
        a, b = wire.pair()
        a.configure(a.peer(b, endpoint=TransportAddress(ip_address("203.0.113.1"), 1)))
        packet = a.packet_to(b)
        a.send(packet)
        wire.advance(1)
        assert b.delivered == []
        a.configure(a.peer(b))
        wire.advance(0.1)
        assert b.delivered == [packet]


def test_a_peer_without_an_address_is_shaken_hands_with_as_soon_as_it_has_one(twin: DataPath) -> None:
    with Wire(seed=51, datapath=twin) as wire:
        a, b = wire.pair()
        packet = b.packet_to(a)
        b.send(packet)
        wire.advance(1)
        b.configure(b.peer(a))
        wire.advance(0.1)
        assert a.delivered == [packet]


def test_being_told_the_same_address_again_sends_nothing(twin: DataPath) -> None:
    with Wire(seed=52, datapath=twin) as wire:
        a, b = wire.pair()
        wire.filter = lambda *_: False
        a.send(a.packet_to(b))
        before = len(wire.captured)
        for _ in range(10):
            a.configure(a.peer(b))
        wire.advance(0.1)
        assert len(wire.captured) == before


def test_without_anything_to_send_a_new_address_is_not_shaken_hands_with(twin: DataPath) -> None:
    with Wire(seed=53, datapath=twin) as wire:
        a, b = wire.pair()
        a.configure(a.peer(b, endpoint=TransportAddress(ip_address("203.0.113.1"), 1)))
        wire.advance(5)
        assert wire.captured == []
