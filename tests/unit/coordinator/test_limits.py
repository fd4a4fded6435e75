from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.coordinator.limits import Admission, Limits, Rate, Rates, source_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("nonsense", "unknown"),
    ],
)
def test_a_source_is_an_ipv4_address_or_a_64_in_whatever_disguise(address: str, source: str) -> None:
    assert source_of(address) == source


@given(st.ip_addresses())
def test_every_address_has_a_source(address: object) -> None:
    assert source_of(str(address)) != "unknown"


def test_a_rate_allows_a_burst_and_then_so_many_a_second() -> None:
    clock = Clock()
    rates = Rates(Rate(burst=3, per_s=0.5), clock)
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 2.0]
    assert rates.take("b") == 0
    clock.now += 2
    assert rates.take("a") == 0
    assert rates.take("a") == 2.0
    clock.now += 1000
    assert [rates.take("a") for _ in range(4)] == [0, 0, 0, 2.0]


def test_asking_for_the_wait_counts_nothing() -> None:
    rates = Rates(Rate(burst=1, per_s=1), Clock())
    assert [rates.wait("a") for _ in range(3)] == [0, 0, 0]
    assert rates.take("a") == 0
    assert rates.wait("a") == 1.0


def test_the_table_of_rates_forgets_who_was_quiet_longest() -> None:
    rates = Rates(Rate(burst=1, per_s=0.001), Clock(), remembered=2)
    for key in ("a", "b", "a", "c"):
        rates.take(key)
    assert len(rates) == 2
    assert rates.wait("a") > 0
    assert rates.take("b") == 0


def test_places_are_given_per_source_and_in_all_and_come_back() -> None:
    admission = Admission(Limits(connections=4, unproven_per_source=2))
    first, second = admission.enter("192.0.2.1"), admission.enter("::ffff:192.0.2.1")
    assert first is not None
    assert second is not None
    assert admission.enter("192.0.2.1") is None
    first.proven()
    first.proven()
    third = admission.enter("192.0.2.1")
    assert third is not None
    assert admission.enter("192.0.2.1") is None
    fourth = admission.enter("192.0.2.2")
    assert fourth is not None
    assert admission.enter("192.0.2.3") is None
    assert admission.refused == 3
    for place in (first, second, third, fourth):
        place.leave()
        place.leave()
    assert (admission.connections, len(admission)) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from(["enter", "proven", "leave"]), st.integers(0, 5)), max_size=200))
def test_whatever_the_order_the_counts_are_those_of_the_places_held(steps: list[tuple[str, int]]) -> None:
    admission = Admission(Limits(connections=5, unproven_per_source=2))
    held: dict[int, list[tuple[object, bool]]] = {}
    places = []
    for step, who in steps:
        if step == "enter":
            place = admission.enter(f"192.0.2.{who}")
            if place is not None:
                places.append((place, True))
        elif places:
            place, _ = places[who % len(places)]
            if step == "proven":
                place.proven()
            else:
                place.leave()
                places = [one for one in places if one[0] is not place]
        assert admission.connections == len(places) <= 5
        assert len(admission) <= len(places)
    assert not held
