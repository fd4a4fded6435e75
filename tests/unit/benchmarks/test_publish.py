"""How a run is shown: tables, picture, page."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.picture import draw
from benchmarks.publish import BEGIN, END, publish, replaced
from benchmarks.results import Failure, Run, Sample
from benchmarks.session import rotated
from benchmarks.tables import aligned, figures_table, markdown, notes, written

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def run() -> Run:
    samples = [
        Sample(1, name, "tcp_1_ab", {"mbit_s": value})
        for name, value in (("veth", 20000.0), ("warren", 3000.0), ("nebula", 600.0))
    ]
    machine = {"date": "2026-01-02", "cpu": "a <fast> & big one", "cores": "2", "kernel": "Linux", "python": "3.11"}
    contenders = {"veth": "0", "nebula": "1", "warren": "2"}
    return Run(
        machine,
        {"rounds": 1, "seconds": 1.0, "extra": []},
        contenders,
        {"wireguard-go": "there is no program"},
        samples,
        [],
    )


def test_bars_are_as_long_as_their_figures_and_plain_veth_has_none(run: Run) -> None:
    picture = ET.fromstring(draw(run))  # noqa: S314 - it is our own drawing
    bars = [float(bar.get("width", "")) for bar in picture.iter(f"{SVG}rect") if bar.get("class") in ("ours", "other")]
    nebula, warren = bars[:2]
    assert nebula / warren == pytest.approx(600 / 3000, rel=0.01)
    texts = {text.text for text in picture.iter(f"{SVG}text")}
    assert "veth" not in texts
    assert "more is better; plain veth 20,000" in texts


def test_the_table_has_a_column_per_contender_and_only_rows_with_figures(run: Run) -> None:
    head, *rows = figures_table(run)
    assert head[2:] == ["veth", "nebula", "warren"]
    assert rows == [["TCP, one flow, a → b", "Mbit/s", "20,000", "600", "3,000"]]


def test_what_is_absent_is_said(run: Run) -> None:
    run.failures.append(Failure(2, "nebula", "ping", "no answer"))
    run.settings["interrupted"] = True
    text = "\n".join(notes(run))
    assert "wireguard-go: there is no program" in text
    assert "nebula, ping, round 2: no answer" in text
    assert "interrupted" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (26824.4, "26,824"), (99.94, "99.9"), (1.234, "1.23"), (0.0123, "0.012"), (0.0, "0.000")],
)
def test_figures_are_written_short(value: float | None, text: str) -> None:
    assert written(value) == text


def test_columns_line_up() -> None:
    assert aligned([["a", "b"], ["long", "1,000"]]) == "a         b\n────  ─────\nlong  1,000"
    assert markdown([["a", "b"], ["c", "1"]]) == "| a | b |\n| --- | ---: |\n| c | 1 |"


def test_publishing_twice_leaves_one_set_of_figures(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(run, tmp_path)
    once = page.read_text()
    publish(run, tmp_path)
    assert page.read_text() == once
    assert once.startswith("before\n")
    assert once.endswith("after\n")
    assert "old" not in once
    assert "| TCP, one flow, a → b | Mbit/s | 20,000 | 600 | 3,000 |" in once
    assert Run.load((tmp_path / "benchmarks" / "results.json").read_text()) == run


@pytest.mark.parametrize("page", ["nothing", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs the lines"):
        replaced(page, "text")


def test_each_round_begins_one_place_later() -> None:
    assert [rotated(["a", "b", "c"], turn) for turn in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]
    assert rotated([], 3) == []
