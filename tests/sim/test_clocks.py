"""Clocks that jump (CVE-2021-46873)."""

from __future__ import annotations

from itertools import pairwise

from tests.support.wireguard_pair import Host, Wire
from warren.proto.wireguard.constants import INITIATION
from warren.proto.wireguard.datapaths import DataPath

TEN_YEARS_NS = 10 * 365 * 86400 * 10**9
DAY_NS = 86400 * 10**9


def exchange(wire: Wire, sender: Host, receiver: Host) -> bool:
    """Whether a packet sent now arrives within ten seconds."""
    packet = sender.packet_to(receiver, b"%f" % wire.now)
    sender.send(packet)
    wire.advance(10)
    return packet in receiver.delivered


def test_timestamps_rise_strictly_whatever_the_clock_does(twin: DataPath) -> None:
    with Wire(seed=90, datapath=twin) as wire:
        a, b = wire.pair()
        for jump in (0, TEN_YEARS_NS, -TEN_YEARS_NS, 0, -DAY_NS, 3 * DAY_NS, 0):
            a.wall_offset_ns += jump
            assert exchange(wire, a, b)
            wire.advance(200)
        assert len(a.timestamps) >= 7
        assert all(earlier < later for earlier, later in pairwise(a.timestamps))


def test_sessions_do_not_notice_the_wall_clock(twin: DataPath) -> None:
    with Wire(seed=91, datapath=twin) as wire:
        a, b = wire.pair()
        assert exchange(wire, a, b)
        for jump in (TEN_YEARS_NS, -2 * TEN_YEARS_NS):
            a.wall_offset_ns += jump
            b.wall_offset_ns -= jump
            assert exchange(wire, a, b)
            assert exchange(wire, b, a)
        assert len(wire.messages(INITIATION)) == 1


def test_after_a_jump_and_a_restart_the_stored_floor_lets_the_key_in_again(twin: DataPath) -> None:
    with Wire(seed=92, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = TEN_YEARS_NS
        assert exchange(wire, a, b)
        a.wall_offset_ns = 0
        a.restart(timestamp_floor_ns=a.timestamps[-1])
        a.configure(a.peer(b))
        a.device.up(wire.now)
        assert exchange(wire, a, b)
        assert a.timestamps[-1] > a.timestamps[-2] > TEN_YEARS_NS


def test_without_the_floor_the_key_would_be_locked_out(twin: DataPath) -> None:
    """The attack is real: this is what the floor is for."""
    with Wire(seed=93, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = TEN_YEARS_NS
        assert exchange(wire, a, b)
        a.wall_offset_ns = 0
        a.restart()
        a.configure(a.peer(b))
        a.device.up(wire.now)
        assert not exchange(wire, a, b)
        assert b.device.counters["handshake_replayed"] >= 1


def test_an_initiation_of_the_jump_replayed_to_a_restarted_responder_does_not_lock_the_peer_out(twin: DataPath) -> None:
    with Wire(seed=94, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = TEN_YEARS_NS
        assert exchange(wire, a, b)
        (captured,) = wire.messages(INITIATION)
        a.wall_offset_ns = 0
        a.restart(timestamp_floor_ns=a.timestamps[-1])
        a.configure(a.peer(b))
        a.device.up(wire.now)
        b.restart()
        b.configure(b.peer(a, endpoint=None))
        b.device.up(wire.now)
        wire.inject(b, captured, ("203.0.113.66", 6666))
        assert b.delivered == [a.packet_to(b, b"1000.000000")]  # from before the restart: the replay delivered nothing
        assert exchange(wire, a, b)


def test_a_peer_removed_and_added_again_continues_above_its_timestamps(twin: DataPath) -> None:
    with Wire(seed=95, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = TEN_YEARS_NS
        assert exchange(wire, a, b)
        a.wall_offset_ns = 0
        a.configure(a.peer(b, remove=True))
        a.configure(a.peer(b))
        assert exchange(wire, a, b)


def test_a_clock_before_1970_is_no_obstacle(twin: DataPath) -> None:
    with Wire(seed=96, datapath=twin) as wire:
        a, b = wire.pair()
        a.wall_offset_ns = -(10**19)
        assert exchange(wire, a, b)


def test_each_timestamp_is_told_before_the_initiation_that_carries_it(twin: DataPath) -> None:
    with Wire(seed=97, datapath=twin) as wire:
        a, b = wire.pair()
        wire.loss = 1.0
        frame = bytearray(bytes(10) + a.packet_to(b))
        a.device.send(memoryview(frame), len(frame), wire.now)
        a.device.flush(wire.now)
        (event,) = a.device.take_events()
        (transmit,) = a.device.take_transmits()
        assert transmit.data[0] == INITIATION
        assert event.timestamp_ns <= a.wall_clock_ns()  # type: ignore[attr-defined]
        assert a.device.take_events() == []
