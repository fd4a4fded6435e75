"""Pauses of users above their rate, and of all above the total rate."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterator

import pytest

from warren.relay.data_sockets import DataSockets
from warren.relay.fairness import BURST_BYTES_MIN, Share
from warren.relay.pace import NEVER, Pace

BURST = int(BURST_BYTES_MIN)
RATE = 1_000.0


@contextlib.contextmanager
def pacing(total: float = 0.0) -> Iterator[Pace]:
    with select.epoll() as poller:
        yield Pace(DataSockets({}, 0.0, poller, lambda: 0.0), total, 0.0)


def test_who_has_a_rate_pauses_for_what_he_took_too_much() -> None:
    with pacing() as pace:
        share = Share("u", RATE, 0.0)
        pace.charge(share, BURST, 0.0)
        assert pace.resumes_at == NEVER
        pace.charge(share, 2_000, 0.0)
        assert pace.resumes_at == share.paused_until == pytest.approx(2.0)
        assert share.deficit == -BURST - 2_000
        pace.resume(1.9)
        assert pace.resumes_at == pytest.approx(2.0)
        pace.resume(2.0)
        assert pace.resumes_at == NEVER


def test_the_first_of_several_pauses_ends_first() -> None:
    with pacing() as pace:
        for name, more in (("slow", 5_000), ("fast", 1_000)):
            pace.charge(Share(name, RATE, 0.0), BURST + more, 0.0)
        assert pace.resumes_at == pytest.approx(1.0)
        pace.resume(1.0)
        assert pace.resumes_at == pytest.approx(5.0)


def test_the_total_rate_holds_all_and_pauses_nobody() -> None:
    with pacing(total=RATE) as pace:
        pace.charge(Share("u", 0.0, 0.0), BURST + 500, 0.0)
        assert pace.held_until == pytest.approx(0.5)
        assert pace.resumes_at == NEVER
        pace.charge(Share("v", 0.0, 0.0), 500, 0.5)
        assert pace.held_until == pytest.approx(1.0)


def test_without_rates_nothing_waits() -> None:
    with pacing() as pace:
        pace.charge(Share("u", 0.0, 0.0), 1 << 30, 0.0)
        assert (pace.held_until, pace.resumes_at) == (0.0, NEVER)
