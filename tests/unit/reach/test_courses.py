"""From paths to what the data plane is told, channels of relays included."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.unit.reach.relay_world import RelayWorld, at
from warren.model.tunnel import TransportAddress, Way
from warren.paths.values import Base, Path
from warren.reach.courses import Courses, base_of, host_base

HOST = host_base(at("192.168.1.10").ip, 2)
RELAY = Base(kind="relay", relay="one")
PEER = at("203.0.113.9", 4000)


@dataclass
class Channels:
    bound: dict[TransportAddress, int] = field(default_factory=dict)
    wanted: list[TransportAddress] = field(default_factory=list)

    def bind(self, peer: TransportAddress, now: float) -> int | None:
        self.wanted.append(peer)
        return self.bound.get(peer)

    def channel_of(self, peer: TransportAddress) -> int | None:
        return self.bound.get(peer)


def made() -> tuple[Courses, Channels]:
    world = RelayWorld(one=0.01)
    world.keep(world.place("one"))
    world.advance(1.0)
    leg = world.relays.leg(RELAY)
    assert leg is not None
    leg.client = Channels()  # type: ignore[assignment]
    return Courses(world.relays, lambda base: Way(socket=base.socket + 100)), leg.client  # type: ignore[return-value]


def test_a_direct_path_leaves_from_its_own_address_and_interface() -> None:
    courses, _ = made()
    assert courses.select(b"n", Path(HOST, PEER), 0.0)
    course = courses.course(b"n")
    assert course is not None
    assert (course.endpoint, course.way) == (PEER, Way(source=HOST.address, interface=2))
    assert not courses.select(b"n", Path(HOST, PEER), 1.0)


def test_a_relayed_path_counts_when_its_channel_is_bound() -> None:
    courses, channels = made()
    courses.select(b"n", Path(HOST, PEER), 0.0)
    assert not courses.select(b"n", Path(RELAY, PEER), 1.0)
    assert channels.wanted == [PEER]
    before = courses.course(b"n")
    assert before is not None
    assert before.path.base == HOST
    channels.bound[PEER] = 0x4001
    assert courses.refresh(RELAY) == [b"n"]
    after = courses.course(b"n")
    assert after is not None
    assert (after.endpoint, after.way) == (at("192.0.2.1"), Way(channel=0x4001))


def test_a_path_that_is_lost_leaves_the_packets_where_they_went() -> None:
    courses, _ = made()
    courses.select(b"n", Path(HOST, PEER), 0.0)
    assert not courses.select(b"n", None, 1.0)
    assert courses.path(b"n") is None
    assert courses.course(b"n") is not None
    courses.forget(b"n")
    assert courses.course(b"n") is None


def test_a_socket_of_its_own_is_handed_to_the_data_plane() -> None:
    courses, _ = made()
    courses.select(b"n", Path(Base(kind="socket", address=HOST.address, socket=7), PEER), 0.0)
    course = courses.course(b"n")
    assert course is not None
    assert course.way == Way(socket=107)


def test_the_base_of_what_came_is_that_of_its_address_and_interface() -> None:
    same = host_base(at("192.168.1.10").ip, 3)
    assert base_of(Way(source=HOST.address, interface=3), (HOST, same)) == same
    assert base_of(Way(source=HOST.address), (HOST, same)) == HOST
    assert base_of(Way(source=at("192.0.2.200").ip), (HOST,)) is None
