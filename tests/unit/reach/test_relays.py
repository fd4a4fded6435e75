"""Which relays are used: the nearest two, over UDP where it passes, another when one dies."""

from __future__ import annotations

import pytest

from tests.unit.reach.relay_world import RelayWorld, at
from warren.paths.values import Base
from warren.proto.turn.client_events import Data, Failed, Lost
from warren.reach.relay_allocations import LEGS, OVERLAP_S
from warren.reach.relay_state import ASK_AGAIN_S, HEARTBEAT_IDLE_S, REFUSED_S, RETRY_FIRST_S
from warren.reach.relay_values import BasesChanged, Came, Connect, Disconnect, Reflected, Resolve, UdpBlocked


def test_the_two_nearest_relays_are_used() -> None:
    world = RelayWorld(far=0.2, near=0.01, middle=0.05)
    world.keep(*(world.place(name) for name in ("far", "near", "middle")))
    world.advance(1.0)
    assert world.used() == {"near": "udp", "middle": "udp"}
    assert len(world.turns) == LEGS
    states = {relay.name: relay.state for relay in world.relays.status()}
    assert states == {"near": "ready", "middle": "ready", "far": "standby"}
    assert Reflected("near", world.outside) in world.events
    assert BasesChanged() in world.events


def test_without_credentials_a_relay_is_asked_for_addresses_only() -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one", username=""))
    world.advance(1.0)
    assert world.used() == {}
    assert world.relays.reflectors() == (at("192.0.2.1"),)
    world.keep(world.place("one"))
    world.advance(1.0)
    assert world.used() == {"one": "udp"}


def test_a_relay_that_dies_is_replaced_by_the_third() -> None:
    world = RelayWorld(one=0.01, two=0.02, three=0.03)
    world.keep(*(world.place(name) for name in ("one", "two", "three")))
    world.advance(1.0)
    world.relays.set_active(True, world.now)
    world.silent.add("one")
    world.advance(6.0)
    assert world.used() == {"two": "udp", "three": "udp"}
    (status,) = [relay for relay in world.relays.status() if relay.name == "one"]
    assert (status.state, status.why) == ("failed", "the relay one does not answer any more")


def test_an_idle_node_leaves_relays_alone_but_for_a_heartbeat() -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    world.asked.clear()
    world.advance(4 * HEARTBEAT_IDLE_S)
    assert 2 <= len(world.asked) <= 5


def test_where_udp_is_blocked_a_stream_is_opened_within_seconds() -> None:
    world = RelayWorld(one=0.01)
    world.silent.add("one")
    world.keep(world.place("one", tls_port=443))
    world.advance(3.0)
    assert world.used() == {"one": "tls"}
    assert UdpBlocked(True) in world.events
    assert world.relays.leg(Base(kind="relay", relay="one/tls")) is not None


def test_a_stream_that_cannot_be_opened_is_followed_by_the_other_kind() -> None:
    world = RelayWorld(one=0.01)
    world.silent.add("one")
    world.shut.add("one")
    world.keep(world.place("one", tls_port=443, tcp_port=3478))
    world.advance(10.0)
    tried = [wish.transport for wish in world.wishes if isinstance(wish, Connect)]
    assert tried[:2] == ["tls", "tcp"]
    assert world.relays.status()[0].why == "nobody answers"
    assert len(tried) < 12


def test_udp_is_taken_back_within_a_minute_and_the_stream_goes_after_a_while() -> None:
    world = RelayWorld(one=0.01)
    world.silent.add("one")
    world.keep(world.place("one", tls_port=443))
    world.advance(5.0)
    world.silent.clear()
    world.advance(60.0)
    assert world.used() == {"one": "udp"}
    assert Disconnect("one", "tls") in world.wishes
    assert UdpBlocked(False) in world.events


def test_both_transports_overlap_so_that_paths_can_move() -> None:
    world = RelayWorld(one=0.01)
    world.silent.add("one")
    world.keep(world.place("one", tls_port=443))
    world.advance(5.0)
    world.silent.clear()
    for _ in range(int(ASK_AGAIN_S * 20)):
        world.advance(0.1)
        if len(list(world.relays.legs())) == 2:
            break
    assert sorted(leg.transport for leg in world.relays.legs()) == ["tls", "udp"]
    world.advance(OVERLAP_S + 1)
    assert world.used() == {"one": "udp"}


def test_an_outside_address_that_moved_means_another_allocation() -> None:
    """The one before belongs to the address that this node had."""
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    first = world.turn_of("one")
    world.outside = at("203.0.113.9", 4001)
    world.relays.network_changed(world.now)
    world.advance(1.0)
    assert world.turn_of("one") is not first


@pytest.mark.parametrize("final", [True, False])
def test_a_refused_allocation_is_told_and_not_asked_for_again_at_once(final: bool) -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    world.turn_of("one").events.append(Failed("the relay one refuses: quota", final))
    world.relays.handle_timeout(world.now)
    world.settle()
    assert world.used() == {}
    assert world.relays.status()[0].why == "the relay one refuses: quota"
    world.advance(RETRY_FIRST_S / 2)
    assert world.used() == {}
    world.advance(RETRY_FIRST_S)
    assert world.used() == {"one": "udp"}
    world.refusal = Failed("the relay one refuses: quota", final)
    world.turn_of("one").events.append(world.refusal)
    count = len(world.turns)
    world.advance(2 * REFUSED_S)
    assert 3 < len(world.turns) - count < (9 if final else 20)
    assert world.used() == {}
    world.refusal = None
    world.keep(world.place("one", username="another"))
    world.advance(1.0)
    assert world.used() == {"one": "udp"}


def test_new_credentials_are_used_without_a_new_allocation() -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    world.keep(world.place("one", username="later"))
    assert len(world.turns) == 1
    assert world.turn_of("one").logins == ["later"]


def test_a_relay_that_is_gone_from_the_network_is_given_up() -> None:
    world = RelayWorld(one=0.01, two=0.02)
    world.keep(world.place("one"), world.place("two"))
    world.advance(1.0)
    world.keep(world.place("two"))
    assert world.turn_of("one").closed
    assert world.used() == {"two": "udp"}


def test_a_name_that_cannot_be_looked_up_is_told_and_tried_again() -> None:
    world = RelayWorld(one=0.01)
    world.relays.keep([world.place("one")], 0.0)
    world.relays.take_wishes()
    world.relays.resolved("one", (), 0.0, "the name one.example cannot be looked up: no such name")
    assert world.relays.status()[0].why.startswith("the name one.example cannot be looked up")
    world.relays.handle_timeout(ASK_AGAIN_S)
    assert [type(wish) for wish in world.relays.take_wishes()] == [Resolve]


def test_what_comes_through_an_allocation_is_passed_on_and_one_that_is_lost_is_made_anew() -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    turn = world.turn_of("one")
    turn.events.append(Data(at("203.0.113.50", 9), b"hello"))
    world.advance(HEARTBEAT_IDLE_S)
    assert Came(Base(kind="relay", relay="one"), at("203.0.113.50", 9), b"hello") in world.events
    turn.events.append(Lost("the relay one forgot us"))
    world.advance(HEARTBEAT_IDLE_S + 5)
    assert world.turn_of("one") is not turn


def test_answers_of_strangers_are_not_believed() -> None:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    assert not world.relays.receive(bytes(28), at("192.0.2.66"), 0.0)
    assert world.relays.reflectors() == ()
