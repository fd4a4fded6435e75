from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from warren.proto.wireguard.timestamp import STEP_NS, TimestampSource, pack_tai64n


def test_the_label_is_the_one_the_reference_implementations_use() -> None:
    assert pack_tai64n(0).hex() == "400000000000000a" + "00000000"
    assert pack_tai64n(1_700_000_000 * 10**9 + 0x10203040).hex() == "400000006553f10a" + "10203040"


@given(st.integers(0, 2**64), st.integers(0, 2**64))
def test_the_order_of_the_bytes_is_the_order_in_time(one: int, other: int) -> None:
    assert (pack_tai64n(one) < pack_tai64n(other)) == (one < other)
    assert len(pack_tai64n(one)) == 12


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1), st.integers(0, 2**62))
def test_timestamps_rise_above_the_floor_whatever_the_clock_says(clock: list[int], floor_ns: int) -> None:
    readings = iter(clock)
    source = TimestampSource(lambda: next(readings), floor_ns)
    used = [floor_ns]
    for _ in clock:
        used.append(source.after(used[-1]))
        assert source.used_ns == used[-1]
    assert all(earlier < later for earlier, later in pairwise(used))


def test_a_clock_that_runs_is_followed_and_rounded() -> None:
    now_ns = 1_700_000_000 * 10**9 + 123_456_789
    source = TimestampSource(lambda: now_ns, 0)
    assert now_ns - STEP_NS < source.after(0) <= now_ns
    assert source.after(0) % STEP_NS == 0


def test_peers_do_not_push_each_other_into_the_future() -> None:
    source = TimestampSource(lambda: 10**18, 0)
    assert len({source.after(0) for _ in range(1000)}) == 1
