"""Figures of streams: medians, ratios round by round, and the page that shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.streams import scenes
from benchmarks.streams.contenders import cpu_s, memory_kib, processes_of
from benchmarks.streams.figures import BEGIN, END, TITLES, Sample, publish, ratio, table, verdicts

NAMES = ["warren", "socat", "plain TCP"]


def samples() -> list[Sample]:
    return [
        Sample(1, "warren", "up", {"mbit_s": 300.0, "cpu_s_per_gb": 0.2}),
        Sample(1, "socat", "up", {"mbit_s": 100.0, "cpu_s_per_gb": 1.0}),
        Sample(2, "warren", "up", {"mbit_s": 100.0, "cpu_s_per_gb": 0.4}),
        Sample(2, "socat", "up", {"mbit_s": 50.0, "cpu_s_per_gb": 1.2}),
        Sample(3, "warren", "up", {"mbit_s": 900.0, "cpu_s_per_gb": 0.3}),
        Sample(1, "warren", "tunnel_up", {"mbit_s": 90.0}),
        Sample(1, "plain TCP", "tunnel_up", {"mbit_s": 100.0}),
        Sample(1, "warren", "memory", {"start_kib": 17000.0, "per_stream_kib": 1.5}),
    ]


def test_ratios_are_of_rounds_in_which_both_were_measured() -> None:
    assert ratio(samples(), "up", "mbit_s", "socat") == [3.0, 2.0]
    assert ratio(samples(), "up", "cpu_s_per_gb", "socat") == pytest.approx([5.0, 3.0])
    assert ratio(samples(), "down", "mbit_s", "socat") == []


def test_the_table_has_medians_and_gaps() -> None:
    rows = table(NAMES, ["up", "tunnel_up"], samples())
    assert rows[0] == ["median of the rounds", "unit", *NAMES]
    assert rows[1] == ["one stream, client → server", "Mbit/s", "300", "75.0", "–"]
    assert rows[-1][2:] == ["90.0", "–", "100"]


def test_every_measure_has_a_title_and_a_place_on_the_page(tmp_path: Path) -> None:
    measures = [*scenes.IN_A_ROW, *scenes.BY_THOUSANDS, *scenes.PASSED_ON, *scenes.ENDED, *scenes.THROUGH_A_TUNNEL]
    assert sorted(measures) == sorted(TITLES)
    page = tmp_path / "benchmarks-streams.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    run = {"machine": {"date": "today"}, "rounds": 1, "seconds": 1.0, "contenders": {"warren": "1"}, "failures": []}
    publish(run, [Sample(1, "warren", measure, {"seconds": 1.0}) for measure in measures], tmp_path)
    heading = ""
    found = []
    for line in page.read_text().splitlines():
        heading = line if line.startswith("#") else heading
        found += [(measure, heading) for measure in measures if line.startswith(f"| {TITLES[measure]} |")]
    assert found == [
        *((measure, "### Three hosts in a row") for measure in (*scenes.IN_A_ROW, *scenes.BY_THOUSANDS)),
        *((measure, "### A public door") for measure in (*scenes.PASSED_ON, *scenes.ENDED)),
        *((measure, "### Through a tunnel") for measure in scenes.THROUGH_A_TUNNEL),
    ]


def test_targets_are_held_against_what_was_measured() -> None:
    assert verdicts(samples())[1:] == [
        ["one stream, client → server: ≥ 1 × socat", "2.50", "2.00 to 3.00"],
        ["through the tunnel, client → server: ≥ 0.8 × plain TCP", "0.90", "0.90 to 0.90"],
        ["memory of an idle stream: < 20 KiB", "1.50 KiB", "1.50 to 1.50"],
    ]


def test_the_page_is_rewritten_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks-streams.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    run = {
        "machine": {"date": "today", "cores": "2"},
        "rounds": 3,
        "seconds": 1.0,
        "contenders": dict.fromkeys(NAMES, "1"),
        "failures": ["socat, up, round 3: it broke"],
    }
    publish(run, samples(), tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "Failed: socat, up, round 3: it broke" in text
    page.write_text("no marks")
    with pytest.raises(ValueError, match="needs the lines"):
        publish(run, samples(), tmp_path)


def test_the_page_of_this_project_has_its_marks() -> None:
    text = (Path(__file__).parents[3] / "docs/benchmarks-streams.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def test_a_process_is_accounted_with_its_children() -> None:
    program = "import subprocess; child = subprocess.Popen(['cat']); print(child.pid, flush=True); child.wait()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert set(processes_of(process.pid)) == {process.pid, child}
        assert cpu_s(process.pid) > 0
        assert memory_kib(process.pid) > 1000
