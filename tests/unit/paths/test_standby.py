"""What is kept ready does not fail along with what is in use."""

from __future__ import annotations

from tests.support.path_pair import at, host
from warren.model.tunnel import TransportAddress
from warren.paths.pair import Pair
from warren.paths.standby import DOUBTED_MAX, UPLINKS_MAX, doubted, warm
from warren.paths.values import Base, CandidateKind

FIRST, SECOND = host("10.1.0.2", 1), host("10.2.0.2", 2)
NEAR, FAR = Base(kind="relay", relay="near"), Base(kind="relay", relay="far")
THERE, ALSO_THERE, RELAYED_THERE = at("192.0.2.1"), at("192.0.2.2"), at("198.51.100.1", 50_000)


def uplink_of(base: Base) -> int:
    """All allocations go by the first."""
    return base.interface or 1


def pair(base: Base, remote: TransportAddress, rtt_s: float, kind: CandidateKind = "srflx") -> Pair:
    rank = 1 + (base.kind == "relay") + (kind == "relay")
    one = Pair(base, remote, kind, rank)
    one.state, one.srtt = "valid", rtt_s
    return one


DIRECT = pair(FIRST, THERE, 0.01)


def test_the_best_by_another_uplink_is_kept_ready_though_all_by_the_same_are_shorter() -> None:
    same = [pair(FIRST, RELAYED_THERE, 0.02, "relay"), pair(NEAR, THERE, 0.03), pair(FAR, RELAYED_THERE, 0.04, "relay")]
    other = pair(SECOND, RELAYED_THERE, 0.3, "relay")
    assert other in warm(DIRECT, [*same, other], uplink_of)
    assert other not in warm(DIRECT, [*same, other], lambda base: 1)  # one uplink: nothing else speaks for it


def test_the_best_to_another_address_of_the_peer_is_kept_ready() -> None:
    """It may be another uplink of the peer; of one of its allocations nobody can tell."""
    same = [pair(FIRST, RELAYED_THERE, 0.02, "relay"), pair(NEAR, THERE, 0.03), pair(FAR, RELAYED_THERE, 0.04, "relay")]
    other, longer = pair(NEAR, ALSO_THERE, 0.3), pair(FAR, ALSO_THERE, 0.4)
    ready = warm(DIRECT, [*same, longer, other], uplink_of)
    assert other in ready
    assert longer not in ready


def test_a_host_with_a_dozen_uplinks_keeps_a_few_ready() -> None:
    many = [pair(host(f"10.{number}.0.2", number), at(f"192.0.2.{number}"), number / 100) for number in range(2, 14)]
    ready = warm(DIRECT, many, uplink_of)
    assert len(ready) <= 3 + 2 * UPLINKS_MAX
    assert ready[0] is many[0]


def test_without_a_path_in_use_and_of_paths_that_do_not_work_nothing_is_kept_ready() -> None:
    broken = pair(SECOND, THERE, 0.1)
    assert warm(None, [broken], uplink_of) == []
    broken.state = "failed"
    assert warm(DIRECT, [broken], uplink_of) == []


def test_in_doubt_what_was_kept_ready_is_checked_before_the_many_that_are_short() -> None:
    many = [pair(FIRST, at(f"198.51.100.{number}"), number / 1000, "relay") for number in range(1, 40)]
    other = pair(SECOND, RELAYED_THERE, 3.0, "relay")
    checked = doubted(DIRECT, [*many, other], uplink_of)
    assert checked[0] is DIRECT
    assert other in checked
    assert len(checked) == len(set(checked)) <= 1 + 3 + 2 * UPLINKS_MAX + DOUBTED_MAX
