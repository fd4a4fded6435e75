"""When to come back to a coordinator."""

from __future__ import annotations

import random

import pytest

from warren.api.node_backoff import (
    CEILING_MAX_S,
    CEILING_S,
    FINAL_S,
    LOST_S,
    MOVE_S,
    RETRY_AFTER_MAX_S,
    STEADY_S,
    Backoff,
)


def latest() -> float:
    """Draws the end of every window."""
    return 1.0


def test_waits_double_up_to_a_ceiling() -> None:
    backoff = Backoff(latest)
    assert [backoff.failed() for _ in range(6)] == [1, 2, 4, 8, CEILING_S, CEILING_S]
    for _ in range(10_000):
        backoff.failed()
    assert backoff.failed() == CEILING_S


def test_a_steady_session_begins_the_count_anew() -> None:
    backoff = Backoff(latest)
    for _ in range(6):
        backoff.failed()
    assert backoff.lost(STEADY_S, elsewhere=False) == LOST_S
    assert backoff.failed() == 2


def test_sessions_that_never_last_are_waited_for_longer_and_longer() -> None:
    backoff = Backoff(latest)
    waits = [backoff.lost(1.0, elsewhere=True) for _ in range(6)]
    assert waits == [MOVE_S, 2, 4, 8, CEILING_S, CEILING_S]


def test_the_nodes_of_a_restarted_coordinator_come_back_spread_out() -> None:
    draws = random.Random(7)
    waits = []
    for _ in range(1000):
        backoff = Backoff(draws.random)
        backoff.members = 1000
        waits.append(backoff.lost(3600.0, elsewhere=False))
    assert sum(wait < 1.0 for wait in waits) <= 1000 / 10 * 1.2
    assert max(waits) <= LOST_S


@pytest.mark.parametrize(("members", "window"), [(10, CEILING_S), (1000, 10.0), (5000, 50.0), (10**6, CEILING_MAX_S)])
def test_large_networks_spread_further(members: int, window: float) -> None:
    backoff = Backoff(latest)
    backoff.members = members
    assert backoff.lost(3600.0, elsewhere=False) == window
    assert max(backoff.failed() for _ in range(10)) == window


def test_a_coordinator_is_not_asked_again_before_it_said() -> None:
    backoff = Backoff(random.Random(1).random)
    assert all(backoff.refused(30.0) >= 30.0 for _ in range(10))
    assert backoff.refused(1e9) <= RETRY_AFTER_MAX_S + CEILING_S
    assert backoff.refused(-5.0) >= 0.0


def test_a_final_refusal_is_asked_about_rarely() -> None:
    backoff = Backoff(random.Random(1).random)
    assert all(FINAL_S / 2 <= backoff.refused(None) <= FINAL_S for _ in range(10))
