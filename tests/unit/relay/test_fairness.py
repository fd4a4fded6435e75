"""Shares of a relay: equal in bytes under overload, whatever the sizes."""

from __future__ import annotations

import random

import pytest

from warren.relay.fairness import BURST_BYTES_MIN, QUANTUM_BYTES, Bucket, Share, skip_rounds


def play(trains: dict[str, int], rounds: int) -> dict[str, int]:
    """Everybody always has something to send, in trains of so many bytes; what each has moved in the end."""
    shares = {name: Share(name, 0.0, 0.0) for name in trains}
    moved = dict.fromkeys(trains, 0)
    for turn in range(rounds):
        skipped = []
        served = False
        for name, share in shares.items():
            share.begin(turn)
            if share.deficit <= 0:
                skipped.append(share)
                continue
            served = True
            cost = 0
            while cost < share.deficit:
                cost += trains[name]
            share.deficit -= cost
            moved[name] += cost
        if skipped and not served:
            skip_rounds(skipped)
    return moved


@pytest.mark.parametrize(
    "trains", [{"a": 65_000, "b": 100}, {"a": 65_000, "b": 65_000, "c": 1500}, {"a": 200_000, "b": 100, "c": 40_000}]
)
def test_all_who_want_more_get_the_same(trains: dict[str, int]) -> None:
    moved = play(trains, 1000)
    assert max(moved.values()) <= 1.02 * min(moved.values())


def test_nothing_is_saved_up_by_being_idle() -> None:
    share = Share("a", 0.0, 0.0)
    share.begin(1)
    share.begin(1)
    assert share.deficit == QUANTUM_BYTES
    share.begin(500)
    assert share.deficit == QUANTUM_BYTES


def test_debts_are_kept_from_round_to_round() -> None:
    share = Share("a", 0.0, 0.0)
    share.begin(1)
    share.deficit -= 3 * QUANTUM_BYTES
    share.begin(2)
    assert share.deficit == -QUANTUM_BYTES
    skip_rounds([share])
    assert share.deficit == QUANTUM_BYTES


def test_a_bucket_lets_its_rate_through() -> None:
    rng = random.Random(1)
    bucket = Bucket(1_000_000.0, 0.0)
    now, moved = 0.0, 0
    while now < 10.0:
        size = rng.randrange(100, 65_000)
        moved += size
        now += bucket.take(size, now)
    assert 0.98 * 10_000_000 <= moved - BURST_BYTES_MIN <= 1.02 * 10_000_000


def test_a_bucket_without_a_rate_never_waits() -> None:
    assert Bucket(0.0, 0.0).take(1 << 40, 0.0) == 0.0
