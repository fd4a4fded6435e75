from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.paths.mtu import AGAIN_S, CONFIRM_S, FLOOR, RAISE_S, MtuSearch


def play(search: MtuSearch, carries: int, until: float, now: float = 0.0, *, alive: bool = True) -> tuple[float, int]:
    """Probe by probe; what is larger than ``carries`` is lost. Returns the time and how many probes it took."""
    probes = 0
    for _ in range(10_000):
        search.overdue(now, alive=alive)
        size = search.wanted(now, used=True)
        if size is not None:
            probes += 1
            search.sent(now, 0.02)
            if size <= carries:
                search.answered(size, now + 0.02)
                now += 0.02
        now = max(now + 0.001, search.next_due(used=True))
        if now >= until:
            return now, probes
    raise AssertionError("it never rests")


@pytest.mark.parametrize("version", [4, 6])
def test_a_path_that_carries_all_is_known_after_two_probes(version: int) -> None:
    search = MtuSearch(1500, version, 0.0)
    _, probes = play(search, 9000, 5.0)
    assert search.proven == (1440 if version == 4 else 1420)
    assert probes == 2


@given(st.integers(1280, 9000), st.integers(576, 9100))
def test_the_search_ends_close_below_what_the_path_carries(link: int, carries: int) -> None:
    search = MtuSearch(link, 4, 0.0)
    _, probes = play(search, carries, 40.0)
    assert probes < 60
    if carries < FLOOR:
        assert search.too_small
        assert search.proven is None
    else:
        top = max(FLOOR, (link - 60) & ~3)
        assert search.proven is not None
        assert max(FLOOR, min(carries, top) - 19) <= search.proven <= min(carries, top)


@given(st.integers(1280, 1500))
def test_what_a_path_carries_is_said_so_that_padding_fits_too(carries: int) -> None:
    search = MtuSearch(1500, 4, 0.0)
    play(search, carries, 40.0)
    assert search.proven in {1440, carries // 16 * 16}


def test_losses_on_a_path_that_answers_nothing_say_nothing_about_sizes() -> None:
    search = MtuSearch(1500, 4, 0.0)
    play(search, 0, 60.0, alive=False)
    assert not search.too_small


def test_a_black_hole_ends_at_what_still_gets_through() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now, _ = play(search, 9000, 5.0)
    assert search.proven == 1440
    now, _ = play(search, 1300, now + CONFIRM_S + 20.0, now)
    assert search.proven is not None
    assert 1280 <= search.proven <= 1300


def test_a_path_that_is_unused_is_not_probed_for_ever() -> None:
    search = MtuSearch(1500, 4, 0.0)
    play(search, 9000, 5.0)
    assert search.next_due(used=False) == float("inf")
    assert search.next_due(used=True) < 20.0


def test_a_path_that_was_too_small_gets_another_chance() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now, _ = play(search, 1000, 5.0)
    assert search.too_small
    play(search, 9000, now + AGAIN_S, now)
    assert search.proven == 1440
    assert not search.too_small


def test_a_path_that_became_wider_is_noticed() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now, _ = play(search, 1350, 30.0)
    assert search.proven is not None
    assert search.proven < 1400
    play(search, 9000, now + RAISE_S + 2 * CONFIRM_S, now)
    assert search.proven == 1440


def pieces(search: MtuSearch, until: float, now: float = 0.0, *, pass_: bool = True) -> float:
    """What is whole and has 1280 bytes or more is lost; what may be fragmented passes, or not."""
    while now < until:
        search.overdue(now, alive=True)
        size = search.wanted(now, used=True)
        if size is not None:
            whole = search.whole
            search.sent(now, 0.02)
            if pass_ and not whole:
                search.answered(size, now + 0.02)
        now = max(now + 0.02, search.next_due(used=True))
    return now


def test_a_path_that_carries_pieces_is_no_longer_too_small_and_is_looked_at_again() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now = pieces(search, 60.0)
    assert (search.proven, search.too_small, search.whole) == (FLOOR, False, False)
    assert search.next_due(used=False) == float("inf")
    play(search, 9000, now + RAISE_S + 2 * CONFIRM_S, now)
    assert (search.proven, search.whole) == (1440, True)


def test_a_path_that_loses_pieces_too_is_too_small() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now = pieces(search, 30.0)
    pieces(search, now + 15.0, now, pass_=False)
    assert search.too_small


@pytest.mark.parametrize(("loss", "probes"), [(0.0, 9), (1 / 64, 9), (0.3, 12), (0.5, 18), (1.0, 18)])
def test_where_much_gets_lost_by_chance_the_last_word_takes_longer(loss: float, probes: int) -> None:
    search, now = MtuSearch(1500, 4, 0.0), 0.0
    assert play(search, 9000, 5.0)[1] == 2
    now = 100.0
    lost = 0
    while not search.too_small and lost < 40:
        search.wanted(now, used=True)
        search.sent(now, 0.0)
        lost, now = lost + 1, now + 1.0
        search.overdue(now, alive=True, loss=loss)
    assert lost == probes


def test_since_when_a_path_is_too_small_and_when_it_last_was_not_is_known() -> None:
    search = MtuSearch(1500, 4, 0.0)
    now, _ = play(search, 9000, 5.0)
    assert search.answered_at < now
    before = search.answered_at
    now, _ = play(search, 1000, now + CONFIRM_S + 20.0, now)
    since = search.too_small_since
    assert search.too_small
    assert before < since < now
    play(search, 1000, now + 2 * AGAIN_S, now)
    assert search.too_small_since == since, "it is no news"
