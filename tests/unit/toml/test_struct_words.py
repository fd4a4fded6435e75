"""What msgspec finds wrong, in words."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from warren.toml.struct_words import in_a_line


class Value(msgspec.Struct):
    """One field of each kind."""

    count: Annotated[int, Meta(ge=1, le=9)] = 1
    rate: Annotated[float, Meta(gt=0)] | None = None
    at: Annotated[tuple[str, ...], Meta(min_length=1, max_length=2)] = ("a",)
    word: Annotated[str, Meta(max_length=3)] = ""
    on: bool = False


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"count": 0}, "this must be at least 1"),
        ({"count": 10}, "this must be at most 9"),
        ({"count": "x"}, "this must be a whole number, not a text"),
        ({"rate": 0}, "this must be more than 0"),
        ({"rate": "x"}, "this must be a number, not a text"),
        ({"at": []}, "this must be a list of at least 1"),
        ({"at": ["a"] * 3}, "this must be a list of at most 2"),
        ({"word": "long"}, "this must be a text of at most 3 characters"),
        ({"on": 1}, "this must be true or false, not a whole number"),
    ],
)
def test_types_and_limits_are_told_as_people_write_them(value: dict[str, object], words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(value, Value)
    assert in_a_line(str(error.value).partition(" - at ")[0]) == words


def test_any_other_sentence_goes_on_after_a_colon() -> None:
    assert in_a_line("Say a port") == "say a port"
    assert in_a_line("Run `warren up`") == "run `warren up`"
    assert in_a_line("FTP needs protocol tcp") == "FTP needs protocol tcp"
