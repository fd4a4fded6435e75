"""The two twins of the data path, for tests that run over both."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NamedTuple

import pytest


class Twin(NamedTuple):
    """The modules of one twin, alike in what they export."""

    segment: ModuleType
    coalesce: ModuleType
    transport: ModuleType

    @property
    def split(self) -> Any:
        return self.segment.split

    @property
    def coalescer(self) -> Any:
        return self.coalesce.Coalescer

    @property
    def sealing_key(self) -> Any:
        return self.transport.SealingKey

    @property
    def opening_key(self) -> Any:
        return self.transport.OpeningKey


PURE = Twin(
    importlib.import_module("warren.proto.ip.segment"),
    importlib.import_module("warren.proto.ip.coalesce"),
    importlib.import_module("warren.proto.wireguard.transport"),
)


def _compiled() -> Twin | None:
    try:
        return Twin(*(importlib.import_module(f"warren._speed.{name}") for name in Twin._fields))
    except ImportError:
        return None


COMPILED = _compiled()

_not_built = pytest.mark.skipif(COMPILED is None, reason="the compiled twin is not built, or WARREN_PURE=1")

over_both_twins = pytest.mark.parametrize(
    "twin", [pytest.param(PURE, id="pure"), pytest.param(COMPILED, id="compiled", marks=_not_built)]
)
"""Runs a test, or a class of them, with ``twin`` set to each."""

needs_both_twins = _not_built
