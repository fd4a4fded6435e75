"""The coordinator under measurement and its database: real processes on loopback, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed

START_WITHIN_S: Final = 120.0
STOP_WITHIN_S: Final = 60.0
NETWORK: Final = "bench"


class Coordinator:
    """``warren coordinator run``; :meth:`start` again after :meth:`stop` finds the same port and state."""

    def __init__(self, directory: Path, database: str) -> None:
        self._directory = directory
        self._database = database
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"https://127.0.0.1:{_free_port()}"

    async def start(self) -> dict[str, Any]:
        """Returns what it announces once it serves. Raises OperationFailed when it does not."""
        command = [sys.executable, "-m", "warren", "coordinator", "run", "--json", "--no-relay", "--network", NETWORK]
        command += ["--state", str(self._directory / "state"), "--database", self._database]
        command += ["--listen", self.url.removeprefix("https://"), "--url", self.url]
        with (self._directory / "coordinator.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        if self._process.stdout is None:
            raise RuntimeError("asked for a pipe")
        try:
            async with asyncio.timeout(START_WITHIN_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            raise OperationFailed(f"the coordinator did not start: {self.log()[-2000:]}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._process = None

    def log(self) -> str:
        path = self._directory / "coordinator.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def database_bytes(self) -> int:
        """Of the files of the database; of PostgreSQL including its journal."""
        return sum(path.stat().st_size for path in self._directory.rglob("*") if path.is_file())

    @property
    def pid(self) -> int:
        if self._process is None or self._process.returncode is not None:
            raise OperationFailed(f"the coordinator has ended: {self.log()[-2000:]}")
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU time of all its threads, in nanosecond steps: the clock of another process, as clock_getcpuclockid(3)
        makes it.
        """
        return time.clock_gettime(~self.pid << 3 | 2)

    def rss_bytes(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise OperationFailed("the coordinator has ended")


@contextlib.asynccontextmanager
async def coordinator(database: str) -> AsyncIterator[Coordinator]:
    """A coordinator on ``sqlite`` or ``postgresql`` that was not started yet; everything of it is gone after."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="warren-coordination-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if database == "postgresql":
            url = await stack.enter_async_context(_postgresql(directory))
        else:
            url = f"sqlite:///{directory}/coordinator.db"
        made = Coordinator(directory, url)
        stack.push_async_callback(made.stop)
        yield made


@contextlib.asynccontextmanager
async def _postgresql(directory: Path) -> AsyncIterator[str]:
    """A PostgreSQL server as it comes (every commit is on the disk), on a Unix socket."""
    programs = _programs()
    home = directory / "pg"
    home.mkdir()
    command: list[str] = []
    if os.geteuid() == 0:
        somebody = pwd.getpwnam("nobody")
        os.chown(home, somebody.pw_uid, somebody.pw_gid)
        directory.chmod(0o711)  # noqa: ASYNC240 - nobody else is there yet
        command = ["setpriv", f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"]
    with (directory / "postgresql.log").open("ab") as log:
        initdb = ["-D", str(home / "data"), "-U", "warren", "-A", "trust", "-E", "UTF8", "--no-locale"]
        made = await asyncio.create_subprocess_exec(*command, str(programs / "initdb"), *initdb, stdout=log, stderr=log)
        if await made.wait():
            raise OperationFailed(f"initdb failed: {(directory / 'postgresql.log').read_text()[-2000:]}")
        server = ["-D", str(home / "data"), "-k", str(home), "-c", "listen_addresses="]
        process = await asyncio.create_subprocess_exec(
            *command, str(programs / "postgres"), *server, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_WITHIN_S
        while not await _create_database(programs, home):
            if process.returncode is not None or time.monotonic() > deadline:
                raise OperationFailed(f"PostgreSQL did not start: {(directory / 'postgresql.log').read_text()[-2000:]}")
            await asyncio.sleep(0.2)
        yield f"postgresql://warren@/warren?host={home}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # fast shutdown
        await process.wait()


async def _create_database(programs: Path, home: Path) -> bool:
    process = await asyncio.create_subprocess_exec(
        *(str(programs / "createdb"), "-h", str(home), "-U", "warren", "warren"), stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


def _programs() -> Path:
    found = shutil.which("initdb")
    candidates = [Path(found).resolve().parent] if found else []
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
