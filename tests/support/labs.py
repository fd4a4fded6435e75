"""The lab as a fixture: ended after each test; what a failed test leaves (logs, captures) is kept.

A conftest of tests that need it imports all public names of this module.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.lab import Lab, privilege

ARTIFACTS = Path("lab-artifacts").resolve()
IS_ROOT = os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
"""Whether this is root of the machine, not of a user namespace."""
_LOG_CHARACTERS_SHOWN = 3000
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = (report.when != "setup" and item.stash.get(_FAILED, False)) or report.failed
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("lab", f"logs and captures are kept in {lab.artifacts}"))
        for log in sorted(lab.artifacts.glob("*.log")):
            report.sections.append((log.name, log.read_text(errors="replace")[-_LOG_CHARACTERS_SHOWN:]))
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
    """An empty lab. When the test fails, its logs and captures stay in ``lab-artifacts/TEST``, those of another
    attempt in ``TEST-2``.

    With WARREN_CAPTURE=1 in the environment the packets of every link are captured.
    """
    attempt = getattr(request.node, "execution_count", 1)
    name = request.node.nodeid if attempt == 1 else f"{request.node.nodeid}-{attempt}"
    directory = ARTIFACTS / re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    shutil.rmtree(directory, ignore_errors=True)
    with Lab(name="test", seed=1, artifacts=directory, captures=bool(os.environ.get("WARREN_CAPTURE"))) as made:
        yield made
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # another test keeps something there
        ARTIFACTS.rmdir()
