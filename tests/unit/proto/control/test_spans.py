"""Durations as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.proto.control import spans


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("24h", 86_400), ("2d", 172_800), ("1w", 604_800)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert spans.read_span(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "1.5h", "-1h", "1h 30m", "1y", "１h", "1" * 10 + "s", "1h\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        spans.read_span(text)


@given(st.integers(0, 10**8))
def test_a_duration_is_written_so_that_it_reads_back(seconds: int) -> None:
    assert spans.read_span(spans.exact_span(seconds)) == seconds
