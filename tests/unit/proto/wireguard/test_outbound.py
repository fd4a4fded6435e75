"""What the host writes becomes trains, in order and never wider than one send can carry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.packets import udp_packet
from tests.support.wireguard_pair import Host, Wire
from warren.proto.wireguard.device import Device, Transmit
from warren.proto.wireguard.outbound import TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX

NOW = 1001.0


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host, Host]]:
    """``a`` with sessions to ``b`` and ``c``, nothing under way."""
    with Wire(seed=1) as wire:
        a, b = wire.pair()
        c = wire.host("c", "192.0.2.3", "10.0.0.3")
        c.configure(c.peer(a, endpoint=None))
        a.configure(a.peer(c))
        a.send(a.packet_to(b), a.packet_to(c))
        wire.settle()
        yield a, b, c


def sized(destination: str, length: int, ecn: int = 0) -> bytes:
    """An IPv4 packet of ``length`` bytes with the ECN field ``ecn`` (its header checksum is nobody's business here)."""
    packet = bytearray(udp_packet("10.0.0.1", destination, bytes(length - 28)))
    packet[1] = ecn
    return bytes(packet)


def stage(device: Device, *packets: bytes) -> None:
    for packet in packets:
        frame = bytearray(bytes(10) + packet)
        device.send(memoryview(frame), len(frame), NOW)


def trains(device: Device, *packets: bytes) -> list[tuple[str, int, int]]:
    """(endpoint, number of datagrams, stride) of each train that ``packets`` become."""
    stage(device, *packets)
    device.flush(NOW)
    return [shape(transmit) for transmit in device.take_transmits()]


def shape(transmit: Transmit) -> tuple[str, int, int]:
    return transmit.endpoint.address[0], -(-len(transmit.data) // transmit.stride), transmit.stride


B, C = "192.0.2.2", "192.0.2.3"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([100], [(1, 144)]),
        ([100] * 5, [(5, 144)]),
        ([100, 101, 112], [(3, 144)]),  # alike after padding
        ([100, 100, 60], [(3, 144)]),  # a shorter one ends a train
        ([100, 60, 60], [(2, 144), (1, 96)]),
        ([100, 60, 100], [(2, 144), (1, 144)]),
        ([60, 100, 100], [(1, 96), (2, 144)]),
        ([1420] * 3, [(3, 1452)]),  # not padded beyond the MTU
        ([1420] * 50, [(44, 1452), (6, 1452)]),
        ([100] * 130, [(64, 144), (64, 144), (2, 144)]),
    ],
)
def test_packets_of_one_size_share_a_train(
    hosts: tuple[Host, Host, Host], lengths: list[int], expected: list[tuple[int, int]]
) -> None:
    device = hosts[0].device
    packets = [sized("10.0.0.2", length) for length in lengths]
    assert trains(device, *packets) == [(B, count, stride) for count, stride in expected]


def test_peers_and_ecn_marks_do_not_share_a_train(hosts: tuple[Host, Host, Host]) -> None:
    device = hosts[0].device
    packets = [sized(f"10.0.0.{peer}", 100, ecn) for peer, ecn in ((2, 0), (2, 0), (3, 0), (2, 0), (2, 2), (2, 3))]
    stage(device, *packets)
    device.flush(NOW)
    transmits = device.take_transmits()
    assert [shape(t)[:2] for t in transmits] == [(B, 2), (C, 1), (B, 1), (B, 1), (B, 1)]
    assert [t.ecn for t in transmits] == [0, 0, 0, 2, 3]


@given(st.lists(st.tuples(st.sampled_from([2, 3]), st.integers(28, 1420)), max_size=150))
def test_every_packet_arrives_in_order_whatever_the_sizes(mix: list[tuple[int, int]]) -> None:
    with Wire(seed=2) as wire:
        a, b = wire.pair()
        c = wire.host("c", "192.0.2.3", "10.0.0.3")
        c.configure(c.peer(a, endpoint=None))
        a.configure(a.peer(c))
        a.send(a.packet_to(b), a.packet_to(c))
        wire.settle()
        packets = [(peer, udp_packet("10.0.0.1", f"10.0.0.{peer}", bytes(length - 28))) for peer, length in mix]
        stage(a.device, *(packet for _, packet in packets))
        a.device.flush(wire.now)
        transmits = a.device.take_transmits()
        for transmit in transmits:
            assert shape(transmit)[1] <= TRAIN_DATAGRAMS_MAX
            assert len(transmit.data) <= TRAIN_BYTES_MAX
            receiver = b if transmit.endpoint.address[0] == B else c
            for at in range(0, len(transmit.data), transmit.stride):
                wire.inject(receiver, bytes(transmit.data[at : at + transmit.stride]), a.address)
        assert b.delivered[1:] == [packet for peer, packet in packets if peer == 2]
        assert c.delivered[1:] == [packet for peer, packet in packets if peer == 3]


def test_a_full_buffer_pushes_back_and_is_free_again_once_its_trains_were_taken(hosts: tuple[Host, Host, Host]) -> None:
    device = hosts[0].device
    staged = 0
    while device.room():
        stage(device, sized("10.0.0.2", 1420))
        staged += 1
    assert 50 < staged < 1000
    device.flush(NOW)
    assert not device.room()  # the bytes are still to be sent
    assert sum(shape(transmit)[1] for transmit in device.take_transmits()) == staged
    assert device.room()


def test_a_train_stays_valid_until_the_next_send(hosts: tuple[Host, Host, Host]) -> None:
    a, b, _ = hosts
    stage(a.device, sized("10.0.0.2", 100))
    a.device.flush(NOW)
    (transmit,) = a.device.take_transmits()
    before = bytes(transmit.data)
    a.configure(a.peer(b, persistent_keepalive_s=1))
    a.device.handle_timeout(NOW + 1)  # sends a keepalive
    a.device.flush(NOW + 1)
    assert len(a.device.take_transmits()) == 1
    assert bytes(transmit.data) == before


@given(st.binary(max_size=120), st.integers(0, 120))
def test_arbitrary_frames_are_counted_or_sent_but_never_raise(frame: bytes, length: int) -> None:
    with Wire(seed=3) as wire:
        a, _ = wire.pair()
        buffer = bytearray(frame.ljust(max(length, len(frame)), b"\0"))
        a.device.send(memoryview(buffer), min(length, len(buffer)), wire.now)
        a.device.flush(wire.now)
        counters = a.device.counters
        noted = counters["tun_malformed"] + counters["tun_no_peer"] + counters["initiations_sent"]
        assert noted == 1


def test_a_frame_of_another_ip_version_is_malformed(hosts: tuple[Host, Host, Host]) -> None:
    device = hosts[0].device
    assert trains(device, b"\x50" + bytes(40), b"", b"\x45" + bytes(18), b"\x60" + bytes(38)) == []
    assert device.counters["tun_malformed"] == 4
