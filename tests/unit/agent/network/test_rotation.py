"""When keys are announced and taken: a table."""

from __future__ import annotations

import pytest

from warren.agent.network.rotation import Standing, Step, next_step_at, step

ROTATE, ANNOUNCE = 700.0, 100.0


@pytest.mark.parametrize(
    ("since", "following", "told", "now", "expected"),
    [
        (1000, 0, True, 1599, "keep"),
        (1000, 0, True, 1600, "announce"),
        (1000, 0, False, 1600, "announce"),
        (1000, 1600, True, 1699, "keep"),
        (1000, 1600, True, 1700, "take"),
        (1000, 1600, False, 9999, "keep"),
        (1000, 1650, True, 1700, "keep"),
    ],
)
def test_steps(since: float, following: float, told: bool, now: float, expected: Step) -> None:
    assert step(Standing(since, following, told), ROTATE, ANNOUNCE, now) == expected


def test_keys_may_be_kept_for_ever() -> None:
    assert step(Standing(0, 0, True), 0, ANNOUNCE, 1e9) == "keep"
    assert next_step_at(Standing(0, 0, True), 0, ANNOUNCE) is None


def test_the_next_step_is_known() -> None:
    assert next_step_at(Standing(1000, 0, True), ROTATE, ANNOUNCE) == 1600
    assert next_step_at(Standing(1000, 1600, True), ROTATE, ANNOUNCE) == 1700
