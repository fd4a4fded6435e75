"""What a NAT does, seen through an allocation of one's own."""

from __future__ import annotations

import random

from tests.unit.reach.relay_world import at
from warren.model.datagrams import ControlDatagram
from warren.paths.values import Base
from warren.reach.courses import host_base
from warren.reach.mirrors import AGAIN_S, Knocked, Mirrored, Mirrors, Throw

HOST = host_base(at("192.168.1.10").ip, 2)
RELAY = Base(kind="relay", relay="one")
RELAYED, OUTSIDE = at("198.51.100.1", 50_000), at("203.0.113.9", 4000)


class Mirror:
    """A NAT that maps what goes to ``RELAYED`` to ``mapped``, and lets in what comes from there or not."""

    def __init__(self, *, mapped: int = 4000, lets_in: bool = False, loses: int = 0) -> None:
        self.machine = Mirrors(random.Random(1).randbytes)
        self.mapped = at("203.0.113.9", mapped)
        self.lets_in = lets_in
        self.loses = loses
        self.sent: list[ControlDatagram | Throw] = []
        self.now = 0.0

    def run(self, seconds: float = 3.0) -> list[Mirrored | Knocked]:
        end = self.now + seconds
        for _ in range(200):
            deadline = self.machine.next_deadline()
            if deadline is None or deadline.at > end:
                break
            self.now = max(self.now, deadline.at)
            self.machine.handle_timeout(self.now)
            for thing in self.machine.take_transmits():
                self.sent.append(thing)
                if self.loses:
                    self.loses -= 1
                elif isinstance(thing, ControlDatagram):
                    assert self.machine.came(RELAY, self.mapped, thing.data)
                elif self.lets_in:
                    assert self.machine.receive(thing.data, RELAYED)
        return self.machine.take_events()


def test_a_nat_that_keeps_its_port_and_filters_by_port() -> None:
    mirror = Mirror()
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    assert mirror.run() == [Mirrored(HOST, RELAYED, OUTSIDE, heard=False)]


def test_a_nat_that_changes_its_port_for_every_destination() -> None:
    mirror = Mirror(mapped=4711)
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    assert mirror.run() == [Mirrored(HOST, RELAYED, at("203.0.113.9", 4711), heard=False)]


def test_what_is_let_in_before_anything_went_out_shows_the_filtering() -> None:
    mirror = Mirror(lets_in=True)
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    assert mirror.run() == [Mirrored(HOST, RELAYED, OUTSIDE, heard=True)]


def test_what_comes_in_afterwards_says_nothing() -> None:
    """The NAT is open for it by then."""
    mirrors = Mirrors(random.Random(1).randbytes)
    mirrors.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    things: list[ControlDatagram | Throw] = []
    for tenth in range(12):
        mirrors.handle_timeout(tenth / 10)
        things += mirrors.take_transmits()
    throw = next(thing for thing in things if isinstance(thing, Throw))
    back = next(thing for thing in things if isinstance(thing, ControlDatagram))
    assert mirrors.receive(throw.data, RELAYED)
    assert mirrors.came(RELAY, OUTSIDE, back.data)
    assert mirrors.take_events() == [Mirrored(HOST, RELAYED, OUTSIDE, heard=False)]


def test_losses_are_made_up_for_and_silence_ends_it() -> None:
    mirror = Mirror(loses=4)
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    assert len(mirror.run()) == 1
    silent = Mirror(loses=100)
    silent.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    assert silent.run(60.0) == []
    assert silent.machine.next_deadline() is None
    assert len(silent.sent) < 10


def test_each_pair_is_looked_at_once_until_the_network_changes() -> None:
    mirror = Mirror()
    for _ in range(3):
        mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
        mirror.run()
    count = len(mirror.sent)
    mirror.machine.forget()
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, mirror.now)
    assert len(mirror.run()) == 1
    assert len(mirror.sent) > count


def test_what_was_sent_to_before_shows_no_filtering_any_more() -> None:
    """The NAT may still be open for it, whatever has changed in the network."""
    mirror = Mirror()
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    mirror.run()
    mirror.machine.forget()
    mirror.lets_in = True
    mirror.machine.look(HOST, RELAY, RELAYED, OUTSIDE, mirror.now)
    assert mirror.run() == [Mirrored(HOST, RELAYED, OUTSIDE, heard=False)]


def test_messages_of_strangers_are_none_of_ours() -> None:
    mirrors = Mirrors(random.Random(1).randbytes)
    mirrors.look(HOST, RELAY, RELAYED, OUTSIDE, 0.0)
    mirrors.handle_timeout(0.0)
    (throw,) = mirrors.take_transmits()
    assert not mirrors.receive(throw.data, at("198.51.100.1", 50_001))
    assert not mirrors.receive(bytes(20), RELAYED)
    assert not mirrors.came(Base(kind="relay", relay="two"), OUTSIDE, throw.data)


def test_a_way_in_counts_when_what_was_sent_there_came_in() -> None:
    door = at("203.0.113.9", 51_820)
    mirror = Mirror(lets_in=True, loses=2)
    mirror.machine.knock(RELAY, RELAYED, door, 0.0)
    assert mirror.run() == [Knocked(door)]
    assert all(isinstance(thing, Throw) and thing.peer == door for thing in mirror.sent)


def test_a_way_in_that_nothing_comes_by_is_tried_rarely() -> None:
    mirror = Mirror()
    mirror.machine.knock(RELAY, RELAYED, at("203.0.113.9", 51_820), 0.0)
    assert mirror.run(10 * AGAIN_S) == []
    assert len(mirror.sent) < 50
