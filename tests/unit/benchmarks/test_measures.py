"""What is read out of the reports of iperf3 and ping."""

from __future__ import annotations

import pytest

from benchmarks.accounts import CpuTime
from benchmarks.measures import MeasureFailed, ping_values, tcp_values, udp_values


def test_tcp_costs_are_per_gigabyte_that_arrived() -> None:
    report = {"end": {"sum_sent": {"bytes": 9e9}, "sum_received": {"bytes": 500_000_000, "bits_per_second": 2e9}}}
    values = tcp_values(report, CpuTime(processes_s=2.0, machine_s=3.0))
    assert values == {"mbit_s": 2000, "tunnel_s_per_gb": 4, "machine_s_per_gb": 6}


def test_without_tunnel_processes_there_is_no_tunnel_cost() -> None:
    report = {"end": {"sum_received": {"bytes": 1_000_000_000, "bits_per_second": 8e9}}}
    assert "tunnel_s_per_gb" not in tcp_values(report, CpuTime(0.0, 1.0))


def test_a_transfer_in_which_nothing_arrived_is_a_failure_not_a_zero_cost() -> None:
    with pytest.raises(MeasureFailed):
        tcp_values({"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}, CpuTime(1.0, 1.0))


def test_packets_lost_after_the_last_one_that_arrived_count_as_lost() -> None:
    """The receiver's own loss counter cannot see them: 1,000 sent, it knows of 900 and saw 800."""
    report = {
        "end": {
            "sum_sent": {"packets": 1000, "seconds": 2.0},
            "sum_received": {"packets": 900, "lost_packets": 100, "seconds": 2.0, "bits_per_second": 204_800},
        }
    }
    values = udp_values(report)
    assert values["lost_percent"] == pytest.approx(20)
    assert values["kpackets_s"] == pytest.approx(0.4)
    assert values["offered_kpackets_s"] == pytest.approx(0.5)
    assert values["mbit_s"] == pytest.approx(0.2048)


def test_the_99th_percentile_is_not_the_maximum() -> None:
    values = ping_values([1.0] * 197 + [5.0, 5.0, 90.0])
    assert values["median_ms"] == 1
    assert values["p99_ms"] == 5
    assert values["lost"] == 0
