"""What holds for every test: errors in the log fail it, and its generated examples are the same in every run."""

from __future__ import annotations

import gc
import logging
import os
import re
import resource
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# `WARREN_EXPLORE=1 make test` looks for new examples; a failure prints the line that repeats it.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("explore" if os.environ.get("WARREN_EXPLORE") else "repeatable")


# Their tests start processes and load both cores: tests of one file run one after another, in one worker.
_REAL_PROCESSES = {"lab", "interop"}
_REAL_TIMEOUT_S = 300
"""They wait for what a busy machine takes its time for; what hangs is ended all the same."""
_TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """Tests are thousands of clients at once, for which the usual limit of 1,024 descriptors is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_NEEDED_PROGRAMS = ("ip", "nft", "ping", "sysctl")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of real processes get a lab, a worker and, beside other workers, one more attempt if they fail.

    The summary names each that needed it, with its failure; pyproject.toml says how many may in one run.
    """
    beside_others = hasattr(config, "workerinput")
    missing = [program for program in _NEEDED_PROGRAMS if shutil.which(program) is None]
    for item in items:
        floor = item.path.relative_to(_TESTS).parts[0]
        if floor in _REAL_PROCESSES:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.xdist_group(f"{floor}/{item.path.stem}"))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(_REAL_TIMEOUT_S))
            if beside_others:
                item.add_marker(pytest.mark.flaky(reruns=1))
            if missing:
                item.add_marker(pytest.mark.skip(f"not installed: {', '.join(missing)}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason why tests were skipped, instead of one for each test."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    location = report.longrepr
    return location[2].removeprefix("Skipped: ") if isinstance(location, tuple) else str(location)


_ERROR_LINE = re.compile(r"^\d\d:\d\d:\d\d error\b|^Traceback ", re.IGNORECASE)


class _ErrorRecords(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture(autouse=True)
def _no_error_is_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """An ERROR in the log must not happen: it fails the test, unless the test says that it expects one."""
    errors = _ErrorRecords()
    root = logging.getLogger()
    root.addHandler(errors)
    yield
    root.removeHandler(errors)
    if errors.messages and request.node.get_closest_marker("logs_errors") is None:
        pytest.fail("logged at level ERROR: " + "; ".join(errors.messages), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What a failed test has left open goes with it: whichever test it was collected in later would be blamed."""
    failures = item.session.testsfailed
    result = yield
    if item.session.testsfailed > failures or getattr(item, "execution_count", 1) > 1:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):  # where the runner keeps its frames
            vars(sys).pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """The same for programs on lab hosts: an ERROR line or a traceback in one of their logs fails the test."""
    yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if lab is None or item.get_closest_marker("logs_errors") is not None:
        return
    lines = [
        f"{path.name}: {line}"
        for path in sorted(lab.artifacts.glob("*.log"))
        for line in path.read_text(errors="replace").splitlines()
        if _ERROR_LINE.search(line)
    ]
    if lines:
        pytest.fail("a program logged an error: " + "; ".join(lines), pytrace=False)
