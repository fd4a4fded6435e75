"""Impaired links with real packets. The exact statistics are tested without sockets; here it is the wiring."""

from __future__ import annotations

import pytest

from warren.errors import OperationFailed, UsageError
from warren.lab import Host, ImpairedLink, Impairment, Lab
from warren.lab.traffic import tcp_transfer, udp_echo, udp_series

MEGABYTE = 1 << 20
COUNT = 400


@pytest.fixture
def bad(lab: Lab) -> tuple[Host, Host, ImpairedLink]:
    """Two hosts on a link that has no faults yet."""
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"], impairment=Impairment())
    return a, b, link


Bad = tuple[Host, Host, ImpairedLink]


def test_without_faults_it_is_a_link_of_both_families(bad: Bad) -> None:
    a, b, link = bad
    assert len(udp_echo(a, b, "fd09::2", count=3)) == 3
    assert tcp_transfer(b, a, "10.9.0.1", 4 * MEGABYTE).intact
    toward_a = link.counters(toward=a)
    assert toward_a.received == toward_a.transmitted > 4 * MEGABYTE // 1500, "no segmentation offload"


def arrivals(seed: int) -> tuple[int, ...]:
    """The numbers of a series that cross a lossy link of a lab with that seed."""
    with Lab(seed=seed) as lab:
        a, b = lab.host("a"), lab.host("b")
        for host in (a, b):
            host.sysctl("net.ipv6.conf.default.disable_ipv6", 1)  # nothing but the series passes
        link = lab.link(a, b, "10.9.0.1/24", "10.9.0.2/24", impairment=Impairment(loss=0.2))
        series = udp_series(a, b, "10.9.0.2", count=COUNT)
        counters = link.counters(toward=b)
        assert (counters.received, counters.transmitted) == (COUNT, series.received)
    return series.arrived


def test_the_same_seed_loses_the_same_packets(lab_privilege: None) -> None:
    first = arrivals(1)
    assert 0.7 * COUNT < len(first) < 0.9 * COUNT
    assert arrivals(1) == first
    assert arrivals(2) != first


@pytest.mark.parametrize(
    ("impairment", "expected"),
    [
        (Impairment(duplicate=0.2), lambda s: s.duplicates > 0.1 * COUNT and s.received == COUNT),
        (Impairment(reorder=0.3), lambda s: s.late > 0.2 * COUNT and s.received == COUNT),
        (Impairment(jitter_s=0.003, delay_s=0.003), lambda s: (s.late, s.received) == (0, COUNT)),
        (Impairment(corrupt=0.3), lambda s: 0.6 * COUNT < s.received < 0.8 * COUNT),
        (Impairment(mtu_drop=91), lambda s: s.received == 0),
        (Impairment(mtu_drop=92), lambda s: s.received == COUNT),
        (Impairment(rate_bps=16_000, queue_packets=10), lambda s: 10 <= s.received < COUNT / 2),  # one each 46 ms
    ],
    ids=lambda value: str(value) if isinstance(value, Impairment) else "",
)
def test_a_fault_changed_in_operation_acts_in_its_direction_only(
    bad: Bad, impairment: Impairment, expected: object
) -> None:
    a, b, link = bad
    link.set(impairment, toward=b)
    series = udp_series(a, b, "10.9.0.2", count=COUNT)
    assert callable(expected)
    assert expected(series), series
    back = udp_series(b, a, "10.9.0.1", count=50)
    assert (back.received, back.duplicates, back.late) == (50, 0, 0)


def test_a_delay_is_seen_by_the_round_trip(bad: Bad) -> None:
    a, b, link = bad
    link.set(Impairment(delay_s=0.2))
    both = min(udp_echo(a, b, "10.9.0.2", count=3))
    link.set(Impairment(), toward=a)
    one = min(udp_echo(a, b, "10.9.0.2", count=3))
    # The quickest of three, and upper bounds that leave room for a busy machine.
    assert 0.4 <= both < 0.6
    assert 0.2 <= one < 0.4


def test_corrupted_datagrams_reach_the_program_when_asked_for(bad: Bad) -> None:
    a, b, link = bad
    link.set(Impairment(corrupt=1, corrupt_passes_udp=True), toward=b)
    series = udp_series(a, b, "10.9.0.2", count=50, size=9)
    assert series.received + series.duplicates == 50


def test_a_transfer_over_a_bad_link_arrives_whole(bad: Bad) -> None:
    a, b, link = bad
    link.set(Impairment(loss=0.01, duplicate=0.05, reorder=0.05, reorder_depth=3, corrupt=0.01, delay_s=0.001))
    assert tcp_transfer(a, b, "10.9.0.2", MEGABYTE).intact
    counters = link.counters(toward=b)
    assert min(counters.lost, counters.duplicated, counters.reordered, counters.corrupted) > 0


def test_a_pulled_cable_comes_back(bad: Bad) -> None:
    a, b, link = bad
    link.down()
    assert a.run(["ping", "-c1", "-W1", "10.9.0.2"], check=False).returncode != 0
    link.up()
    assert len(udp_echo(a, b, "10.9.0.2", count=2)) == 2
    assert len(udp_echo(a, b, "fd09::2", count=2)) == 2


def test_a_deleted_interface_ends_the_link_with_a_reason(bad: Bad) -> None:
    _, b, link = bad
    b.ip("link delete eth0")
    with pytest.raises(OperationFailed, match="link of a and b has ended"):
        link.counters(toward=b)


def test_a_host_elsewhere_is_no_direction(lab: Lab, bad: Bad) -> None:
    with pytest.raises(UsageError, match="host c is not at an end"):
        bad[2].set(Impairment(), toward=lab.host("c"))


def test_a_capture_of_it_begins_with_the_ip_header(bad: Bad) -> None:
    a, b, _ = bad
    capture = b.capture("eth0")
    assert len(udp_echo(a, b, "10.9.0.2", count=1)) == 1
    assert {packet[0] >> 4 for packet in capture.packets()} <= {4, 6}


@pytest.mark.parametrize("impairment", [None, Impairment()], ids=["veth", "impaired"])
def test_a_link_that_cannot_be_made_is_undone(lab: Lab, impairment: Impairment | None) -> None:
    a, b = lab.host("a"), lab.host("b")
    with pytest.raises(OperationFailed, match=r"10\.9\.0\.300"):
        lab.link(a, b, "10.9.0.1/24", "10.9.0.300/24", impairment=impairment)
    lab.link(a, b, "10.9.0.1/24", "10.9.0.2/24", impairment=impairment)
    assert len(udp_echo(a, b, "10.9.0.2", count=1)) == 1
