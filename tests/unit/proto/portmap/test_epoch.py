from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.portmap.epoch import Epoch


@pytest.mark.parametrize(
    ("kind", "after_s", "epoch", "reset"),
    [
        ("pcp", 10, 1010, False),
        ("pcp", 0, 999, False),  # RFC 6887 §8.5: back by one second it may go
        ("pcp", 0, 998, True),
        ("pcp", 0, 1002, False),
        ("pcp", 0, 1003, True),
        ("pcp", 160, 1148, False),
        ("pcp", 160, 1147, True),
        ("pcp", 160, 1172, False),
        ("pcp", 160, 1174, True),
        ("pcp", 100, 3, True),
        ("nat-pmp", 10, 1010, False),
        ("nat-pmp", 0, 998, False),  # RFC 6886 §3.6: two seconds, and an eighth of what passed
        ("nat-pmp", 0, 997, True),
        ("nat-pmp", 160, 1138, False),
        ("nat-pmp", 160, 1137, True),
        ("nat-pmp", 160, 5000, False),
    ],
)
def test_a_clock_that_does_not_go_on_as_it_should_has_begun_anew(
    kind: str, after_s: int, epoch: int, reset: bool
) -> None:
    clock = Epoch(kind)  # type: ignore[arg-type]
    assert not clock.is_reset_by(1000, 50.0), "the first answer says nothing"
    assert clock.is_reset_by(epoch, 50.0 + after_s) is reset


@pytest.mark.parametrize("kind", ["pcp", "nat-pmp"])
def test_after_a_reset_the_new_clock_counts(kind: str) -> None:
    clock = Epoch(kind)  # type: ignore[arg-type]
    clock.is_reset_by(1000, 0.0)
    assert clock.is_reset_by(5, 100.0)
    assert not clock.is_reset_by(105, 200.0)


@given(st.lists(st.tuples(st.floats(0, 100_000), st.floats(0.95, 1.05)), min_size=1, max_size=20))
def test_a_clock_that_is_five_percent_wrong_is_no_reset(steps: list[tuple[float, float]]) -> None:
    for kind in ("pcp", "nat-pmp"):
        clock = Epoch(kind)  # type: ignore[arg-type]
        now, server = 0.0, 0.0
        for after_s, rate in steps:
            now, server = now + after_s, server + after_s * rate
            assert not clock.is_reset_by(int(server), now)
