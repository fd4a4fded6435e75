"""Ranges of addresses against plain sets of numbers."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from warren.l3.ranges import Range, Ranges, common, elements, merged, ranges_of, without

few = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=6).map(
    lambda pairs: [Range(first, first + length) for first, length in pairs]
)


def _numbers(ranges: Ranges | list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def _is_tidy(ranges: Ranges) -> bool:
    return all(a.first <= a.last and a.last + 1 < b.first for a, b in pairwise(ranges))


@given(few)
def test_merging_changes_no_number(ranges: list[Range]) -> None:
    assert _numbers(merged(ranges)) == _numbers(ranges)
    assert _is_tidy(merged(ranges))


@given(few, few)
def test_common_numbers_are_those_in_both(one: list[Range], other: list[Range]) -> None:
    found = common(merged(one), merged(other))
    assert _numbers(found) == _numbers(one) & _numbers(other)
    assert _is_tidy(found)


@given(few, few)
def test_what_is_taken_out_is_gone(one: list[Range], other: list[Range]) -> None:
    found = without(merged(one), merged(other))
    assert _numbers(found) == _numbers(one) - _numbers(other)
    assert _is_tidy(found)


def test_neighbours_become_one_and_versions_stay_apart() -> None:
    networks = [
        ip_network(text) for text in ("10.7.0.2/32", "10.7.0.3/32", "10.7.0.4/30", "fd00:0:0:2::/64", "fd00::/63")
    ]
    assert elements(ranges_of(networks, 4), 4) == [{"range": ["10.7.0.2", "10.7.0.7"]}]
    assert elements(ranges_of(networks, 6), 6) == [{"range": ["fd00::", "fd00::2:ffff:ffff:ffff:ffff"]}]
    assert elements(ranges_of([ip_address("10.0.0.1"), ip_network("::/0"), ip_network("10.0.0.8/29")], 4), 4) == [
        "10.0.0.1",
        {"prefix": {"addr": "10.0.0.8", "len": 29}},
    ]
    assert elements(ranges_of([ip_network("::/0")], 6), 6) == [{"prefix": {"addr": "::", "len": 0}}]
