from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.coordinator import percentile
from benchmarks.coordinator_report import BEGIN, END, ROWS, page, table

RUN: dict[str, Any] = {
    "machine": {"cpu": "a fast one", "cores": "2"},
    "measurements": [
        {"nodes": 100, "database": "sqlite", "figures": {"join_per_s": 276.4, "rename_last_p50_s": 0.0341}},
        {"nodes": 5000, "database": "postgresql", "figures": {"join_per_s": 61.0}},
    ],
}


def test_each_measurement_is_a_column_and_what_nobody_measured_no_row() -> None:
    head, *rows = table(RUN)
    assert head == ["", "unit", "SQLite, 100 nodes", "PostgreSQL, 5,000 nodes"]
    assert rows == [
        ["Join storm: enrolments", "1/s", "276", "61.0"],
        ["Rename: last node has it, median", "ms", "34.1", "–"],
    ]


def test_the_page_has_machine_and_table_between_its_markers_and_stays_as_it_is_outside() -> None:
    made = page(f"before\n{BEGIN}\nold\n{END}\nafter\n", RUN)
    assert made.startswith(f"before\n{BEGIN}\n\ncpu: a fast one; cores: 2.\n\n|")
    assert made.endswith(f"{END}\nafter\n")
    assert "old" not in made
    assert page(made, RUN) == made


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_not_touched(text: str) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        page(text, RUN)


def test_the_page_of_the_documentation_has_the_markers() -> None:
    document = Path(__file__).resolve().parents[3] / "docs" / "benchmarks-coordinator.md"
    assert "SQLite, 100 nodes" in page(document.read_text(), RUN)


def test_figures_are_named_once() -> None:
    assert len({row.figure for row in ROWS}) == len({row.title for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3.0], 99, 3.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), (list(range(1, 101)), 99, 99), (list(range(1, 21)), 99, 20)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected
