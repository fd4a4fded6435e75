from __future__ import annotations

import pytest

from warren.proto.wireguard.staging import (
    STAGED_BYTES_MAX,
    STAGED_DATAGRAMS_MAX,
    StagedTrains,
    StagingBudget,
    Train,
)


def train(number: int, size: int = 64, datagrams: int = 1) -> Train:
    return Train(bytearray(number.to_bytes(4, "big").ljust(size, b"\0")), size // datagrams, datagrams, 0)


def numbers(staged: StagedTrains) -> list[int]:
    found = []
    while staged:
        found.append(int.from_bytes(staged.get().slots[:4], "big"))
    return found


def test_trains_come_out_as_they_went_in() -> None:
    staged = StagedTrains(StagingBudget())
    assert [staged.put(train(number)) for number in range(5)] == [0] * 5
    assert int.from_bytes(staged.first.slots[:4], "big") == 0
    assert numbers(staged) == [0, 1, 2, 3, 4]


def test_the_oldest_give_way_by_number() -> None:
    staged = StagedTrains(StagingBudget())
    dropped = sum(staged.put(train(number)) for number in range(200))
    assert dropped == 200 - STAGED_DATAGRAMS_MAX
    assert numbers(staged) == list(range(200 - STAGED_DATAGRAMS_MAX, 200))


def test_the_oldest_give_way_by_bytes() -> None:
    staged = StagedTrains(StagingBudget())
    size = 60_000
    assert [staged.put(train(number, size, 40)) for number in range(6)] == [0, 0, 0, 40, 40, 40]
    assert len(numbers(staged)) == 3 <= STAGED_BYTES_MAX // size


def test_peers_share_the_devices_budget() -> None:
    budget = StagingBudget(1000)
    one, other = StagedTrains(budget), StagedTrains(budget)
    assert one.put(train(1, 600)) == 0
    assert other.put(train(2, 600)) == 1  # nothing of its own to give up for it
    assert len(other) == 0
    assert other.put(train(3, 400)) == 0
    assert other.put(train(4, 300)) == 1  # gives up its own
    assert (numbers(one), numbers(other)) == ([1], [4])
    assert budget.free == 1000


def test_purging_returns_the_bytes() -> None:
    budget = StagingBudget(1000)
    staged = StagedTrains(budget)
    staged.put(train(1, 300, 3))
    staged.put(train(2, 300))
    assert staged.purge() == 4
    assert (len(staged), budget.free) == (0, 1000)
    with pytest.raises(IndexError):
        staged.get()
