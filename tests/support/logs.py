"""The log as it was, after tests of what sets it up. A test module that imports the fixture has it in every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from warren import log


@pytest.fixture(autouse=True)
def log_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test does to Warren's logger and to the environment that shapes it."""
    monkeypatch.setenv(log.FORMAT_VARIABLE, "")
    logger = logging.getLogger("warren")
    handlers, propagate, level = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)
