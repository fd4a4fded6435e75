from __future__ import annotations

import itertools

from tests.support.path_pair import PORT, PathPair, at
from warren.paths.events import Check, SocketsDone, SocketsWanted
from warren.paths.values import Base, RemoteCandidate, Settings

EASY = "v4:eim,apdf,preserving"
RANDOM = "v4:apdm,apdf,random"
SEQUENTIAL = "v4:apdm,apdf,sequential"


def pair(ours: str, theirs: str, settings: Settings | None = None) -> PathPair:
    """a, with a peer that is seen at 198.51.100.9:5000 and never answers."""
    one = PathPair(settings=settings)
    one.passes = lambda machine, check: False
    one.a.set_self(record=b"", candidates=(), nat=ours)
    seen = (RemoteCandidate("srflx", at("198.51.100.9", 5000)),)
    one.a.set_peer(one.B, (b"k" * 32,), seen, theirs, one.now)
    return one


def probed(one: PathPair) -> list[Check]:
    return [check for _, machine, check in one.wire if machine is one.a and check.remote.port not in {PORT, 5000}]


def play(one: PathPair, seconds: float) -> None:
    for _ in range(int(seconds)):
        one.a.want(one.B, one.now)
        one.run(1.0)


def test_against_a_sequential_nat_the_ports_near_the_last_one_seen_are_tried() -> None:
    one = pair(EASY, SEQUENTIAL)
    play(one, 6.0)
    ports = {check.remote.port for check in probed(one)}
    assert set(range(5001, 5033)) | set(range(4968, 5000)) <= ports
    assert {str(check.remote.ip) for check in probed(one)} == {"198.51.100.9"}


def test_against_a_random_nat_ports_are_drawn_within_the_budget() -> None:
    one = pair(EASY, RANDOM)
    play(one, 30.0)
    checks = probed(one)
    assert 900 < len(checks) <= 1024
    assert len({check.remote.port for check in checks}) == len(checks)
    assert min(check.remote.port for check in checks) >= 1024


def test_probes_keep_to_their_pace() -> None:
    one = pair(EASY, RANDOM)
    play(one, 30.0)
    times = [when for when, machine, check in one.wire if check in probed(one)][::50]
    assert all(later - earlier >= 0.4 for earlier, later in itertools.pairwise(times))


def test_an_attempt_that_failed_is_repeated_later_and_later() -> None:
    one = pair(EASY, RANDOM)
    play(one, 600.0)
    times = [when for when, _, check in one.wire if check.remote.port not in {PORT, 5000}]
    starts = [times[0], *(later for earlier, later in itertools.pairwise(times) if later - earlier > 10)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(pauses) >= 3
    assert all(later > 1.4 * earlier for earlier, later in itertools.pairwise(pauses))


def test_switched_off_nothing_is_probed() -> None:
    one = pair(EASY, RANDOM, Settings(hard=False))
    play(one, 60.0)
    assert probed(one) == []


def test_two_easy_or_two_hard_nats_are_not_probed() -> None:
    for ours, theirs in ((EASY, EASY), (RANDOM, RANDOM), ("", RANDOM), (EASY, ""), (EASY, "v4:nonsense")):
        one = pair(ours, theirs)
        play(one, 30.0)
        assert probed(one) == []


def sockets(count: int) -> tuple[Base, ...]:
    return tuple(Base("socket", at("192.0.2.1").ip, 1, socket=number) for number in range(1, count + 1))


def test_the_hard_side_asks_for_sockets_sends_from_each_and_gives_them_back() -> None:
    one = pair(RANDOM, EASY)
    play(one, 3.0)
    (wanted,) = [event for event in one.events[one.a] if isinstance(event, SocketsWanted)]
    assert (wanted.count, wanted.base) == (256, one.bases[one.a])
    one.a.sockets_opened(one.B, sockets(256), one.now)
    play(one, 4.0)
    used = {check.base.socket for _, _, check in one.wire if check.base.kind == "socket"}
    assert used == set(range(1, 257))
    assert {check.remote for _, _, check in one.wire if check.base.kind == "socket"} == {at("198.51.100.9", 5000)}
    play(one, 30.0)
    assert [event.keep for event in one.events[one.a] if isinstance(event, SocketsDone)] == [None]


def test_sockets_that_could_not_be_opened_end_the_attempt() -> None:
    one = pair(RANDOM, EASY)
    play(one, 3.0)
    one.a.sockets_opened(one.B, (), one.now)
    play(one, 1.0)
    assert [event.keep for event in one.events[one.a] if isinstance(event, SocketsDone)] == [None]
    report = one.a.explain(one.B, one.now)
    assert report is not None
    assert "fail" in report.hard


def test_a_peer_that_is_removed_gives_its_sockets_back() -> None:
    one = pair(RANDOM, EASY)
    play(one, 3.0)
    one.a.sockets_opened(one.B, sockets(4), one.now)
    one.a.remove_peer(one.B)
    one.collect()
    assert [event.keep for event in one.events[one.a] if isinstance(event, SocketsDone)] == [None]
