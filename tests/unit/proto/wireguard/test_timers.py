"""The timers against the paper (§6), and the queue against a list that is searched from end to end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.wireguard.timers import NEVER, PeerTimers, Timer, TimerQueue

JITTER_S = 0.25
Timers = PeerTimers[str]


def new(queue: TimerQueue[str] | None = None, name: str = "peer", keepalive_s: int = 0) -> Timers:
    timers: Timers = PeerTimers(name, TimerQueue() if queue is None else queue, lambda: JITTER_S)
    timers.persistent_keepalive_s = keepalive_s
    return timers


def running(timers: Timers) -> dict[Timer, float]:
    return {timer: at for at, timer in timers._all() if at != NEVER}


# What happens at time 0 → what runs afterwards.
TABLE: list[tuple[str, list[Callable[[Timers], None]], dict[Timer, float]]] = [
    ("§6.5 data sent", [lambda t: t.sent(0, True)], {Timer.NEW_HANDSHAKE: 15 + JITTER_S}),
    ("§6.5 keepalive or handshake sent", [lambda t: t.sent(0, False)], {}),
    ("§6.5 data received", [lambda t: t.received(0, True)], {Timer.SEND_KEEPALIVE: 10}),
    ("§6.5 keepalive received", [lambda t: t.received(0, False)], {}),
    ("§6.4 initiation sent", [lambda t: t.initiation_sent(0)], {Timer.RETRANSMIT_HANDSHAKE: 5 + JITTER_S}),
    ("§6.3 session derived", [lambda t: t.session_derived(0)], {Timer.ZERO_KEYS: 540}),
    ("§6.4 gave up", [lambda t: t.gave_up(0)], {Timer.ZERO_KEYS: 540}),
    ("§6.4 completed", [lambda t: t.initiation_sent(0), lambda t: t.handshake_completed()], {}),
    ("data in, something out", [lambda t: t.received(0, True), lambda t: t.sent(0, False)], {}),
    ("data out, something in", [lambda t: t.sent(0, True), lambda t: t.received(0, False)], {}),
    ("data out twice", [lambda t: t.sent(-5, True), lambda t: t.sent(0, True)], {Timer.NEW_HANDSHAKE: 10 + JITTER_S}),
    ("data in twice", [lambda t: t.received(-5, True), lambda t: t.received(0, True)], {Timer.SEND_KEEPALIVE: 5}),
    ("gave up, keys left", [lambda t: t.session_derived(-40), lambda t: t.gave_up(0)], {Timer.ZERO_KEYS: 500}),
    ("stopped", [lambda t: t.sent(0, True), lambda t: t.session_derived(0), lambda t: t.stop()], {}),
]


@pytest.mark.parametrize(("happens", "runs"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_starts_and_stops_timers(happens: list[Callable[[Timers], None]], runs: dict[Timer, float]) -> None:
    timers = new()
    for event in happens:
        event(timers)
    assert running(timers) == runs


@pytest.mark.parametrize("happens", [lambda t: t.sent(3, False), lambda t: t.received(3, False)])
def test_the_persistent_keepalive_is_put_off_by_all_traffic(happens: Callable[[Timers], None]) -> None:
    timers = new(keepalive_s=25)
    happens(timers)
    assert running(timers) == {Timer.PERSISTENT_KEEPALIVE: 28}


def test_a_second_keepalive_follows_only_if_more_data_came() -> None:
    for more, after in ((False, {}), (True, {Timer.SEND_KEEPALIVE: 20})):
        timers = new()
        timers.received(0, True)
        if more:
            timers.received(5, True)
        assert timers.take_due(10) == [Timer.SEND_KEEPALIVE]
        timers.sent(10, False)
        timers.passive_keepalive_sent(10)
        assert running(timers) == after


def test_due_timers_are_taken_once_and_in_order() -> None:
    timers = new()
    timers.session_derived(0)
    timers.sent(0, True)
    timers.received(1, True)
    timers.initiation_sent(2)
    assert timers.take_due(4) == []
    assert timers.take_due(600) == [Timer.RETRANSMIT_HANDSHAKE, Timer.SEND_KEEPALIVE, Timer.ZERO_KEYS]
    assert timers.take_due(600) == []


def test_the_deadline_says_why() -> None:
    queue: TimerQueue[str] = TimerQueue()
    assert queue.next_deadline() is None
    timers = new(queue)
    timers.session_derived(0)
    assert queue.next_deadline() == (540, Timer.ZERO_KEYS.value)
    timers.initiation_sent(0)
    assert queue.next_deadline() == (5 + JITTER_S, Timer.RETRANSMIT_HANDSHAKE.value)
    timers.handshake_completed()
    assert queue.next_deadline() == (540, Timer.ZERO_KEYS.value)
    timers.stop()
    assert queue.next_deadline() is None


steps = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["data out", "out", "data in", "in", "initiation", "completed", "session", "stop", "now"]),
        st.floats(0, 30),
    ),
    max_size=60,
)


@given(steps)
def test_the_queue_names_the_earliest_timer_and_pops_exactly_the_peers_that_are_due(
    steps: list[tuple[int, str, float]],
) -> None:
    queue: TimerQueue[str] = TimerQueue()
    peers = [new(queue, name, keepalive_s) for name, keepalive_s in (("a", 0), ("b", 25), ("c", 0), ("d", 3))]
    now = 0.0
    for index, what, gap in steps:
        now += gap
        happen(peers[index], what, now)
        earliest = min(peer.earliest()[0] for peer in peers)
        assert queue.wake_at() <= earliest
        deadline = queue.next_deadline()
        assert (NEVER if deadline is None else deadline.at) == earliest
        due = {peer.owner for peer in peers if peer.earliest()[0] <= now}
        popped = set()
        while (timers := queue.pop_due(now)) is not None:
            popped.add(timers.owner)
            assert timers.take_due(now)
            queue.settle(timers)
        assert popped == due


def happen(timers: Timers, what: str, now: float) -> None:
    match what:
        case "data out" | "out":
            timers.sent(now, what == "data out")
        case "data in" | "in":
            timers.received(now, what == "data in")
        case "initiation":
            timers.initiation_sent(now)
        case "completed":
            timers.handshake_completed()
        case "session":
            timers.session_derived(now)
        case "now":
            timers.keepalive_wanted(now)
        case _:
            timers.stop()


def test_the_queue_stays_small_however_often_timers_move() -> None:
    queue: TimerQueue[str] = TimerQueue()
    peers = [new(queue, str(number)) for number in range(50)]
    now = 0.0
    for _ in range(400):
        for timers in peers:
            timers.session_derived(now)
            timers.sent(now, True)
            timers.received(now, True)
        now += 12.0
        while (due := queue.pop_due(now)) is not None:
            due.take_due(now)
            queue.settle(due)
    assert len(queue) <= 256


def test_a_thousand_idle_peers_are_not_in_the_queue() -> None:
    queue: TimerQueue[str] = TimerQueue()
    peers = [new(queue, str(number)) for number in range(1000)]
    assert (len(peers), len(queue)) == (1000, 0)
