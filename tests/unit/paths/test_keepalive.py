from __future__ import annotations

from warren.paths.keepalive import GROWS_S, Keepalive
from warren.paths.nat import Behaviour, Situation


def test_a_nat_that_forgets_halves_the_interval_down_to_the_least() -> None:
    one = Keepalive(15.0, 1.0, 0.0)
    seen = []
    for _ in range(6):
        one.forgotten(0.0)
        seen.append(one.interval_s)
    assert seen == [7.5, 3.75, 1.875, 1.0, 1.0, 1.0]


def test_after_a_long_time_without_trouble_it_grows_again_and_more_slowly_each_time() -> None:
    one = Keepalive(15.0, 1.0, 0.0)
    one.forgotten(0.0)
    one.kept(GROWS_S)
    assert one.interval_s == 7.5
    one.kept(2 * GROWS_S)
    assert one.interval_s == 15.0
    one.forgotten(2 * GROWS_S)
    one.kept(5 * GROWS_S)
    assert one.interval_s == 7.5
    one.kept(6 * GROWS_S)
    assert one.interval_s == 15.0
    one.kept(60 * GROWS_S)
    assert one.interval_s == 15.0


def test_what_the_nats_are_known_to_remember_counts() -> None:
    one = Keepalive(15.0, 1.0, 0.0)
    one.learn(Situation(v4=Behaviour(lifetime_s=20.0)), None)
    assert one.interval_s == 10.0
    one.learn(Situation(v4=Behaviour(lifetime_s=20.0)), Situation(v6=Behaviour(lifetime_s=0.5)))
    assert one.interval_s == 1.0


def test_elsewhere_nothing_of_it_counts() -> None:
    one = Keepalive(15.0, 1.0, 0.0)
    one.forgotten(0.0)
    one.renew(1.0)
    assert one.interval_s == 15.0
