"""A host with several uplinks keeps one allocation by another one than the routes lead to."""

from __future__ import annotations

import random
from ipaddress import ip_address

from tests.unit.reach.relay_world import FakeTurn, at
from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.paths.values import Base
from warren.proto.stun.attributes import pack_xor_address
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.proto.turn.client_events import Data, Ready
from warren.reach.leg import Leg
from warren.reach.relay_allocations import LEGS
from warren.reach.relay_values import Came, Connect, Event, RelayPlace, Resolve, Transport, UdpBlocked, Wish
from warren.reach.uplinks import REDUNDANT_S, SILENT_S, Uplinks

FIRST, SECOND, THIRD = (Base(address=ip_address(f"10.{number}.0.2"), interface=number) for number in (1, 2, 3))
ONE, TWO, ELSEWHERE = at("192.0.2.1"), at("192.0.2.2"), at("203.0.113.50", 9)


class World:
    """Relays ``one`` and ``two``, and what leaves for them: by the routes' interface, or by the one it is bound to."""

    def __init__(self, *bases: Base) -> None:
        self.now = 0.0
        self.bases = {base.interface: base for base in bases}
        self.route = bases[0].interface
        self.dead: set[int] = set()
        """Interfaces by which nothing comes back."""
        self.turns: list[tuple[FakeTurn, TransportAddress]] = []
        self.events: list[Event] = []
        self.wishes: list[Wish] = []
        self.sent: list[ControlDatagram] = []
        self._answers: list[tuple[float, bytes, TransportAddress, Way]] = []
        self.relays = Uplinks(random.Random(1).randbytes, self._turn)
        self.relays.set_bases(bases, self.now)
        places = [
            RelayPlace(name, (str(server.ip),), udp_port=3478, tls_port=443, username="me", password="secret")
            for name, server in (("one", ONE), ("two", TWO))
        ]
        self.relays.keep(places, self.now)
        self.settle()

    def _turn(self, server: TransportAddress, place: RelayPlace, transport: Transport, now: float) -> FakeTurn:
        made = FakeTurn(server, place, now)
        made.mapped = None
        made.events.append(Ready(made.relayed, None))
        self.turns.append((made, server))
        return made

    def settle(self) -> None:
        for _ in range(20):
            wishes, sent = self.relays.take_wishes(), self.relays.take_transmits()
            for wish in wishes:
                self._grant(wish)
            for datagram in sent:
                self._carry(datagram)
            self.wishes += wishes
            if not wishes and not sent:
                break
        self.events += self.relays.take_events()

    def _grant(self, wish: Wish) -> None:
        if isinstance(wish, Resolve):
            self.relays.resolved(wish.name, [(ONE if wish.name == "one" else TWO).ip], self.now)
        elif isinstance(wish, Connect):
            self.relays.not_connected(wish.place.name, wish.transport, "nobody answers", self.now)

    def _carry(self, datagram: ControlDatagram) -> None:
        self.sent.append(datagram)
        interface = datagram.way.interface or self.route
        if interface in self.dead or interface not in self.bases:
            return
        came_by = Way(source=self.bases[interface].address, interface=interface)
        message = decode_untrusted(datagram.data)
        value = pack_xor_address(at("203.0.113.9", 4000 + interface), message.transaction)
        answer = encode(
            Method.BINDING, Class.SUCCESS, message.transaction, [(int(Attribute.XOR_MAPPED_ADDRESS), value)]
        )
        rtt_s = 0.01 if datagram.remote == ONE else 0.02
        self._answers.append((self.now + rtt_s, answer, datagram.remote, came_by))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(10_000):
            deadline = self.relays.next_deadline()
            moments = [one[0] for one in self._answers] + ([deadline.at] if deadline else [])
            self.now = max(self.now, min([*moments, end]))
            due = [one for one in self._answers if one[0] <= self.now]
            self._answers = [one for one in self._answers if one[0] > self.now]
            for _, data, remote, way in due:
                self.relays.receive(data, remote, self.now, way)
            self.relays.handle_timeout(self.now)
            self.settle()
            if self.now >= end:
                return
        raise AssertionError("time stands still")

    def prove(self, *bases: Base) -> None:
        """A relay answered what left from these."""
        for base in bases:
            self.relays.proven(base, self.now)
        self.settle()

    def legs(self) -> list[Leg]:
        return list(self.relays.legs())

    def by(self) -> list[tuple[str, int]]:
        """The relay of each allocation, and by which interface it goes."""
        return sorted((leg.relay, leg.interface) for leg in self.legs())


def multi_homed() -> World:
    """By the routes it has two allocations, by the second uplink a third."""
    world = World(FIRST, SECOND)
    world.advance(1.0)
    world.prove(FIRST, SECOND)
    world.advance(1.0)
    return world


def test_a_host_with_one_uplink_has_its_two_allocations_as_the_routes_have_it() -> None:
    world = World(FIRST)
    world.advance(1.0)
    world.prove(FIRST)
    world.advance(300.0)
    assert world.by() == [("one", 1), ("two", 1)]
    assert {leg.way for leg in world.legs()} == {PLAIN}
    assert len(world.turns) == LEGS


def test_a_host_with_a_second_uplink_has_one_more_at_the_nearest_relay_by_it() -> None:
    world = multi_homed()
    assert world.by() == [("one", 1), ("one", 2), ("two", 1)]
    standby = next(leg for leg in world.legs() if leg.interface == 2)
    assert standby.way == Way(source=SECOND.address, interface=2)
    assert standby.base != next(leg for leg in world.legs() if leg.relay == "one").base
    asked = [datagram for datagram in world.sent if datagram.way != PLAIN]
    assert asked
    assert {datagram.way for datagram in asked} == {standby.way}
    world.advance(600.0)
    assert len(world.turns) == LEGS + 1


def test_a_third_uplink_costs_nothing() -> None:
    world = World(FIRST, SECOND, THIRD)
    world.advance(1.0)
    world.prove(FIRST, SECOND, THIRD)
    world.advance(300.0)
    assert len(world.turns) == LEGS + 1


def test_an_interface_by_which_no_relay_was_reached_is_no_uplink() -> None:
    world = World(FIRST, SECOND)
    world.advance(1.0)
    world.prove(FIRST)
    world.advance(300.0)
    assert all(datagram.way == PLAIN for datagram in world.sent)


def test_what_comes_by_the_second_uplink_is_for_its_allocation() -> None:
    """Both are at one relay, where each has channels of the same numbers."""
    world = multi_homed()
    first, second = (next(leg for leg in world.legs() if (leg.relay, leg.interface) == ("one", by)) for by in (1, 2))
    for base, leg in ((FIRST, first), (SECOND, second)):
        way = Way(source=base.address, interface=base.interface, channel=0x4000)
        assert world.relays.leg_at(ONE, way) is leg
    assert second.client in [turn for turn, _ in world.turns]
    turn = next(turn for turn, _ in world.turns if turn is second.client)
    turn.events.append(Data(ELSEWHERE, b"hello"))
    world.relays.handle_timeout(world.now)
    assert Came(second.base, ELSEWHERE, b"hello") in world.relays.take_events()


def test_what_leaves_for_an_allocation_keeps_to_its_uplink_with_and_without_a_channel() -> None:
    class Client:
        channel_of = staticmethod({ELSEWHERE: 0x4001}.get)
        take_transmits = staticmethod(lambda: [b"refresh"])

    way = Way(source=SECOND.address, interface=2)
    for by, channel in ((PLAIN, Way(channel=0x4001)), (way, Way(source=SECOND.address, interface=2, channel=0x4001))):
        leg = Leg(RelayPlace("one", ("192.0.2.1",)), "udp", ONE, Client(), by)  # type: ignore[arg-type]
        assert leg.take_transmits() == [ControlDatagram(b"refresh", ONE, by)]
        assert leg.way_to(ELSEWHERE) == channel
        assert leg.way_to(TWO) is None


def test_what_comes_by_the_first_uplink_is_not_for_an_allocation_of_the_second() -> None:
    world = multi_homed()
    world.relays.set_active(True, world.now)
    world.dead.add(1)
    world.advance(10.0)
    (standby,) = world.legs()
    assert world.relays.leg_at(standby.server, Way(source=SECOND.address, interface=2, channel=0x4000)) is standby
    assert world.relays.leg_at(standby.server, Way(source=FIRST.address, interface=1, channel=0x4000)) is None


def test_when_the_first_uplink_dies_unseen_the_second_keeps_its_allocation_and_udp_is_not_blocked() -> None:
    world = multi_homed()
    world.relays.set_active(True, world.now)
    standby = next(leg for leg in world.legs() if leg.interface == 2)
    world.dead.add(1)
    world.advance(10.0)
    assert world.legs() == [standby]
    assert UdpBlocked(True) not in world.events
    (status,) = [one for one in world.relays.status() if one.name == "one"]
    assert status.state == "ready"
    world.dead.add(2)
    world.advance(10.0)
    assert UdpBlocked(True) in world.events
    world.dead.clear()
    world.advance(60.0)
    assert sorted(interface for _, interface in world.by()) == [1, 1, 2]


def test_when_the_routes_move_to_the_second_uplink_its_allocation_goes_on_and_is_counted_among_the_two() -> None:
    """To the relay both would come from one address and port: it would refuse another, or end the first."""
    world = multi_homed()
    standby = next(leg for leg in world.legs() if leg.interface == 2)
    world.route = 2
    del world.bases[1]
    world.relays.set_bases((SECOND,), world.now)
    world.relays.network_changed(world.now)
    world.advance(5.0)
    assert standby in world.legs()
    assert world.by() == [("one", 2), ("two", 2)]
    assert not standby.client.closed  # type: ignore[attr-defined]
    assert [server for _, server in world.turns].count(ONE) == 2
    world.advance(REDUNDANT_S + 60.0)
    assert standby in world.legs()


def test_an_uplink_whose_addresses_are_gone_is_given_up_at_once() -> None:
    world = multi_homed()
    standby = next(leg for leg in world.legs() if leg.interface == 2)
    del world.bases[2]
    world.relays.set_bases((FIRST,), world.now)
    world.settle()
    assert standby.client.closed  # type: ignore[attr-defined]
    assert world.by() == [("one", 1), ("two", 1)]


def test_an_uplink_by_which_no_relay_answers_any_more_makes_room_for_another() -> None:
    world = World(FIRST, SECOND, THIRD)
    world.advance(1.0)
    world.prove(FIRST, SECOND, THIRD)
    world.advance(1.0)
    assert ("one", 2) in world.by()
    world.dead.add(2)
    world.advance(SILENT_S + 60.0)
    assert ("one", 3) in world.by()
    assert not any(interface == 2 for _, interface in world.by())


def test_names_are_looked_up_once_and_streams_go_as_the_routes_have_it() -> None:
    world = multi_homed()
    assert [type(wish) for wish in world.wishes] == [Resolve, Resolve]
    world.dead |= {1, 2}
    world.advance(30.0)
    connects = [wish for wish in world.wishes if isinstance(wish, Connect)]
    assert 0 < len(connects) < 20


def test_all_allocations_are_given_back_at_the_end() -> None:
    world = multi_homed()
    world.relays.close(world.now)
    assert all(turn.closed for turn, _ in world.turns)
    assert world.legs() == []
