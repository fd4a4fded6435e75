"""The lab as a fixture: ended after each test; what a failed test leaves (logs, captures) is kept.

A conftest of tests that need it imports all public names of this module.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.lab import Lab, privilege

ARTIFACTS = Path("lab-artifacts")
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def lab_privilege() -> None:
    """Skips what needs a lab where there can be none."""
    try:
        privilege.ensure()
    except OperationFailed as error:
        pytest.skip(f"no lab: {error}")


@pytest.fixture
def lab(request: pytest.FixtureRequest, lab_privilege: None) -> Iterator[Lab]:
    """An empty lab. When the test fails, its logs and captures stay in ``lab-artifacts/TEST``."""
    directory = ARTIFACTS / re.sub(r"[^A-Za-z0-9._-]+", "-", request.node.nodeid)
    shutil.rmtree(directory, ignore_errors=True)
    with Lab(name="test", seed=1, artifacts=directory) as made:
        yield made
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(directory, ignore_errors=True)
