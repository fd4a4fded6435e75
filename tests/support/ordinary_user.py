"""Being an ordinary user on a lab host: with a TUN device that anyone may open, a run directory, and no rights.

Functions for ``Host.call``; they change the host (its mounts) or the calling process for good.
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.labs import IS_ROOT
from warren.linux import netns

USER = 12345
RUN = Path("/run/user/12345")
_PR_SET_DUMPABLE = 4
_TUN = os.makedev(10, 200)


def skip_unless_playable() -> None:
    """Skips where root cannot play a user who runs Warren."""
    if not IS_ROOT:
        pytest.skip("only root can play other users")
    command = [sys.executable, "-c", "import warren.engine.rootless.nest, warren.engine.userspace.dataplane"]
    if subprocess.run(command, user=USER, group=USER, cwd="/", capture_output=True, check=False).returncode:
        pytest.skip("other users cannot read this Python or Warren")


def welcome_user(mode: int | None = 0o666) -> None:
    """Give the host a TUN device of that mode, or none, and the user a run directory."""
    netns.mount("tmpfs", "/dev/net", "tmpfs")
    if mode is not None:
        before = os.umask(0)
        os.mknod("/dev/net/tun", stat.S_IFCHR | mode, _TUN)
        os.umask(before)
    RUN.mkdir(mode=0o700, parents=True)
    os.chown(RUN, USER, USER)


def become_user(user: int = USER) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    # A process that changed its user without executing a program would not own its own files in /proc.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
