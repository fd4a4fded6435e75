from __future__ import annotations

import msgspec
import pytest

from warren.api.varlink_agent import Nothing
from warren.api.varlink_idl import describe


def test_a_map_has_a_type_in_the_description() -> None:
    class Counts(msgspec.Struct):
        by_reason: dict[str, int]

    assert "(by_reason: [string]int)" in describe("org.example.Odd", {"Ask": (Counts, Nothing)})


def test_a_type_that_varlink_has_not_is_no_description() -> None:
    class Odd(msgspec.Struct):
        choice: int | str

    with pytest.raises(ValueError, match="choice of types"):
        describe("org.example.Odd", {"Ask": (Odd, Nothing)})
