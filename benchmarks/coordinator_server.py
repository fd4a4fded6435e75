"""The coordinator under measurement and its database: real processes on loopback, with what they cost."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed

START_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 60.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class CoordinatorProcess:
    """``warren coordinator run`` on a port of its own. :meth:`start` again after :meth:`stop` finds the same state."""

    def __init__(self, directory: Path, database: str) -> None:
        self._directory = directory
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"https://127.0.0.1:{_free_port()}"

    def start(self) -> dict[str, Any]:
        """Returns what it announces. Raises OperationFailed when it does not serve in time."""
        log = (self._directory / "coordinator.log").open("ab")
        command = [sys.executable, "-m", "warren", "coordinator", "run", "--json"]
        command += ["--state", str(self._directory / "state"), "--database", self._database]
        command += ["--listen", self.url.removeprefix("https://"), "--url", self.url]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        if self._process.stdout is None:
            raise RuntimeError("asked for a pipe")
        line = self._process.stdout.readline()
        if not line:
            raise OperationFailed(f"the coordinator did not start: {self.log()[-2000:]}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def log(self) -> str:
        return (self._directory / "coordinator.log").read_text(errors="replace")

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("it does not run")
        return self._process.pid

    def cpu_s(self) -> float:
        """Seconds of CPU so far, in steps of a hundredth."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise OperationFailed("the coordinator has ended")


@contextlib.contextmanager
def coordinator(database: str) -> Iterator[CoordinatorProcess]:
    """A coordinator that was not started yet, on ``sqlite`` or ``postgresql``; everything of it is gone after."""
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="warren-bench-", dir="/tmp"))  # a short path: it is that of a socket
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if database == "postgresql":
            url = stack.enter_context(_postgresql(directory / "pg"))
        else:
            url = f"sqlite:///{directory}/coordinator.sqlite"
        process = CoordinatorProcess(directory, url)
        stack.callback(process.stop)
        yield process


@contextlib.contextmanager
def _postgresql(home: Path) -> Iterator[str]:
    """A PostgreSQL server with its own defaults (every commit is on the disk), on a Unix socket."""
    programs = _postgresql_programs()
    home.mkdir()
    as_somebody = []
    if os.geteuid() == 0:
        somebody = pwd.getpwnam("nobody")
        os.chown(home, somebody.pw_uid, somebody.pw_gid)
        home.parent.chmod(0o711)
        as_somebody = ["setpriv", f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"]
    initdb = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "warren", "-A", "trust", "-E", "UTF8"]
    subprocess.run([*as_somebody, *initdb, "--no-locale"], check=True, capture_output=True)
    with (home.parent / "postgresql.log").open("ab") as log:
        server = [str(programs / "postgres"), "-D", str(home / "data"), "-k", str(home), "-c", "listen_addresses="]
        process = subprocess.Popen([*as_somebody, *server], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        create = ["createdb", "-h", str(home), "-U", "warren", "warren"]
        deadline = time.monotonic() + START_WITHIN_S
        while subprocess.run([str(programs / create[0]), *create[1:]], check=False, capture_output=True).returncode:
            if time.monotonic() > deadline or process.poll() is not None:
                raise OperationFailed(f"PostgreSQL did not start: {(home.parent / 'postgresql.log').read_text()}")
            time.sleep(0.1)
        yield f"postgresql://warren@/warren?host={home}"
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown
        process.wait(STOP_WITHIN_S)


def _postgresql_programs() -> Path:
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for at in candidates:
        if all((at / name).exists() for name in ("initdb", "postgres", "createdb")):
            return at
    raise OperationFailed("PostgreSQL is not installed (initdb, postgres, createdb)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
