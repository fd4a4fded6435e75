from __future__ import annotations

import pytest

from tests.support.path_pair import at, host
from warren.paths.mtu import MtuSearch
from warren.paths.pair import Pair
from warren.paths.selection import DWELL_S, best, improves

NOW = 1000.0


def pair(rtt_s: float, *, rank: int = 1, ip: str = "192.0.2.9", samples: int = 10, var: float = 0.0) -> Pair:
    one = Pair(host("192.0.2.1"), at(ip), "host", rank)
    one.state = "valid"
    one.srtt, one.var, one.answered = rtt_s, var, samples
    return one


def better(new: Pair, current: Pair, *, since: float = 0.0, settled_at: float = 0.0) -> bool:
    return improves(new, current, NOW, since=since, settled_at=settled_at)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pair(0.2), pair(0.01, rank=2)),  # direct before relayed, however long
        (pair(0.01), pair(0.02)),
        (pair(0.012, ip="2001:db8::1"), pair(0.010)),  # IPv6 if it is about the same
        (pair(0.010), pair(0.020, ip="2001:db8::1")),
        (pair(0.010, rank=0), pair(0.008)),  # the LAN
        (pair(0.012, rank=2), pair(0.010, rank=3)),  # one relay rather than two
    ],
)
def test_the_first_is_the_better_one(first: Pair, second: Pair) -> None:
    assert best([second, first], NOW) is first
    assert best([first, second], NOW) is first


def test_what_does_not_work_is_not_chosen() -> None:
    dead = pair(0.001)
    dead.state = "failed"
    assert best([dead], NOW) is None


def test_what_carries_small_packets_only_is_chosen_only_alone_and_left_for_anything() -> None:
    narrow, relayed = pair(0.01), pair(0.1, rank=2)
    narrow.mtu = MtuSearch(1500, 4, 0.0)
    narrow.mtu.too_small = True
    assert best([narrow, relayed], NOW) is relayed
    assert best([narrow], NOW) is narrow
    assert better(relayed, narrow)
    assert not better(narrow, relayed)


def test_what_failed_a_while_ago_is_chosen_only_alone() -> None:
    failed, relayed = pair(0.01), pair(0.1, rank=2)
    failed.punish(NOW - 1)
    assert best([failed, relayed], NOW) is relayed
    assert best([failed], NOW) is failed
    assert not better(failed, relayed)
    assert best([failed, relayed], NOW + 60) is failed


def test_each_failure_holds_twice_as_long_and_all_is_forgiven() -> None:
    one = pair(0.01)
    held = []
    now = NOW
    for _ in range(6):
        one.punish(now)
        held.append(one.held_until - now)
        now = one.held_until
    assert held == [60, 120, 240, 480, 480, 480]
    one.punish(now + 2000)
    assert one.held_until - (now + 2000) == 60


def test_a_direct_path_is_taken_at_once() -> None:
    assert better(pair(0.3, samples=1), pair(0.01, rank=2), since=NOW)
    assert not better(pair(0.01, rank=2), pair(0.3))


@pytest.mark.parametrize(
    ("new_s", "current_s", "expected"),
    [(0.010, 0.100, True), (0.085, 0.100, False), (0.075, 0.100, True), (0.001, 0.005, False)],
)
def test_a_path_in_use_is_left_for_a_clearly_shorter_one(new_s: float, current_s: float, expected: bool) -> None:
    assert better(pair(new_s), pair(current_s)) == expected


def test_a_measurement_that_varies_must_differ_by_more() -> None:
    assert better(pair(0.2), pair(0.4))
    assert not better(pair(0.2, var=0.2), pair(0.4, var=0.3))


def test_it_is_not_left_too_soon_or_for_what_was_hardly_measured() -> None:
    assert not better(pair(0.01), pair(0.1), since=NOW - DWELL_S + 1)
    assert not better(pair(0.01, samples=2), pair(0.1))
    assert not better(pair(0.01), pair(0.1, samples=2))


def test_at_first_all_that_answer_are_compared() -> None:
    assert better(pair(0.01, ip="2001:db8::1", samples=1), pair(0.01, samples=1), since=NOW, settled_at=NOW + 1)
    assert not better(pair(0.0095, samples=1), pair(0.01, samples=1), since=NOW, settled_at=NOW + 1)
