"""A machine of systemd's on a lab host: :mod:`tests.support.systemd_boot` boots it, this runs commands in it."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from copy import copy
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support import systemd_boot
from tests.support.labs import IS_ROOT
from warren.errors import OperationFailed
from warren.lab import Host
from warren.lab.network import Network

PATIENCE_S = 60.0
_BOOTED_WITHIN_S = 40.0
_BIN = Path(sys.executable).parent
_ENVIRONMENT = {"PATH": f"{_BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C", "HOME": "/root"}


def skip_without_systemd() -> None:
    """Skips where no systemd can be booted."""
    if not IS_ROOT:
        pytest.skip("systemd is booted by root of the machine only")
    if not any(path.exists() for path in systemd_boot.PROGRAMS):
        pytest.skip("not installed: systemd")
    for program in ("nsenter", "systemctl", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"not installed: {program}")
    known = Path("/proc/filesystems").read_text().split()
    for needed in ("cgroup2", "overlay"):
        if needed not in known:
            pytest.skip(f"the kernel has no {needed}")
    if os.uname().machine not in systemd_boot.PIVOT_ROOT:
        pytest.skip("not known: how this processor's kernel is asked for another root")
    if not (_BIN / "warren").exists():
        pytest.skip("Warren is not installed beside this Python")


class SystemdMachine:
    """Has the network of ``host``. Skips the test when systemd does not come up here."""

    def __init__(self, host: Host) -> None:
        self.host = host
        directory = host.directory / "systemd"
        directory.mkdir()
        self._boot = host.start([sys.executable, systemd_boot.__file__, directory], name="systemd")
        ready = directory / "ready"
        self._options: list[str] = []
        self._env = _ENVIRONMENT
        self._identity: list[str] = []
        try:
            host.wait_for(lambda: self._boot.returncode is not None or ready.exists(), _BOOTED_WITHIN_S)
            self._pid = ready.read_text() if ready.exists() else ""
            host.wait_for(lambda: self._boot.returncode is not None or self._is_booted(), _BOOTED_WITHIN_S)
        except OperationFailed:
            pytest.skip(f"systemd does not come up here: {self._last_line()}")
        if self._boot.returncode is not None:
            pytest.skip(f"systemd does not come up here: {self._last_line()}")

    def end(self) -> None:
        """End all of it, and take its control groups away, which are the machine's."""
        self._boot.stop(PATIENCE_S)

    def log_in(self, user: str) -> SystemdMachine:
        """The same machine as ``user`` has it, with a service manager of his own."""
        who = pwd.getpwnam(user)
        self.run("systemctl", "start", f"user@{who.pw_uid}")
        other = copy(self)
        other._options = ["--user"]
        other._env = {**_ENVIRONMENT, "HOME": systemd_boot.HOME, "XDG_RUNTIME_DIR": f"/run/user/{who.pw_uid}"}
        other._identity = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
        return other

    def run(self, *command: str, check: bool = True) -> CompletedProcess[str]:
        """Run a program in it to its end."""
        return self.host.run(self._inside(*command), check=check, timeout=PATIENCE_S)

    def join(self, network: Network) -> None:
        """Become a member by an agent that is no service, and has ended."""
        agent = self.host.start(self._inside("warren", "up", network.ticket()), name="joining")
        self.host.wait_for(
            lambda: agent.returncode is not None or ": joined as " in agent.output(), PATIENCE_S, what="joining"
        )
        self.run("pkill", "-TERM", "-f", "bin/warren up")
        assert agent.wait(PATIENCE_S) == 0, agent.output()

    def property(self, name: str) -> str:
        """Of warren.service, as systemd has it."""
        return self.run("systemctl", *self._options, "show", f"--property={name}", "--value", "warren").stdout.strip()

    def main(self) -> str:
        """The agent's process; 0: it does not run."""
        return self.property("MainPID")

    def wait_active(self, *, besides: str) -> None:
        """Until another agent than ``besides`` has said that it is ready."""
        self.host.wait_for(
            lambda: self.main() not in {besides, "0"} and self.property("ActiveState") == "active",
            PATIENCE_S,
            what="another agent",
        )

    def _inside(self, *command: str) -> list[str]:
        entering = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--wd", "--"]
        env = [f"{name}={value}" for name, value in self._env.items()]
        return [*entering, *self._identity, "env", "-i", *env, *command]

    def _is_booted(self) -> bool:
        said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return said in {"running", "degraded"}

    def _last_line(self) -> str:
        return (self._boot.output().strip() or "it says nothing").splitlines()[-1]
