from __future__ import annotations

from warren.paths.freshness import EPOCHS_MAX, STRANGE_BURST, WINDOW, Freshness, SignalOrder


def test_a_number_counts_once() -> None:
    one = Freshness(0.0)
    one.proven(1)
    assert [one.accepts(1, order, 0.0) for order in (5, 5, 4, 4, 6, 5)] == [True, False, True, False, True, False]


def test_what_is_far_behind_the_newest_is_a_replay() -> None:
    one = Freshness(0.0)
    one.proven(1)
    assert one.accepts(1, 10 * WINDOW, 0.0)
    assert not one.accepts(1, 9 * WINDOW, 0.0)
    assert one.accepts(1, 9 * WINDOW + 1, 0.0)


def test_what_was_seen_is_remembered_within_the_window_only() -> None:
    one = Freshness(0.0)
    one.proven(1)
    for order in range(1, 10 * WINDOW):
        assert one.accepts(1, order, 0.0)
    assert len(one._seen) <= 2 * WINDOW + 1
    assert not any(one.accepts(1, order, 0.0) for order in range(1, 10 * WINDOW))


def test_an_epoch_that_nothing_proves_gets_little() -> None:
    one = Freshness(0.0)
    one.proven(1)
    taken = sum(one.accepts(2, order, order * 0.001) for order in range(1000))
    assert STRANGE_BURST <= taken <= STRANGE_BURST + 4


def test_a_new_epoch_starts_from_nothing() -> None:
    one = Freshness(0.0)
    one.proven(1)
    assert one.accepts(1, 5000, 0.0)
    one.proven(2)
    assert one.accepts(2, 1, 0.0)
    one.proven(2)
    assert not one.accepts(2, 1, 0.0)


def test_signals_of_many_epochs_are_not_remembered_for_ever() -> None:
    orders = SignalOrder()
    for epoch in range(1, 2 * EPOCHS_MAX):
        assert orders.accepts(epoch, 1)
        assert not orders.accepts(epoch, 1)
    assert len(orders._newest) == EPOCHS_MAX


def test_who_does_not_number_signals_is_believed_until_he_does() -> None:
    orders = SignalOrder()
    assert orders.accepts(0, 0)
    assert orders.accepts(0, 0)
    assert orders.accepts(1, 1)
    assert not orders.accepts(0, 0)
