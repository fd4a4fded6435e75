from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.paths.pacing import Bucket


@given(st.floats(0.5, 500.0), st.floats(1.0, 50.0), st.lists(st.floats(0.0, 2.0), max_size=200))
def test_no_more_passes_than_the_rate_and_the_burst(per_s: float, burst: float, steps: list[float]) -> None:
    now, taken = 50.0, 0
    bucket = Bucket(per_s, burst, now)
    for step in steps:
        now += step
        taken += bucket.take(now)
    assert taken <= burst + (now - 50.0) * per_s + 1e-3


@given(st.floats(0.5, 500.0), st.floats(1.0, 50.0), st.floats(0.0, 1e7))
def test_whoever_waits_as_long_as_told_gets_one(per_s: float, burst: float, start: float) -> None:
    bucket = Bucket(per_s, burst, start)
    now = start
    for _ in range(100):
        now += bucket.wait(now)
        assert bucket.take(now)
