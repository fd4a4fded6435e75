from __future__ import annotations

from warren.paths.demand import ACTIVE_S, LOST_WANTED_S, WANTED_S, Demand


def test_nobody_wants_a_path_at_first() -> None:
    demand = Demand()
    assert not demand.is_wanted(0.0)
    assert not demand.is_active(0.0)


def test_a_wish_holds_for_a_while_and_a_shorter_one_does_not_end_it_sooner() -> None:
    demand = Demand()
    demand.want(0.0, LOST_WANTED_S)
    demand.want(1.0)
    assert demand.is_wanted(1.0 + WANTED_S)
    assert not demand.is_wanted(LOST_WANTED_S)
    assert not demand.is_active(1.0)


def test_who_uses_a_path_wants_it() -> None:
    demand = Demand()
    demand.use(5.0)
    for now in (5.0, 5.0 + ACTIVE_S - 0.1):
        assert demand.is_active(now)
        assert demand.is_wanted(now)
    assert not demand.is_active(5.0 + ACTIVE_S)
    assert not demand.is_wanted(5.0 + ACTIVE_S)
