"""What the figures were measured on: without this they mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend


def describe_machine() -> dict[str, str]:
    """Names and values for people, in the order in which they are shown."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _revision(),
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "openssl": backend.openssl_version_text(),
        "iperf3": _output(["iperf3", "--version"]).partition("\n")[0],
        "load": " ".join(f"{average:.2f}" for average in os.getloadavg()) + " (before the run)",
    }


def cpu_model(cpuinfo: str) -> str:
    """The model of the first core from the text of ``/proc/cpuinfo``."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _revision() -> str:
    """The commit that is measured, marked when the working tree differs from it; a note outside of a checkout."""
    return (
        _output(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"])
        or "not a checkout"
    )


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
