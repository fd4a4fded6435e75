"""When an allocation wants something."""

from __future__ import annotations

import pytest

from warren.proto.turn.client_lifetimes import NEVER, RETRY_FINAL_S, RETRY_S_MAX, Lifetimes


@pytest.mark.parametrize(
    ("granted_s", "kept_s", "refreshed_s"), [(600, 600, 540), (60, 60, 30), (2**32 - 1, 3600, 3540)]
)
def test_what_was_renewed_is_refreshed_before_it_ends(granted_s: int, kept_s: int, refreshed_s: int) -> None:
    times = Lifetimes()
    times.renewed(granted_s, 1000.0)
    assert (times.expires_at, times.refresh_at) == (1000 + kept_s, 1000 + refreshed_s)
    assert times.keepalive_at == 1020.0
    times.lost()
    assert {times.expires_at, times.refresh_at, times.keepalive_at} == {NEVER}


def test_a_refresh_that_is_under_way_is_not_begun_again() -> None:
    times = Lifetimes()
    times.renewed(600, 0.0)
    times.refresh_soon(10.0)
    assert times.refresh_at == 10.0
    times.refresh_at = NEVER
    times.refresh_soon(11.0)
    assert times.refresh_at == NEVER


def test_pauses_grow_to_a_ceiling_and_begin_anew_after_a_success() -> None:
    times = Lifetimes()
    pauses = [times.pause() for _ in range(100)]
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, RETRY_S_MAX]
    assert pauses[-1] == RETRY_S_MAX
    times.succeeded()
    times.retry_later(100.0)
    assert times.retry_at == 101.0
    times.retry_later(100.0, final=True)
    assert times.retry_at == 100.0 + RETRY_FINAL_S
    assert times.pause() == 2.0, "what only people can change makes no pause longer"
