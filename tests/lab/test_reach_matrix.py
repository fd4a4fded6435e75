"""Every kind of site against every kind, by the real program: each pair comes to what the oracle says, and works."""

from __future__ import annotations

import pytest

from tests.support.path_matrix import KINDS, Matrix
from warren.lab import Lab


@pytest.mark.timeout(900)
def test_every_pair_of_kinds_comes_to_what_the_oracle_says(lab: Lab) -> None:
    matrix = Matrix(lab)
    matrix.start()
    cells = list(matrix.cells())
    assert len(cells) == len(KINDS) * (len(KINDS) + 1) // 2
    wrong = [f"{one.row} and {one.column}: {one.verdict.by}, but {one.watched}" for one in cells if not one.agrees]
    assert wrong == []
