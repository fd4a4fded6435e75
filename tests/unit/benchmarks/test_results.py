"""What is concluded from samples."""

from __future__ import annotations

import pytest

from benchmarks.results import (
    PING_MEDIAN,
    TCP_ONE_FLOW,
    UDP_SMALL,
    WARREN,
    Failure,
    Metric,
    Run,
    Sample,
    Target,
    Verdict,
    figure,
    ratio,
    verdicts,
)


def run_of(*samples: Sample, extra: tuple[str, ...] = ()) -> Run:
    return Run({"date": "today"}, {"extra": list(extra)}, {}, {}, list(samples), [])


def tcp(turn: int, contender: str, mbit_s: float, measure: str = "tcp_1_ab") -> Sample:
    return Sample(turn, contender, measure, {"mbit_s": mbit_s})


def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    """The second round was slow for both: the ratio of the medians would be 4, most rounds say 2."""
    run = run_of(
        tcp(1, "x", 200), tcp(1, "y", 100), tcp(2, "x", 20), tcp(2, "y", 10), tcp(3, "x", 400), tcp(3, "y", 50)
    )
    assert ratio(run, "x", "y", TCP_ONE_FLOW) == 2
    assert figure(run, "x", TCP_ONE_FLOW) == 200
    assert figure(run, "y", TCP_ONE_FLOW) == 50


def test_directions_are_compared_each_with_its_own() -> None:
    run = run_of(tcp(1, "x", 100), tcp(1, "x", 30, "tcp_1_ba"), tcp(1, "y", 50), tcp(1, "y", 10, "tcp_1_ba"))
    assert ratio(run, "x", "y", TCP_ONE_FLOW) == 2.5


def test_where_less_is_better_the_ratio_is_turned_round() -> None:
    run = run_of(Sample(1, "x", "ping", {"median_ms": 0.2}), Sample(1, "y", "ping", {"median_ms": 0.5}))
    assert ratio(run, "x", "y", PING_MEDIAN) == 2.5
    assert ratio(run, "y", "x", PING_MEDIAN) == 0.4


def test_rounds_that_only_one_contender_finished_are_not_compared() -> None:
    run = run_of(tcp(1, "x", 100), tcp(2, "y", 10))
    assert ratio(run, "x", "y", TCP_ONE_FLOW) is None
    assert figure(run, "x", UDP_SMALL) is None


def test_a_figure_is_scaled_to_its_unit() -> None:
    metric = Metric("Memory", ("memory_1",), "rss_bytes", "MiB", scale=2**-20)
    assert figure(run_of(Sample(0, "x", "memory_1", {"rss_bytes": 3 * 2**20})), "x", metric) == 3


@pytest.mark.parametrize(
    ("factor", "measured", "word"),
    [
        (4.0, 4.0, "reached"),
        (4.0, 3.99, "missed"),
        (1.0, 0.96, "reached"),
        (1.0, 0.94, "missed"),
        (4.0, None, "not measured"),
    ],
)
def test_only_no_worse_allows_for_noise(factor: float, measured: float | None, word: str) -> None:
    assert Verdict(Target("x", TCP_ONE_FLOW, "y", factor), measured).word == word


def test_extra_contenders_get_targets_of_their_own() -> None:
    run = run_of(tcp(1, WARREN, 300), tcp(1, "newest", 100), extra=("newest",))
    against_newest = [verdict for verdict in verdicts(run) if verdict.target.against == "newest"]
    assert [
        (verdict.target.factor, verdict.ratio) for verdict in against_newest if verdict.target.metric is TCP_ONE_FLOW
    ] == [(1.5, 3)]


def test_a_run_survives_json() -> None:
    run = Run(
        {"cpu": "x"}, {"rounds": 2}, {"a": "1"}, {"b": "absent"}, [tcp(1, "a", 5)], [Failure(1, "a", "ping", "lost")]
    )
    assert Run.load(run.dump()) == run
    empty = run_of()
    assert Run.load(empty.dump()) == empty
