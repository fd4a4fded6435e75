from __future__ import annotations

import random

from tests.support.path_pair import at
from warren.model.tunnel import TransportAddress
from warren.paths.ports_to_try import NEAR, PORT_MIN, PortsToTry

SEEN = [at("203.0.113.1", 40_000)]


def all_of(ports: PortsToTry, seen: list[TransportAddress], most: int) -> list[TransportAddress]:
    found = []
    while len(found) < most and ports.any_left(lambda: seen):
        found.append(ports.take())
    return found


def test_near_ports_come_first_on_both_sides_and_are_tried_again() -> None:
    found = [one.port for one in all_of(PortsToTry(), SEEN, 10_000)]
    assert found[:4] == [40_001, 39_999, 40_002, 39_998]
    assert len(found) == 2 * sum(len(far) for far in NEAR)
    assert found.count(40_001) > found.count(40_200) == 1


def test_ports_that_are_none_are_left_out() -> None:
    found = all_of(PortsToTry(), [at("203.0.113.1", 65_530), at("203.0.113.1", PORT_MIN)], 10_000)
    assert {one.port for one in found} <= set(range(PORT_MIN, 65_536))


def test_of_a_peer_that_was_seen_at_several_places_the_last_two_are_guessed_from_and_one_is_drawn_for() -> None:
    seen = [at("203.0.113.1", 2000), at("203.0.113.2", 3000), at("203.0.113.3", 4000)]
    assert {str(one.ip) for one in all_of(PortsToTry(), seen, 10_000)} == {"203.0.113.1", "203.0.113.2"}
    drawn = all_of(PortsToTry(random.Random(1).randbytes), seen, 200)
    assert {str(one.ip) for one in drawn} == {"203.0.113.1"}


def test_random_ports_go_on_and_what_was_tried_is_not_drawn_again() -> None:
    drawn = iter([b"\x20\x00" * 64, b"\x20\x00" * 63 + b"\x30\x00", b"\x00\x01" * 64])
    ports = PortsToTry(lambda _: next(drawn))
    found = [one.port for one in all_of(ports, SEEN, 1000)]
    assert found == [0x2000] * 64 + [0x3000], "and ports of the system are none"


def test_without_a_place_where_the_peer_was_seen_there_is_nothing_to_try_and_it_has_begun() -> None:
    for ports in (PortsToTry(), PortsToTry(random.Random(1).randbytes)):
        assert not ports.begun
        assert not ports.any_left(list)
        assert ports.begun
