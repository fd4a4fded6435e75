from __future__ import annotations

from tests.support.path_pair import at, host
from warren.paths.checks import Receipt
from warren.paths.delivery import KEEPALIVE_BYTES, MUTE_S, SILENCE_S, Delivery, Traffic
from warren.paths.pair import Pair

QUIET = Traffic(flows=False, silent=False, mute=False)
FLOWS = Traffic(flows=True, silent=False, mute=False)


def path() -> Pair:
    return Pair(host("192.0.2.1"), at("192.0.2.2"), "host", 0)


def test_keepalives_are_no_data() -> None:
    delivery, pair = Delivery(), path()
    for second in range(100):
        assert delivery.counted(second * KEEPALIVE_BYTES, second * KEEPALIVE_BYTES, pair, float(second)) == QUIET


def test_data_in_either_direction_is_use() -> None:
    delivery, pair = Delivery(), path()
    assert delivery.counted(100, 0, pair, 0.0) == FLOWS
    assert delivery.counted(100, 100, pair, 1.0) == FLOWS
    assert delivery.counted(100, 100, pair, 2.0) == QUIET


def test_who_heard_something_lately_and_now_nothing_is_in_silence_for_a_while() -> None:
    delivery, pair = Delivery(), path()
    delivery.counted(100, 100, pair, 0.0)
    assert delivery.counted(200, 100, pair, 1.0).silent
    assert not delivery.counted(300, 100, pair, SILENCE_S).silent, "then heartbeats watch it"


def test_a_path_is_mute_when_nothing_has_come_for_long_and_that_is_said_once() -> None:
    delivery, pair = Delivery(), path()
    assert not delivery.counted(100, 0, pair, 0.0).mute
    assert not delivery.counted(200, 0, pair, MUTE_S - 0.1).mute
    assert delivery.counted(300, 0, pair, MUTE_S).mute
    assert not delivery.counted(400, 0, pair, MUTE_S + 1.0).mute
    assert delivery.counted(500, 0, pair, 2 * MUTE_S).mute


def test_anything_that_comes_and_another_path_make_it_begin_anew() -> None:
    for comes in (True, False):
        delivery, pair = Delivery(), path()
        delivery.counted(100, 0, pair, 0.0)
        if comes:
            delivery.counted(100, 1, pair, 5.0)
        else:
            delivery.path_changed()
        assert not delivery.counted(200, int(comes), pair, MUTE_S).mute


def test_a_path_is_not_mute_while_the_peer_says_what_came() -> None:
    delivery, pair = Delivery(), path()
    delivery.counted(100, 0, pair, 0.0)
    assert not delivery.received(Receipt(100, 0.0), MUTE_S - 1.0, pair, MUTE_S - 1.0)
    assert not delivery.counted(200, 0, pair, MUTE_S).mute


def test_what_came_is_told_with_its_age() -> None:
    delivery = Delivery()
    assert delivery.receipt(0.0) is None, "nobody has counted yet"
    delivery.counted(0, 700, path(), 1.0)
    assert delivery.receipt(1.5) == Receipt(700, 0.5)


def test_a_count_that_stands_still_while_checks_are_answered_is_damning() -> None:
    delivery, pair = Delivery(), path()
    verdicts = []
    for second in range(20):
        delivery.counted(second * 1000, 0, pair, float(second))
        pair.sent += 2
        pair.answered += 2
        verdicts.append(delivery.received(Receipt(0, 0.0), second + 0.5, pair, second + 0.6))
    assert True in verdicts
    assert verdicts.index(True) >= 4


def test_a_count_that_grows_is_not() -> None:
    delivery, pair = Delivery(), path()
    for second in range(20):
        delivery.counted(second * 1000, 0, pair, float(second))
        pair.sent += 2
        pair.answered += 2
        assert not delivery.received(Receipt(second * 1000, 0.0), second + 0.5, pair, second + 0.6)
