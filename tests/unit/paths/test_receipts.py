from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support.path_pair import at, host
from warren.paths.checks import Receipt
from warren.paths.pair import Pair
from warren.paths.receipts import BEGINS_S, DOUBT_S, KNOWN_S, LEFT_S, Receipts


class Play:
    """Data goes out and is looked at every second; checks twice in that time, of which ``answered`` says which come
    back. What the peer says it counted half a second before.
    """

    def __init__(self, *, every: int = 1) -> None:
        self.now, self.came, self.every = 0.0, 1000, every
        self.pair = Pair(host("192.0.2.1"), at("203.0.113.1"), "relay", 2)
        self.receipts = Receipts()
        self.step(5, arrives=True)

    def step(self, seconds: int, *, arrives: bool, answered: int = 1) -> float | None:
        """Returns after how long it was damning, if it was."""
        began = self.now
        for number in range(2 * seconds):
            self.now += 0.5
            if number % (2 * self.every) == 0:
                self.came += 100 * arrives
                self.receipts.sent(self.now - 1.0, self.now, self.pair)
            transaction = number.to_bytes(12)
            self.pair.was_sent(transaction, self.now)
            if number % answered == 0:
                self.pair.was_answered(transaction, self.now, at("198.51.100.1"), self.now)
                self.receipts.received(Receipt(self.came, 0.5), self.now, self.pair, self.now)
                if self.receipts.damning(self.pair):
                    return self.now - began
        return None


def test_data_that_arrives_damns_nobody() -> None:
    play = Play()
    assert play.step(60, arrives=True) is None
    assert play.receipts.known(play.now)


def test_data_that_does_not_arrive_does_after_a_few_seconds() -> None:
    after = Play().step(60, arrives=False)
    assert after is not None
    assert LEFT_S <= after <= 6.0


def test_a_peer_that_refuses_what_is_sent_makes_no_path_flap() -> None:
    play = Play()
    times = []
    for _ in range(10):
        times.append(play.step(3600, arrives=False))
        assert play.receipts.damning(play.pair), "as long as nobody acts on it"
        play.receipts.forget()
    assert all(later is not None and later >= earlier for earlier, later in pairwise(times) if earlier is not None)
    assert times[2] is not None
    assert times[2] >= 4 * LEFT_S
    assert times[-1] is not None
    assert 400.0 <= times[-1] <= 600.0
    play.step(5, arrives=True)
    after = play.step(60, arrives=False)
    assert after is not None
    assert after <= 6.0


def test_of_handshakes_alone_three_are_enough() -> None:
    after = Play(every=5).step(60, arrives=False)
    assert after is not None
    assert 10.0 <= after <= 12.0


def test_a_path_that_loses_half_of_its_checks_is_given_longer() -> None:
    play = Play()
    play.step(30, arrives=True, answered=2)
    after = play.step(60, arrives=False, answered=2)
    assert after is not None
    assert after >= 7.0


def test_once_in_a_while_something_arrives_and_that_is_enough() -> None:
    play = Play()
    for _ in range(20):
        assert play.step(3, arrives=False) is None
        assert play.step(1, arrives=True) is None


def test_what_was_sent_about_when_the_peer_counted_is_not_held_against_it() -> None:
    play = Play()
    play.now += 60.0
    play.receipts.received(Receipt(play.came, 0.5), play.now, play.pair, play.now)
    assert not play.receipts.damning(play.pair)
    assert not play.receipts.take_doubt()


def test_nothing_that_was_sent_is_nothing_that_is_missing() -> None:
    play = Play()
    for _ in range(100):
        play.now += 0.5
        play.receipts.received(Receipt(play.came, 0.5), play.now, play.pair, play.now)
        assert not play.receipts.damning(play.pair)


def test_a_count_from_before_the_data_says_nothing_of_it() -> None:
    play = Play()
    for _ in range(20):
        play.now += 1.0
        play.receipts.sent(play.now - 1.0, play.now, play.pair)
        play.receipts.received(Receipt(play.came, play.now - 5.0), play.now, play.pair, play.now)
        assert not play.receipts.damning(play.pair)


def test_an_older_answer_that_comes_late_takes_nothing_back() -> None:
    play = Play()
    play.receipts.received(Receipt(0, 60.0), play.now, play.pair, play.now)
    assert play.step(10, arrives=False) is not None, "it did not count as a peer that began anew"


@pytest.mark.parametrize("said", [False, True])
def test_a_peer_that_began_anew_has_time_to_find_its_session_again(said: bool) -> None:
    play = Play()
    if said:
        play.receipts.peer_began(play.now)
    else:
        play.came = 0
    after = play.step(60, arrives=False)
    assert after is not None
    assert BEGINS_S <= after <= BEGINS_S + 6.0


def test_a_count_that_comes_round_to_nothing_goes_on() -> None:
    play = Play()
    play.came = (1 << 32) - 50
    play.step(1, arrives=False)
    play.receipts.received(Receipt(50, 0.0), play.now, play.pair, play.now)
    play.came = 50
    after = play.step(60, arrives=False)
    assert after is not None
    assert after <= 7.0


def test_the_path_mtu_is_doubted_before_the_path_is_and_once() -> None:
    play = Play()
    assert not play.receipts.take_doubt()
    play.step(int(DOUBT_S) + 2, arrives=False)
    assert play.receipts.take_doubt()
    assert not play.receipts.take_doubt()


def test_another_path_begins_without_a_stain() -> None:
    play = Play()
    play.step(3, arrives=False)
    play.receipts.forget()
    after = play.step(60, arrives=False)
    assert after is not None
    assert after >= LEFT_S


def test_who_has_not_said_anything_for_a_while_may_have_forgotten_how() -> None:
    play = Play()
    assert play.receipts.known(play.now + KNOWN_S - 1)
    assert not play.receipts.known(play.now + KNOWN_S)
