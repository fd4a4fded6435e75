"""A PostgreSQL server of its own for the tests of a module: in a temporary directory, on a Unix socket, gone after."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest

START_WITHIN_S = 30.0


class PostgresServer:
    """A running server; each :meth:`database` is empty and its own."""

    def __init__(self, home: Path, programs: Path) -> None:
        self._home = home
        self._programs = programs
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def database(self) -> str:
        """The URL of a new database."""
        name = f"warren{next(self._numbers)}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return f"postgresql://warren@/{name}?host={self._home}"

    def cut_connections(self) -> None:
        """End all connections of Warren, as a restart of the server would."""
        asyncio.run(
            self._execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )

    def start(self) -> None:
        """Returns when it answers. To be called from the main thread: the server ends when the calling thread does."""
        arguments = ["-D", str(self._home / "data"), "-k", str(self._home), "-c", "listen_addresses="]
        fast = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=60"]
        with (self._home / "log").open("ab") as log:
            command = [*_as_somebody(dies_with_us=True), str(self._programs / "postgres"), *arguments, *fast]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_WITHIN_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start: {(self._home / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """At once; connections are lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # immediate shutdown; its children end with it
            self._process.wait(40)
            self._process = None

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, IndexError):
            lines = (self._home / "data/postmaster.pid").read_text().splitlines()
            return self._process is not None and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"
        return False

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(host=str(self._home), user="warren", database="postgres", timeout=40)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Skips the test where PostgreSQL is not installed, or nobody but root is there to run it."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (initdb, postgres)")
    if os.geteuid() == 0 and _somebody() is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    home = Path(tempfile.mkdtemp(prefix="warren-pg-", dir="/tmp"))  # a short path: it is that of a socket
    try:
        somebody = _somebody()
        if os.geteuid() == 0 and somebody is not None:
            os.chown(home, somebody.pw_uid, somebody.pw_gid)
        initdb = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "warren", "-A", "trust", "-N", "-E", "UTF8"]
        subprocess.run(
            [*_as_somebody(dies_with_us=False), *initdb, "--no-locale", "--no-instructions"],
            check=True,
            capture_output=True,
        )
        server = PostgresServer(home, programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home)


def _programs() -> Path | None:
    candidates = [Path(found).parent for found in [shutil.which("initdb")] if found]
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((at for at in candidates if (at / "initdb").exists() and (at / "postgres").exists()), None)


def _somebody() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _as_somebody(*, dies_with_us: bool) -> list[str]:
    """What goes before a command so that root runs it as somebody else."""
    command = ["setpriv"]
    somebody = _somebody()
    if os.geteuid() == 0 and somebody is not None:
        command += [f"--reuid={somebody.pw_uid}", f"--regid={somebody.pw_gid}", "--clear-groups"]
    if dies_with_us:
        command += ["--pdeathsig", "QUIT"]
    return command if len(command) > 1 else []
