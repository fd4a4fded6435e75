"""Who may come in, measured on a clock that the test moves."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.l4 import limits as module
from warren.l4.config import Limits
from warren.l4.counters import Counters, Open
from warren.l4.kinds import Refused
from warren.l4.limits import Admission, allowed, source_of
from warren.model.tunnel import TransportAddress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counters(clock: Clock) -> Counters:
    return Counters("test", clock)


@pytest.fixture
def admission(clock: Clock, counters: Counters) -> Admission:
    return Admission(counters, clock)


def client(text: str, port: int = 1) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


def let_in(admission: Admission, text: str, limits: Limits, tries: int, name: str = "") -> int:
    count = 0
    for port in range(tries):
        try:
            admission.admit(client(text, port + 1), limits, name)
        except Refused as refused:
            if refused.reason != "rate":
                raise
        else:
            count += 1
    return count


def test_only_listed_sources_come_in(admission: Admission) -> None:
    limits = Limits(sources=("192.0.2.0/24", "2001:db8::/32"))
    for text in ("192.0.2.1", "192.0.2.255", "2001:db8:ffff::1"):
        admission.admit(client(text), limits)
    for text in ("192.0.3.1", "2001:db9::1", "127.0.0.1"):
        with pytest.raises(Refused) as refused:
            admission.admit(client(text), limits)
        assert refused.value.reason == "source"
        assert text in str(refused.value)


def test_an_empty_list_lets_everybody_in_and_programs_of_this_host_have_no_source(admission: Admission) -> None:
    admission.admit(client("203.0.113.9"), Limits())
    admission.admit(None, Limits(sources=("192.0.2.0/24",), rate=0.001))


def test_ipv4_prefixes_do_not_match_ipv6_addresses() -> None:
    assert not allowed(ip_address("::1"), ("0.0.0.0/0",))
    assert not allowed(ip_address("1.2.3.4"), ("::/0",))
    assert not allowed(ip_address("1.2.3.4"), ())


def test_a_source_has_a_burst_of_ten_seconds_worth_and_then_its_rate(admission: Admission, clock: Clock) -> None:
    limits = Limits(rate=5)
    assert let_in(admission, "192.0.2.1", limits, 100) == 50
    for _ in range(10):
        clock.now += 1
        assert let_in(admission, "192.0.2.1", limits, 20) == 5


def test_the_burst_is_at_least_ten(admission: Admission, clock: Clock) -> None:
    limits = Limits(rate=0.5)
    assert let_in(admission, "192.0.2.1", limits, 100) == 10
    clock.now += 2
    assert let_in(admission, "192.0.2.1", limits, 10) == 1


def test_sources_do_not_share_and_addresses_of_a_64_do(admission: Admission) -> None:
    limits = Limits(rate=1)
    assert let_in(admission, "192.0.2.1", limits, 20) == 10
    assert let_in(admission, "192.0.2.2", limits, 20) == 10
    assert let_in(admission, "2001:db8::1", limits, 20) == 10
    assert let_in(admission, "2001:db8::ffff:1", limits, 20) == 0
    assert let_in(admission, "2001:db8:0:1::1", limits, 20) == 10
    assert source_of(ip_address("2001:db8::1")) != source_of(ip_address("0.0.0.1"))


def test_parts_of_an_entry_have_rates_of_their_own(admission: Admission) -> None:
    limits = Limits(rate=1)
    assert let_in(admission, "192.0.2.1", limits, 20, "shop") == 10
    assert let_in(admission, "192.0.2.1", limits, 20, "blog") == 10


def test_no_more_than_streams_max_are_open(admission: Admission, counters: Counters) -> None:
    limits = Limits(streams_max=2)
    ends = []
    for _ in range(2):
        admission.admit(client("127.0.0.1"), limits)
        ends.append(counters.begin(client("127.0.0.1")))
    with pytest.raises(Refused) as refused:
        admission.admit(client("192.0.2.2"), limits)
    assert refused.value.reason == "streams"
    ends[0]()
    ends[0]()
    admission.admit(client("192.0.2.2"), limits)
    assert counters.open == 1


def test_parts_of_an_entry_have_their_own_count(admission: Admission, counters: Counters) -> None:
    limits = Limits(streams_max=1)
    end = counters.begin()
    end.part = counters.part("shop")
    end.enter_part()
    with pytest.raises(Refused):
        admission.admit(client("192.0.2.1"), limits, "shop")
    admission.admit(client("192.0.2.1"), limits, "blog")
    end()
    admission.admit(client("192.0.2.1"), limits, "shop")
    assert (counters.open, counters.part("shop").open) == (0, 0)


def fill(admission: Admission, counters: Counters, text: str, limits: Limits) -> list[Open]:
    """As many as ``text`` gets."""
    ends: list[Open] = []
    while len(ends) <= limits.streams_max:
        try:
            admission.admit(client(text), limits)
        except Refused:
            break
        ends.append(counters.begin(client(text)))
    return ends


@pytest.mark.parametrize("text", ["192.0.2.1", "2001:db8::1"])
def test_one_source_cannot_take_the_last_places(admission: Admission, counters: Counters, text: str) -> None:
    limits = Limits()
    ends = fill(admission, counters, text, limits)
    assert len(ends) == 3276
    with pytest.raises(Refused, match=r"^(192\.0\.2\.1|2001:db8::/64) has 3276 of 4096 places, and those") as refused:
        admission.admit(client(text), limits)
    assert refused.value.reason == "streams"
    for other in ("192.0.2.2", "2001:db8:0:1::1", "2001:db8:1::1"):
        admission.admit(client(other), limits)
    for end in ends:
        end()
        end()
    assert (counters.open, len(counters.shares)) == (0, 0)
    admission.admit(client(text), limits)


def test_programs_of_this_host_can_have_all_places(admission: Admission, counters: Counters) -> None:
    for who in (client("127.0.0.1"), client("::1"), None):
        limits, ends = Limits(streams_max=20), []
        for _ in range(20):
            admission.admit(who, limits)
            ends.append(counters.begin(who))
        with pytest.raises(Refused, match="20 are open already"):
            admission.admit(who, limits)
        for end in ends:
            end()


def test_who_is_told_to_be_somebody_else_counts_as_that_from_then_on(admission: Admission, counters: Counters) -> None:
    limits = Limits(streams_max=10)
    balancer, visitor = client("192.0.2.1"), client("198.51.100.7")
    ends = []
    for _ in range(8):
        admission.check_open(balancer, limits)
        ends.append(counters.begin(balancer))
        admission.check_share(visitor, limits)
        ends[-1].belongs_to(visitor)
    admission.check_open(balancer, limits)  # it has none itself
    last = counters.begin(balancer)
    with pytest.raises(Refused, match=r"198\.51\.100\.7 has 8 of 10 places"):
        admission.check_share(visitor, limits)
    admission.check_share(client("198.51.100.8"), limits)
    for end in (*ends, last):
        end()
    assert len(counters.shares) == 0


def test_a_refused_source_takes_nothing_from_its_rate(admission: Admission) -> None:
    for _ in range(100):
        with pytest.raises(Refused):
            admission.admit(client("192.0.2.1"), Limits(rate=1, sources=("198.51.100.0/24",)))
    assert let_in(admission, "192.0.2.1", Limits(rate=1), 20) == 10


def test_the_table_of_sources_is_bounded_and_the_longest_silent_is_forgotten(
    admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOURCES_MAX", 2)
    limits = Limits(rate=1)
    assert let_in(admission, "192.0.2.1", limits, 20) == 10
    assert let_in(admission, "192.0.2.2", limits, 20) == 10
    assert let_in(admission, "192.0.2.1", limits, 1) == 0
    assert let_in(admission, "192.0.2.3", limits, 20) == 10
    assert len(admission._buckets) == 2
    assert let_in(admission, "192.0.2.1", limits, 1) == 0


def test_new_limits_begin_afresh(admission: Admission) -> None:
    assert let_in(admission, "192.0.2.1", Limits(rate=1), 20) == 10
    admission.forget()
    assert let_in(admission, "192.0.2.1", Limits(rate=2), 30) == 20
