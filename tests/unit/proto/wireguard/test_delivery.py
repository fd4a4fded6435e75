from __future__ import annotations

from array import array
from ipaddress import ip_network
from typing import Any

import pytest

from tests.support.packets import udp_packet
from warren.proto.ip.coalesce import Coalescer
from warren.proto.wireguard.allowed_ips import AllowedIps
from warren.proto.wireguard.counters import new_counters
from warren.proto.wireguard.delivery import COALESCERS, Delivery

ANNA: Any = "anna"
BERT: Any = "bert"


class Box:
    """A delivery with two peers: Anna has 10.0.0.1, Bert 10.0.0.2."""

    def __init__(self) -> None:
        self.counters = new_counters()
        allowed_ips: AllowedIps[Any] = AllowedIps()
        allowed_ips.insert(ip_network("10.0.0.1/32"), ANNA)
        allowed_ips.insert(ip_network("10.0.0.2/32"), BERT)
        self.delivery = Delivery(Coalescer, True, allowed_ips, self.counters)

    def add(self, peer: Any, *packets: bytes) -> None:
        """One opened train of ``packets``, all of one length."""
        slots = bytearray(b"".join(bytes(16) + packet + bytes(16) for packet in packets))
        lengths = array("i", [len(packet) for packet in packets])
        self.delivery.add(peer, slots, 0, len(slots), len(slots) // len(packets), lengths)

    def take(self) -> list[bytes]:
        return [bytes(frame)[10:] for frame in self.delivery.take()]


@pytest.fixture
def box() -> Box:
    return Box()


def packet(source: str, port: int = 1, size: int = 100) -> bytes:
    return udp_packet(source, "10.9.9.9", bytes(size), (port, 9))


def test_frames_come_out_once_and_in_order(box: Box) -> None:
    packets = [packet("10.0.0.1", port) for port in range(1, 9)]
    box.add(ANNA, *packets[:3])
    box.add(ANNA, *packets[3:])
    assert box.take() == packets
    assert box.take() == []


def test_peers_that_alternate_keep_their_own_frames_and_order(box: Box) -> None:
    box.add(ANNA, packet("10.0.0.1", 1))
    box.add(BERT, packet("10.0.0.2", 2))
    box.add(ANNA, packet("10.0.0.1", 3))
    assert box.take() == [packet("10.0.0.1", 1), packet("10.0.0.2", 2), packet("10.0.0.1", 3)]


def test_one_peer_cannot_speak_for_another_even_with_trains_side_by_side(box: Box) -> None:
    box.add(ANNA, packet("10.0.0.1", 1))
    box.add(BERT, packet("10.0.0.1", 2))
    box.add(ANNA, packet("10.0.0.2", 3))
    assert box.take() == [packet("10.0.0.1", 1)]
    assert box.counters["inner_spoofed"] == 2


def test_room_is_for_one_more_train_of_anyone(box: Box) -> None:
    turns = 0
    while box.delivery.room():
        box.add((ANNA, BERT)[turns % 2], packet(("10.0.0.1", "10.0.0.2")[turns % 2], turns + 1))
        turns += 1
    assert turns == COALESCERS
    assert len(box.take()) == turns
    assert box.delivery.room()


def test_one_peer_may_fill_all_the_room_there_is(box: Box) -> None:
    taken = 0
    while box.delivery.room():
        box.add(ANNA, *(packet("10.0.0.1", port, 1300) for port in range(1, 46)))
        taken += 45
    assert taken > 45 * COALESCERS
    assert len(box.take()) == taken
    assert box.counters["inner_no_room"] == 0


def test_who_does_not_ask_for_room_loses_trains_but_nothing_else(box: Box) -> None:
    for port in range(1, 10):
        box.add((ANNA, BERT)[port % 2], packet(("10.0.0.1", "10.0.0.2")[port % 2], port))
    lost = box.counters["inner_no_room"]
    assert lost > 0
    assert len(box.take()) == 9 - lost >= COALESCERS


def test_malformed_packets_are_counted(box: Box) -> None:
    box.add(ANNA, b"\x45" + bytes(99), packet("10.0.0.1", 1, 72))
    assert box.take() == [packet("10.0.0.1", 1, 72)]
    assert box.counters["inner_malformed"] == 1
