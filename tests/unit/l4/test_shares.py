"""Fair shares: whatever the others do, a newcomer finds a place while no more than one source is there before it."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.l4.shares import Group, Shares, groups_of, name_of
from warren.model.tunnel import IPAddress

ADDRESSES = [
    ip_address(text)
    for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db8:1::1")
]


def fill(shares: Shares, ip: IPAddress, places: int, taken: int = 0) -> int:
    """How many more ``ip`` gets, if nobody else comes."""
    count = 0
    while taken + count < places and shares.over(groups_of(ip), places - taken - count - 1) is None:
        shares.enter(groups_of(ip))
        count += 1
    return count


@pytest.mark.parametrize(
    ("places", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (10, 8), (100, 80), (4096, 3276), (65_536, 52_428)]
)
def test_one_source_alone_gets_four_fifths(places: int, most: int) -> None:
    assert fill(Shares(), ip_address("192.0.2.1"), places) == most


def test_many_get_the_same_and_the_last_places_are_for_newcomers() -> None:
    shares, taken = Shares(), 0
    counts = []
    for number in range(20):
        counts.append(fill(shares, ip_address(f"192.0.2.{number}"), 4096, taken))
        taken += counts[-1]
    assert counts[:3] == [3276, 656, 131]
    assert counts[-1] == 0  # who comes when all are taken
    assert taken == 4096
    for _ in range(5000):  # all end and begin anew, and so become even
        for number in (0, 1):
            groups = groups_of(ip_address(f"192.0.2.{number}"))
            if shares.count(groups[0]):
                shares.leave(groups)
                taken -= 1
            if shares.over(groups, 4096 - taken - 1) is None and taken < 4096:
                shares.enter(groups)
                taken += 1
    first, second = (shares.count(groups_of(ip_address(f"192.0.2.{number}"))[0]) for number in (0, 1))
    assert first <= 4 * (4096 - taken)
    assert second <= 4 * (4096 - taken)


def test_a_48_has_more_than_each_of_its_64_and_never_all() -> None:
    shares, taken = Shares(), 0
    for number in range(5000):
        got = fill(shares, ip_address((0x20010DB8_0000 << 80) | (number << 64)), 4096, taken)
        if number == 0:
            assert got == 3276
        taken += got
    assert taken == 3855
    assert fill(shares, ip_address("2001:db8:1::"), 4096, taken) > 100


def test_programs_of_this_host_are_not_limited() -> None:
    for text in ("127.0.0.1", "127.3.3.3", "::1", "::ffff:127.0.0.1"):
        assert fill(Shares(), ip_address(text), 4096) == 4096
    assert groups_of(None) == ()


def test_a_mapped_address_is_the_ipv4_address() -> None:
    assert groups_of(ip_address("::ffff:192.0.2.1")) == groups_of(ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    ("text", "names"),
    [("192.0.2.7", ["192.0.2.7"]), ("2001:db8:1:2::7", ["2001:db8:1:2::/64", "2001:db8:1::/48"])],
)
def test_groups_have_names(text: str, names: list[str]) -> None:
    assert [name_of(group) for group in groups_of(ip_address(text))] == names


@given(st.integers(1, 40), st.lists(st.tuples(st.sampled_from(ADDRESSES), st.booleans()), max_size=200), st.data())
def test_whatever_comes_and_goes_a_newcomer_finds_a_place_beside_any_other(
    places: int, steps: list[tuple[IPAddress, bool]], data: st.DataObject
) -> None:
    shares = Shares()
    opened: list[tuple[Group, ...]] = []
    for ip, comes in steps:
        groups = groups_of(ip)
        if comes:
            if len(opened) < places and shares.over(groups, places - len(opened) - 1) is None:
                shares.enter(groups)
                opened.append(groups)
        elif opened:
            shares.leave(opened.pop(data.draw(st.integers(0, len(opened) - 1))))
        assert len(opened) <= places
        present = {groups[-1] for groups in opened}
        if len(present) == 1 and places > 1:
            newcomers = [groups_of(ip) for ip in ADDRESSES if groups_of(ip)[-1] not in present]
            assert all(shares.over(one, places - len(opened) - 1) is None for one in newcomers)
            assert len(opened) < places
        for group in {group for groups in opened for group in groups}:
            assert shares.count(group) == sum(group in groups for groups in opened)
    while opened:
        shares.leave(opened.pop())
    assert len(shares) == 0
