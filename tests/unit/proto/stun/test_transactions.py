from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.model.tunnel import TransportAddress
from warren.proto.stun.credentials import verifies
from warren.proto.stun.message import Class, Message, Method, decode_untrusted, encode
from warren.proto.stun.transactions import Answered, Request, Schedule, TimedOut, Transactions

SERVER = TransportAddress(IPv4Address("203.0.113.1"), 3478)
ELSEWHERE = TransportAddress(IPv4Address("203.0.113.1"), 3479)


def request(number: int = 1, method: int = Method.BINDING) -> bytes:
    return encode(method, Class.REQUEST, number.to_bytes(12))


def answer(number: int = 1, method: int = Method.BINDING, cls: Class = Class.SUCCESS, key: bytes = b"") -> Message:
    return decode_untrusted(encode(method, cls, number.to_bytes(12), key=key or None))


def times(transactions: Transactions, until: float) -> list[float]:
    """When requests go out, as the machine itself wishes to be woken."""
    sent: list[float] = []
    now = 0.0
    for _ in range(100):
        sent += [now] * len(transactions.take_transmits())
        deadline = transactions.next_deadline()
        if deadline is None or deadline.at > until:
            break
        now = deadline.at
        transactions.handle_timeout(now)
    return sent


def test_a_request_goes_out_seven_times_and_is_given_up_as_in_the_rfc() -> None:
    """RFC 8489 §6.2.1: 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, and failure at 39500 ms."""
    transactions = Transactions()
    assert transactions.start(request(), "tag", SERVER, 0.0)
    assert times(transactions, until=39.4) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    deadline = transactions.next_deadline()
    assert deadline is not None
    assert deadline.at == 39.5
    transactions.handle_timeout(39.49)
    assert transactions.take_events() == []
    transactions.handle_timeout(39.5)
    assert transactions.take_events() == [TimedOut("tag")]
    assert (len(transactions), transactions.next_deadline()) == (0, None)


def test_a_request_may_have_a_schedule_of_its_own() -> None:
    transactions = Transactions()
    transactions.start(request(), "tag", SERVER, 0.0, schedule=Schedule(0.1, 3, 2.0))
    assert times(transactions, until=10.0) == [0.0, 0.1, pytest.approx(0.3)]
    assert transactions.take_events() == [TimedOut("tag")]


def test_an_answer_ends_it_and_its_time_is_known_unless_it_was_sent_again() -> None:
    transactions = Transactions()
    transactions.start(request(1), "one", SERVER, 0.0)
    transactions.start(request(2), "two", SERVER, 0.0)
    assert transactions.take_transmits() == [Request(request(1), SERVER, "one"), Request(request(2), SERVER, "two")]
    assert transactions.receive(answer(1), SERVER, 0.2)
    transactions.handle_timeout(0.5)
    assert transactions.receive(answer(2, cls=Class.ERROR), SERVER, 0.6)
    assert transactions.take_events() == [
        Answered("one", answer(1), SERVER, 0.2),
        Answered("two", answer(2, cls=Class.ERROR), SERVER, None),
    ]
    assert not transactions.receive(answer(1), SERVER, 0.7)  # again
    assert transactions.next_deadline() is None


def test_what_is_not_the_answer_changes_nothing() -> None:
    transactions = Transactions()
    transactions.start(request(), "tag", SERVER, 0.0)
    assert not transactions.receive(answer(2), SERVER, 0.1)
    assert not transactions.receive(answer(1, Method.ALLOCATE), SERVER, 0.1)
    assert not transactions.receive(answer(1, cls=Class.REQUEST), SERVER, 0.1)
    assert not transactions.receive(answer(1, cls=Class.INDICATION), SERVER, 0.1)
    assert not transactions.receive(answer(1), ELSEWHERE, 0.1)
    assert transactions.take_events() == []
    assert transactions.receive(answer(1), SERVER, 0.1)


def test_an_answer_that_does_not_verify_is_as_if_it_never_came() -> None:
    transactions = Transactions()
    transactions.start(request(), "tag", SERVER, 0.0, accepts=lambda message, _: verifies(message, b"key"))
    assert not transactions.receive(answer(), SERVER, 0.1)
    assert not transactions.receive(answer(key=b"other"), SERVER, 0.1)
    assert transactions.receive(answer(key=b"key"), ELSEWHERE, 0.2)  # from anywhere: `accepts` decides
    assert [type(event) for event in transactions.take_events()] == [Answered]


def test_a_cancelled_request_is_neither_sent_again_nor_told() -> None:
    transactions = Transactions()
    transactions.start(request(1), "tag", SERVER, 0.0)
    transactions.start(request(2), "tag", SERVER, 0.0)
    transactions.start(request(3), "other", SERVER, 0.0)
    transactions.take_transmits()
    transactions.cancel("tag")
    assert len(transactions) == 1
    transactions.handle_timeout(0.5)
    assert [one.tag for one in transactions.take_transmits()] == ["other"]
    assert not transactions.receive(answer(1), SERVER, 0.6)
    assert transactions.take_events() == []


def test_there_are_only_so_many_at_once() -> None:
    transactions = Transactions(ceiling=2)
    assert transactions.start(request(1), 1, SERVER, 0.0)
    assert transactions.start(request(2), 2, SERVER, 0.0)
    assert not transactions.start(request(3), 3, SERVER, 0.0)
    assert len(transactions.take_transmits()) == 2
    transactions.receive(answer(1), SERVER, 0.1)
    assert transactions.start(request(3), 3, SERVER, 0.2)


@given(st.lists(st.tuples(st.sampled_from(["start", "answer", "wait", "cancel"]), st.integers(1, 6)), max_size=60))
def test_every_request_ends_in_exactly_one_event_or_a_cancellation(steps: list[tuple[str, int]]) -> None:
    transactions = Transactions(Schedule(1.0, 3, 2.0))
    now = 0.0
    started = cancelled = 0
    running: dict[int, int] = {}
    for step, number in steps:
        if step == "start" and number not in running:
            started += transactions.start(request(number), number, SERVER, now)
            running[number] = started
        elif step == "answer":
            transactions.receive(answer(number), SERVER, now)
        elif step == "wait":
            now += number / 2
            transactions.handle_timeout(now)
        elif step == "cancel":
            before = len(transactions)
            transactions.cancel(number)
            cancelled += before - len(transactions)
        running = {one: serial for one, serial in running.items() if len(transactions) and one in _tags(transactions)}
    while (deadline := transactions.next_deadline()) is not None:
        transactions.handle_timeout(deadline.at)
    assert len(transactions) == 0
    assert len(transactions.take_events()) + cancelled == started


def _tags(transactions: Transactions) -> set[object]:
    return {running.whose for running in transactions._running.values()}
