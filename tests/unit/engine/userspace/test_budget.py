"""The handshake budget: never more than the rate, never a wait without end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.engine.userspace.budget import Budget


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 100)), max_size=200))
def test_no_more_is_granted_than_the_rate_and_the_burst_allow(steps: list[tuple[float, int]]) -> None:
    budget, now, granted = Budget(rate=100, burst=10, now=0.0), 0.0, 0
    for pause, wanted in steps:
        now += pause
        granted += budget.take(now, wanted)
        assert granted <= 10 + 100 * now + 1e-6


def test_after_the_wait_at_least_one_unit_is_granted() -> None:
    budget = Budget(rate=100, burst=10, now=0.0)
    assert budget.take(0.0, 99) == 10
    assert budget.take(0.0, 1) == 0
    wait = budget.wait(0.0)
    assert 0 < wait <= 0.01
    assert budget.take(wait + 1e-9, 5) == 1
    assert budget.wait(100.0) == 0.0
