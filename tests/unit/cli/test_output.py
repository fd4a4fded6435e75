"""Tables, durations and sizes."""

from __future__ import annotations

from datetime import timedelta

import click
import pytest

from tests.unit.cli.fakes import NOW
from warren.cli import output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_durations_at_a_glance(seconds: float, text: str) -> None:
    assert output.span(seconds) == text


def test_what_lies_ahead_and_behind() -> None:
    assert output.until(NOW + timedelta(hours=3), NOW) == "3 h"
    assert output.until(NOW, NOW) == "ended"
    assert output.until(None, NOW) == ""
    assert output.ago(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert output.ago(None, NOW) == ""


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_at_a_glance(amount: int, text: str) -> None:
    assert output.size(amount) == text


def test_round_trips() -> None:
    assert [output.milliseconds(value) for value in (None, 0.4213, 9.999, 123.4)] == [
        "",
        "0.42 ms",
        "10.00 ms",
        "123 ms",
    ]


ROWS = [["a-very-long-name-of-a-member", "1", "x"], [click.style("b", fg="red"), "234", "a long explanation of it"]]


def test_a_table_in_a_pipe_shortens_nothing() -> None:
    lines = [click.unstyle(line) for line in output.table(["NAME", "N", "WHY"], ROWS, right=("N",), flexible=("WHY",))]
    assert lines == [
        "NAME                            N  WHY",
        "a-very-long-name-of-a-member    1  x",
        "b                             234  a long explanation of it",
    ]
    assert output.table_width(["NAME", "N", "WHY"], ROWS) == max(map(len, lines))


def test_a_table_on_a_narrow_terminal_shortens_what_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 40)
    lines = [click.unstyle(line) for line in output.table(["NAME", "N", "WHY"], ROWS, flexible=("NAME", "WHY"))]
    assert lines == [
        "NAME              N    WHY",
        "a-very-long-nam…  1    x",
        "b                 234  a long explanati…",
    ]


def test_a_table_on_a_hopelessly_narrow_terminal_keeps_eight_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: 5)
    lines = [click.unstyle(line) for line in output.table(["NAME", "N", "WHY"], ROWS, flexible=("NAME",))]
    assert lines[1].startswith("a-very-…  1")


def test_a_table_without_rows_is_its_titles() -> None:
    assert [click.unstyle(line) for line in output.table(["A", "BC"], [])] == ["A  BC"]
