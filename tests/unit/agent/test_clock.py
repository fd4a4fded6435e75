"""Whose time it is: the coordinator's as soon as it is known, whatever the host's clock does."""

from __future__ import annotations

import pytest

from warren.agent.clock import KeptTime, NetworkClock


def test_before_a_coordinator_told_the_time_the_hosts_clock_counts() -> None:
    assert NetworkClock(KeptTime(), "boot").now(1000.0, 5.0) == 1000.0


def test_the_coordinators_time_goes_on_whatever_the_hosts_clock_does() -> None:
    clock = NetworkClock(KeptTime(), "boot")
    clock.tell(5000.0, 1000.0, 10.0)
    assert clock.now(0.0, 20.0) == 5010.0
    assert clock.now(1e9, 30.0) == 5020.0


def test_a_restart_in_the_same_boot_goes_on_from_there() -> None:
    clock = NetworkClock(KeptTime(), "boot")
    clock.tell(5000.0, 1000.0, 10.0)
    again = NetworkClock(clock.keep(1010.0, 20.0), "boot")
    assert again.now(1020.0, 30.0) == 5020.0
    assert NetworkClock(again.keep(1020.0, 30.0), "boot").now(7.0, 40.0) == 5030.0


def test_after_a_boot_with_a_dead_clock_time_goes_on_from_the_last_known() -> None:
    kept = KeptTime(network_s=5000.0, boot="before", steady_s=900.0, told=True)
    clock = NetworkClock(kept, "now")
    assert clock.now(0.0, 10.0) == 5000.0
    assert clock.now(10.0, 20.0) == 5010.0


def test_after_a_boot_with_a_good_clock_that_counts() -> None:
    kept = KeptTime(network_s=5000.0, boot="before", steady_s=900.0, told=True)
    assert NetworkClock(kept, "now").now(6000.0, 10.0) == 6000.0


@pytest.mark.parametrize(
    ("wall_s", "sentence"),
    [
        (5000.0, None),
        (5100.0, None),
        (5000.0 + 7200, "2 hours ahead of"),
        (5000.0 - 130, "2 minutes behind"),
        (5000.0 - 3 * 86_400, "3 days behind"),
    ],
)
def test_a_clock_far_off_is_named(wall_s: float, sentence: str | None) -> None:
    clock = NetworkClock(KeptTime(), "boot")
    assert clock.warning() is None
    clock.tell(5000.0, wall_s, 0.0)
    said = clock.warning()
    assert (said is None) == (sentence is None)
    assert sentence is None or (said is not None and sentence in said)
