from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.proto.wireguard.ratelimit import RateLimiter, source_prefix


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(20.0, 5.0)
    assert [limiter.allows(1, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [limiter.allows(1, 0.05), limiter.allows(1, 0.05)] == [True, False]
    assert [limiter.allows(1, 10.0) for _ in range(6)] == [True] * 5 + [False]


def test_sources_do_not_share_tokens() -> None:
    limiter = RateLimiter(20.0, 1.0)
    assert limiter.allows(1, 0.0)
    assert limiter.allows(2, 0.0)
    assert not limiter.allows(1, 0.0)


@given(st.lists(st.floats(0.0, 0.2), max_size=300))
def test_nobody_gets_more_than_burst_and_rate(gaps: list[float]) -> None:
    limiter = RateLimiter(20.0, 5.0)
    now = allowed = 0.0
    for gap in gaps:
        now += gap
        allowed += limiter.allows(7, now)
    assert allowed <= 5 + 20 * now + 1e-6


def test_the_table_is_bounded_and_forgets_the_oldest() -> None:
    limiter = RateLimiter(20.0, 5.0, sources_max=100)
    for source in range(1000):
        limiter.allows(source, source * 0.001)
        assert len(limiter) <= 100


def test_a_source_that_was_just_limited_is_not_forgotten_for_newcomers() -> None:
    limiter = RateLimiter(20.0, 1.0, sources_max=100)
    for source in range(90):
        limiter.allows(source, 0.0)
    assert limiter.allows(999, 0.01)
    for source in range(1000, 1040):
        limiter.allows(source, 0.02)
    assert not limiter.allows(999, 0.02)


def test_prefixes_group_what_one_party_controls() -> None:
    def source(host: str) -> int:
        return source_prefix(host, 32, 64)

    assert source("192.0.2.1") != source("192.0.2.2")
    assert source("192.0.2.1") == source("::ffff:192.0.2.1")
    assert source("2001:db8:1:2::1") == source("2001:db8:1:2:ffff::9")
    assert source("2001:db8:1:2::1") != source("2001:db8:1:3::1")
    assert source("fe80::1%eth0") == source("fe80::1%eth1")
    assert source("0.0.0.1") != source("0:0:0:1::")
    assert source_prefix("192.0.2.1", 24, 48) == source_prefix("192.0.2.200", 24, 48)
