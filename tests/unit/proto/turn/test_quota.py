"""What is given to who has proved nothing, and how many allocations anybody has."""

from __future__ import annotations

import pytest

from warren.proto.turn.quota import (
    GIFT_BYTES,
    GIFTS_BYTES,
    GIFTS_BYTES_PER_S,
    PREFIXES_MAX,
    REPLIES_PER_PREFIX_PER_S,
    Quotas,
    ReplyBudget,
)


@pytest.mark.parametrize(("request_bytes", "reply_bytes"), [(20, 32), (28, 88), (36, 88), (28, 28), (100, 88)])
def test_over_time_no_more_goes_out_than_came_in(request_bytes: int, reply_bytes: int) -> None:
    budget = ReplyBudget()
    asked = answered = 0
    for number in range(2000):
        asked += request_bytes
        answered += reply_bytes * budget.allows("192.0.2.1", request_bytes, reply_bytes, number / 1000)
    assert 0 < answered <= asked


def test_a_network_of_forged_sources_shares_one_budget() -> None:
    budget = ReplyBudget()
    answered = sum(budget.allows(f"192.0.2.{host}", 28, 88, 0.0) for host in range(256))
    assert answered * 88 <= GIFT_BYTES + 256 * 28
    assert budget.allows("198.51.100.1", 28, 88, 0.0)


def test_an_answer_no_larger_than_its_request_needs_no_gift() -> None:
    budget = ReplyBudget()
    while budget.allows("192.0.2.1", 20, 88, 0.0):
        pass
    assert budget.allows("192.0.2.2", 88, 88, 0.5)


def test_even_small_answers_come_only_so_often() -> None:
    budget = ReplyBudget()
    answered = sum(budget.allows("192.0.2.1", 100, 88, number / 10_000) for number in range(10_000))
    assert answered <= 2 * REPLIES_PER_PREFIX_PER_S


def test_the_gift_grows_back() -> None:
    budget = ReplyBudget()
    while budget.allows("192.0.2.1", 28, 88, 0.0):
        pass
    assert not budget.allows("192.0.2.1", 28, 88, 0.0)
    assert budget.allows("192.0.2.1", 28, 88, 2.0)


def test_forged_networks_fill_no_table() -> None:
    budget = ReplyBudget()
    for number in range(3 * PREFIXES_MAX):
        budget.allows(f"{number >> 8 & 255}.{number & 255}.{number >> 16}.1", 20, 32, number / 1000)
    assert len(budget._credit) <= PREFIXES_MAX


def test_quotas_count_by_user_by_address_and_all_together() -> None:
    quotas = Quotas(3, per_user=2, per_prefix=2)
    quotas.take("a", "192.0.2.1")
    quotas.take("a", "192.0.2.2")
    assert quotas.why_not("a", "192.0.2.3") == 486
    quotas.take("b", "192.0.2.1")
    assert quotas.why_not("c", "192.0.2.1") == 486
    assert quotas.why_not("c", "192.0.2.9") == 508
    quotas.give_back("a", "192.0.2.1")
    assert quotas.why_not("a", "192.0.2.1") == 0
    assert quotas.user_is_full("b") is False


def test_quotas_forget_who_holds_nothing() -> None:
    quotas = Quotas(10, 10, 10)
    quotas.take("a", "2001:db8::1")
    quotas.give_back("a", "2001:db8::1")
    assert not quotas._per_user
    assert not quotas._per_prefix


def test_gifts_to_all_forged_networks_together_are_bounded() -> None:
    budget = ReplyBudget()
    excess = 0
    for number in range(20_000):
        host = f"{number >> 8 & 255}.{number & 255}.7.1"
        if budget.allows(host, 28, 100, number / 20_000):
            excess += 100 - 28
    assert excess <= GIFTS_BYTES + GIFTS_BYTES_PER_S
