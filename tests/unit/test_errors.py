"""Problems as one line."""

from __future__ import annotations

import pytest

from warren.errors import problem_line


@pytest.mark.parametrize(
    ("title", "detail", "remedy", "line"),
    [
        (
            "It is taken",
            "there is a network home",
            "Choose another name.",
            "there is a network home; choose another name",
        ),
        ("It is taken", "", "Choose another.", "It is taken; choose another"),
        ("It is taken", "there is one", "", "there is one"),
        ("", "x is not here", "GET /v1/openapi.json lists them.", "x is not here; GET /v1/openapi.json lists them"),
        ("", "the token", "`warren login` asks.", "the token; `warren login` asks"),
        ("", "", "A new ticket.", "a new ticket"),
        ("", "", "", ""),
    ],
)
def test_a_problem_is_what_is_wrong_and_what_to_do_in_one_sentence(
    title: str, detail: str, remedy: str, line: str
) -> None:
    assert problem_line(title, detail, remedy) == line
