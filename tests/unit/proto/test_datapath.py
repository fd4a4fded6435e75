"""The choice between the twins, and that they are twins."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

from tests.support.twins import COMPILED, PURE, needs_both_twins
from warren.proto import datapath

PROBE = "from warren.proto.datapath import COMPILED, split; print(COMPILED, split.__module__)"
NAMES = ["segment.split", "coalesce.Coalescer", "transport.SealingKey", "transport.OpeningKey"]


def chosen(**environment: str) -> list[str]:
    """Which twin a new process takes."""
    inherited = {name: value for name, value in os.environ.items() if name != "WARREN_PURE"}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_the_environment_can_ask_for_the_pure_twin() -> None:
    assert chosen(WARREN_PURE="1") == ["False", "warren.proto.ip.segment"]


@needs_both_twins
def test_the_compiled_twin_is_taken_where_it_is() -> None:
    assert chosen() == ["True", "warren._speed.segment"]
    assert chosen(WARREN_PURE="0") == ["True", "warren._speed.segment"]


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_one_of_the_twins(name: str) -> None:
    module, _, attribute = name.partition(".")
    twin = COMPILED if datapath.COMPILED else PURE
    assert getattr(datapath, attribute) is getattr(getattr(twin, module), attribute)


def documented(thing: object) -> dict[str, str | None]:
    """The docstrings of a function, or of a class and its public methods."""
    methods = {name: inspect.getdoc(getattr(thing, name)) for name in vars(thing)} if inspect.isclass(thing) else {}
    public = {name: text for name, text in methods.items() if not name.startswith("_") and text}
    return {"": inspect.getdoc(thing), **public}


@needs_both_twins
@pytest.mark.parametrize("name", NAMES)
def test_the_twins_promise_the_same(name: str) -> None:
    module, _, attribute = name.partition(".")
    pure, compiled = (getattr(getattr(twin, module), attribute) for twin in (PURE, COMPILED))
    methods = {key: text for key, text in documented(pure).items() if key == "" or callable(getattr(pure, key))}
    assert methods[""]
    assert {key: text for key, text in documented(compiled).items() if key in methods} == methods
