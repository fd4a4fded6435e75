"""The pure parts of the benchmark of paths: tables, what is said of misses, the pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.paths.figures import IDLE, JOIN, Gap, Run, Sample, Scene, gaps_table, notes, times_table
from benchmarks.paths.publish import (
    MATRIX_BEGIN,
    MATRIX_END,
    TIMES_BEGIN,
    TIMES_END,
    publish,
    publish_matrix,
    replaced,
)
from benchmarks.paths.scenes import FAULTS, KINDS, PAIRS

MACHINE = {"date": "2026-01-02 03:04 UTC", "cpu": "abacus", "iperf3": "3"}
OPEN = Scene("open", "open – open", 1.0)
RELAYED = Scene("relayed", "symmetric – symmetric", relayed=True)


def joins(*replies: float | None, pair: str = "open", direct: float | None = 2.0) -> list[Sample]:
    return [Sample(pair, JOIN, number, reply, direct, "direct") for number, reply in enumerate(replies, 1)]


def run(samples: list[Sample] | None = None, gaps: list[Gap] | None = None) -> Run:
    return Run(dict(MACHINE), {"meetings of each kind": 3}, samples or [], gaps or [], [])


def test_a_line_has_median_p95_and_whether_the_target_was_reached() -> None:
    rows = times_table(run(joins(0.5, 0.25, 3.0)), JOIN, [OPEN])
    assert rows[1] == ["open – open", "3", "0.50 s", "3.00 s", "2.00 s", "2.00 s", "1 s", "reached"]


def test_what_never_came_is_longer_than_everything_else() -> None:
    rows = times_table(run(joins(0.5, None, None)), JOIN, [OPEN])
    assert rows[1][2:4] == ["not in time", "not in time"]
    assert rows[1][-1] == "missed"
    assert "no reply in time in 2 of 3 runs" in notes(run(joins(0.5, None, None)), [OPEN])[0]


def test_only_the_phase_that_is_asked_for_counts() -> None:
    samples = [*joins(0.5), Sample("open", IDLE, 1, 0.01, 0.02, "direct")]
    assert times_table(run(samples), IDLE, [OPEN])[1] == ["open – open", "1", "0.01 s", "0.01 s", "0.02 s", "0.02 s"]


def test_a_pair_that_stays_relayed_has_no_time_of_a_direct_path_and_one_that_does_not_is_named() -> None:
    relayed = run(joins(0.5, pair="relayed", direct=None))
    assert times_table(relayed, JOIN, [RELAYED])[1][4:] == ["relayed", "–", "–", ""]
    assert notes(relayed, [RELAYED]) == []
    assert "against what was expected" in notes(run(joins(0.5, pair="relayed")), [RELAYED])[0]
    assert "still relayed" in notes(run(joins(0.5, direct=None)), [OPEN])[0]


def test_gaps_have_the_largest_too() -> None:
    fault = Scene("direct", "a black hole", 3.0)
    gaps = [Gap("direct", number, gap, 5, 50) for number, gap in enumerate((1.0, 2.0, 4.0), 1)]
    assert gaps_table(run(gaps=gaps), [fault])[1] == [
        "a black hole",
        "3",
        "2.00 s",
        "4.00 s",
        "4.00 s",
        "3 s",
        "reached",
    ]
    endless = [*gaps, Gap("direct", 4, None, 50, 50), Gap("direct", 5, None, 50, 50), Gap("direct", 6, None, 9, 50)]
    assert gaps_table(run(gaps=endless), [fault])[1][2:5] == ["not in time", "not in time", "not in time"]


def test_a_run_is_kept_as_json_and_comes_back() -> None:
    kept = run(joins(0.5, None), [Gap("direct", 1, 0.25, 5, 50)])
    assert Run.load(kept.dump()) == kept


def test_each_pair_that_is_shown_is_measured() -> None:
    assert [scene.name for scene in PAIRS] == list(KINDS)
    assert all((KINDS[scene.name].path == "relayed") == scene.relayed for scene in PAIRS)
    assert len({scene.name for scene in (*PAIRS, *FAULTS)}) == len(PAIRS) + len(FAULTS)


def test_publishing_replaces_what_is_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "benchmarks-paths.md").write_text(f"before\n\n{TIMES_BEGIN}\nold\n{TIMES_END}\n\nafter\n")
    (tmp_path / "nat.md").write_text(f"before\n\n{MATRIX_BEGIN}\nold\n{MATRIX_END}\n\nafter\n")
    publish(run(joins(0.5)), tmp_path)
    publish_matrix("| the table |", MACHINE, tmp_path)
    for name, found in (("benchmarks-paths.md", "| open – open | 1 |"), ("nat.md", "| the table |")):
        page = (tmp_path / name).read_text()
        assert page.startswith("before\n")
        assert page.endswith("\nafter\n")
        assert found in page
        assert "old" not in page
        assert "abacus" in page
    assert Run.load((tmp_path / "benchmarks" / "paths.json").read_text()).samples == joins(0.5)


@pytest.mark.parametrize("page", ["", "b", "e b", "b b e"])
def test_a_page_without_its_markers_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        replaced(page, "text", "b", "e")
