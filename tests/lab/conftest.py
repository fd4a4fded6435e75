"""Tests in this directory run in the lab."""

from tests.support.labs import lab, lab_privilege, pytest_runtest_makereport

__all__ = ["lab", "lab_privilege", "pytest_runtest_makereport"]
