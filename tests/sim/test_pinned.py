"""Endpoints that are the controller's business: while one listens it alone moves them, and nothing is lost by it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.sim.sessions import connected
from tests.support.wireguard_pair import Host, Wire
from warren.model.datagrams import PathWanted, PeerHeard
from warren.model.tunnel import TransportAddress, Way
from warren.proto.wireguard.constants import DATA, INITIATION, RESPONSE
from warren.proto.wireguard.datapaths import DataPath

ELSEWHERE = ("203.0.113.9", 4444)
NOWHERE = TransportAddress(ip_address("198.51.100.1"), 9)
SOURCE = Way(ip_address("192.0.2.2"), 5)


def place(address: tuple[object, ...]) -> TransportAddress:
    return TransportAddress(ip_address(str(address[0])), int(str(address[1])))


def news(host: Host) -> list[PathWanted | PeerHeard]:
    return [event.news for event in host.events if event.news is not None]


def pinned(wire: Wire) -> tuple[Host, Host]:
    """Connected; b listens, and a is pinned where it is."""
    a, b = connected(wire)
    b.device.listen(True)
    b.configure(b.peer(a, pinned=True))
    b.events.clear()
    return a, b


def test_data_from_elsewhere_is_taken_and_told_and_moves_nothing(twin: DataPath) -> None:
    with Wire(seed=70, datapath=twin) as wire:
        a, b = pinned(wire)
        before = b.status_of(a).endpoint
        b.delivered.clear()
        a.address = ELSEWHERE
        for _ in range(10):
            a.send(a.packet_to(b))
            wire.advance(0.3)
        assert len(b.delivered) == 10
        assert b.status_of(a).endpoint == before
        assert news(b) == [PeerHeard(a.public_key, place(ELSEWHERE), Way())] * 3  # one a second
        assert b.device.counters["roamed"] == 1  # in the beginning


def test_without_a_listener_it_roams_as_ever(twin: DataPath) -> None:
    with Wire(seed=71, datapath=twin) as wire:
        a, b = pinned(wire)
        b.device.listen(False)
        a.address = ELSEWHERE
        a.send(a.packet_to(b))
        wire.settle()
        assert b.status_of(a).endpoint == place(ELSEWHERE)
        assert news(b) == []
        b.device.listen(True)
        a.address = ("203.0.113.9", 5555)
        a.send(a.packet_to(b))
        wire.settle()
        assert b.status_of(a).endpoint == place(ELSEWHERE)


def test_a_peer_that_is_not_pinned_roams_also_with_a_listener(twin: DataPath) -> None:
    with Wire(seed=72, datapath=twin) as wire:
        a, b = pinned(wire)
        b.configure(b.peer(a, endpoint=None, pinned=False))
        a.address = ELSEWHERE
        a.send(a.packet_to(b))
        wire.settle()
        assert b.status_of(a).endpoint == place(ELSEWHERE)


def test_a_handshake_from_elsewhere_is_answered_there_and_data_goes_on_to_the_endpoint(twin: DataPath) -> None:
    with Wire(seed=73, datapath=twin) as wire:
        a, b = pinned(wire)
        before = a.address
        wire.advance(200)  # the session is too old
        a.address = ELSEWHERE
        count = len(wire.captured)
        a.send(a.packet_to(b))
        wire.settle()
        sent_by_b = [(data[0], to) for source, to, data in wire.captured[count:] if source == b.address]
        assert (RESPONSE, ELSEWHERE) in sent_by_b
        b.send(b.packet_to(a))
        assert wire.captured[-1][1:2] == (before,)
        assert b.status_of(a).endpoint == place(before)
        b.configure(b.peer(a, endpoint=place(ELSEWHERE)))
        packet = b.packet_to(a, b"moved")
        b.send(packet)
        wire.settle()
        assert a.delivered[-1] == packet


def test_a_response_from_elsewhere_completes_the_handshake_and_moves_nothing(twin: DataPath) -> None:
    with Wire(seed=74, datapath=twin) as wire:
        a, b = pinned(wire)
        wire.advance(200)
        wire.filter = lambda source, _to, data: source != a.address or data[0] == RESPONSE
        b.send(b.packet_to(a))
        real = wire.post
        # What a sends is rewritten on its way: it arrives from elsewhere, as through a NAT that forgot.
        wire.post = lambda source, to, data, ecn=0: real(  # type: ignore[method-assign]
            ELSEWHERE if source == a.address else source, to, data, ecn
        )
        wire.filter = lambda *_: True
        completed = b.device.counters["handshakes_completed"]
        wire.settle()
        assert b.device.counters["handshakes_completed"] == completed + 1
        assert b.status_of(a).endpoint == place(a.address)
        assert news(b) == [PeerHeard(a.public_key, place(ELSEWHERE), Way())]


def test_forged_and_replayed_messages_from_elsewhere_are_no_news(twin: DataPath) -> None:
    with Wire(seed=75, datapath=twin) as wire:
        _, b = pinned(wire)
        for _, _, data in list(wire.captured):
            forged = bytearray(data)
            forged[-1] ^= 1
            wire.inject(b, data, ELSEWHERE)
            wire.inject(b, bytes(forged), ELSEWHERE)
            wire.collect(b)
        wire.settle()
        assert news(b) == []


def test_a_pinned_peer_without_an_endpoint_wants_one_and_its_packets_wait(twin: DataPath) -> None:
    with Wire(seed=76, datapath=twin) as wire:
        a, b = wire.pair()
        b.device.listen(True)
        b.configure(b.peer(a, endpoint=None, pinned=True))
        packets = [b.packet_to(a, b"%d" % n) for n in range(25)]
        for packet in packets:
            b.send(packet)
            wire.advance(0.1)
        assert news(b) == [PathWanted(a.public_key)] * 3  # one a second
        a.send(a.packet_to(b))  # the peer comes by itself: a session, and still no endpoint
        wire.settle()
        assert b.status_of(a).endpoint is None
        assert isinstance(news(b)[-1], PeerHeard | PathWanted)
        assert a.delivered == []
        b.configure(b.peer(a))
        wire.settle()
        assert a.delivered == packets


def test_a_handshake_that_stays_unanswered_wants_a_path_while_there_is_something_to_send(twin: DataPath) -> None:
    with Wire(seed=77, datapath=twin) as wire:
        a, b = wire.pair()
        b.device.listen(True)
        b.configure(b.peer(a, endpoint=NOWHERE, pinned=True))
        b.send(b.packet_to(a))
        wire.advance(0.9)
        b.send(b.packet_to(a))
        assert news(b) == []  # an answer may still be under way
        wire.advance(0.2)
        b.send(b.packet_to(a))
        assert news(b) == [PathWanted(a.public_key)]
        wire.advance(30)  # nothing new is sent: it is told with each retransmission
        assert 4 <= len(news(b)) <= 8


def test_without_a_listener_nothing_is_wanted(twin: DataPath) -> None:
    with Wire(seed=78, datapath=twin) as wire:
        a, b = wire.pair()
        b.configure(b.peer(a, endpoint=None, pinned=True))
        for _ in range(5):
            b.send(b.packet_to(a))
            wire.advance(2)
        assert news(b) == []


def test_a_new_endpoint_sends_what_waits_at_once_and_restarts_the_handshake(twin: DataPath) -> None:
    with Wire(seed=79, datapath=twin) as wire:
        a, b = wire.pair()
        b.device.listen(True)
        b.configure(b.peer(a, endpoint=NOWHERE, pinned=True))
        packet = b.packet_to(a)
        b.send(packet)
        wire.advance(0.5)
        b.configure(b.peer(a))
        assert wire.captured[-1][1] == a.address
        assert wire.captured[-1][2][0] == INITIATION
        wire.advance(0.2)
        assert a.delivered == [packet]


@pytest.mark.parametrize("interval", [1, 3])
def test_switching_paths_under_traffic_loses_no_packet_and_makes_no_handshake(twin: DataPath, interval: int) -> None:
    with Wire(seed=80, datapath=twin) as wire:
        a, b = pinned(wire)
        a.device.listen(True)
        a.configure(a.peer(b, pinned=True))
        a.delivered.clear()
        b.delivered.clear()
        handshakes = b.device.counters["handshakes_completed"]
        # Both can be reached at two places; the wire carries by destination, so a place is where the host is now.
        for number in range(60):
            if number % interval == 0:
                way = SOURCE if number % 2 else Way()
                b.configure(b.peer(a, way=way))
            a.send(a.packet_to(b, b"%d" % number))
            b.send(b.packet_to(a, b"%d" % number))
            wire.advance(0.05)
        wire.settle()
        assert a.delivered == [b.packet_to(a, b"%d" % number) for number in range(60)]
        assert b.delivered == [a.packet_to(b, b"%d" % number) for number in range(60)]
        assert b.device.counters["handshakes_completed"] == handshakes


def test_a_source_that_was_chosen_stays_and_one_that_was_learned_follows(twin: DataPath) -> None:
    with Wire(seed=81, datapath=twin) as wire:
        a, b = pinned(wire)
        learned = bytes(4) + bytes([192, 0, 2, 77]) + bytes(4)
        b.local = learned
        a.send(a.packet_to(b))
        wire.settle()
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == learned
        b.configure(b.peer(a, way=SOURCE))
        a.send(a.packet_to(b))
        wire.settle()
        b.send(b.packet_to(a))
        assert b.sent_from[-1] == (5).to_bytes(4, "little") + bytes([192, 0, 2, 2]) + bytes(4)
        assert b.status_of(a).way == SOURCE
        b.device.forget_sources()
        assert b.status_of(a).way == SOURCE
        b.device.listen(False)
        b.device.forget_sources()
        assert b.status_of(a).way == Way()


def test_keepalives_and_data_of_a_removed_listener_still_flow(twin: DataPath) -> None:
    with Wire(seed=82, datapath=twin) as wire:
        a, b = pinned(wire)
        b.device.listen(False)
        b.send(b.packet_to(a, b"alone"))
        wire.settle()
        assert a.delivered[-1] == b.packet_to(a, b"alone")
        assert len(wire.messages(DATA)) > 0
