"""The store in one SQLite file: the default.

A commit is on the disk when it returns (WAL, ``synchronous=FULL``). The file and its journals are for their owner
only, since the networks' keys are in it.

Statements run on the event loop: one takes some 30 µs, and handing it to a thread and back ten times that. What may
take long (waiting for the write lock, the commit with its fsync) is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from warren.coordinator.store_sql import AWAY, SqlTransaction, problem_of
from warren.errors import OperationFailed, UsageError

BUSY_TIMEOUT_S: Final = 2.0
"""How long a statement waits for another process that has the file locked (a backup, a second program)."""

BUSY_TIMEOUT_READING_S: Final = 0.1
"""The same for one that only reads. It holds up the event loop, but in WAL next to nothing makes a reader wait."""
STATEMENTS_AT_ONCE: Final = 50
"""After so many, some 5 ms, others have their turn on the event loop."""

_WRITING: Final = "warren_writing"


async def open_sqlite(url: str) -> SqliteStore:
    """The store at ``sqlite:///PATH``; the file is made when it is not there. Raises as
    :func:`warren.coordinator.store.open_store`.
    """
    path = _path(url)
    _make_private(path)
    engine = _engine(path)
    try:
        await asyncio.to_thread(_prepare, engine)
    except DBAPIError as error:
        engine.dispose()
        raise OperationFailed(_sentence(path, error)) from None
    except BaseException:
        engine.dispose()
        raise
    return SqliteStore(engine)


class SqliteStore:
    """One file, one process. Single owner: one event loop."""

    shared = False

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlTransaction]:
        try:
            with self._engine.connect() as connection, connection.begin():
                yield _transaction(connection)
        except AWAY as error:
            raise problem_of(error) from error

    @asynccontextmanager
    async def write(self) -> AsyncIterator[SqlTransaction]:
        async with self._turn:  # the database has one writer anyway, and who waits here waits in order
            try:
                with self._engine.connect().execution_options(**{_WRITING: True}) as connection:
                    begun = await asyncio.to_thread(connection.begin)
                    try:
                        yield _transaction(connection)
                    except BaseException:
                        begun.rollback()
                        raise
                    await asyncio.to_thread(begun.commit)
            except AWAY as error:
                raise problem_of(error) from error

    async def notify(self, notice: str) -> None:
        """There is nobody to tell."""

    async def listen(self, heard: Callable[[str | None], None]) -> None:
        """There is nobody to hear."""

    async def close(self) -> None:
        self._engine.dispose()


def _transaction(connection: Connection) -> SqlTransaction:
    executed = itertools.count(1)

    async def execute(statement: Executable, parameters: Any) -> CursorResult[Any]:
        if next(executed) % STATEMENTS_AT_ONCE == 0:
            await asyncio.sleep(0)
        return connection.execute(statement, parameters)

    return SqlTransaction(execute, "sqlite")


def _path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or not parsed.database or parsed.host or parsed.query or parsed.database == ":memory:":
        raise UsageError(f"{url} is no place for a database; say sqlite:///PATH (three slashes, or four for /…)")
    return Path(parsed.database).absolute()


def _make_private(path: Path) -> None:
    """Make the file 0600 before SQLite can make it otherwise; refuse one that others may read, and one that is empty:
    SQLite would take it for a database without tables, and the coordinator would begin anew as another one.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _make(path)
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise OperationFailed(f"{path} cannot be opened: {error.strerror}; choose another place with --state") from None
    if not status.st_size:
        raise OperationFailed(_DAMAGED.format(path, "it is empty"))
    if mode & 0o077:
        raise OperationFailed(
            f"{path} holds the keys of networks, and others may read it (mode {mode:04o}): "
            f"find out who did, then chmod 600 {path}"
        )


def _make(path: Path) -> None:
    """A database without tables, whole or not at all: an empty file is then one that something has cut off."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)  # of a process that was killed here and had our number
    try:
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with contextlib.closing(sqlite3.connect(fresh)) as database:
            database.execute("PRAGMA journal_mode=WAL")  # this writes a first page
        with contextlib.suppress(FileExistsError):  # somebody was quicker
            path.hardlink_to(fresh)
    finally:
        fresh.unlink(missing_ok=True)


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        poolclass=QueuePool,
        max_overflow=-1,  # nobody waits for a connection, least of all the event loop
    )

    @event.listens_for(engine, "connect")
    def _(connection: Any, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # BEGIN is ours to say
        cursor = connection.cursor()
        for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
            cursor.execute(f"PRAGMA {setting}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING)
        patience_s = BUSY_TIMEOUT_S if writing else BUSY_TIMEOUT_READING_S
        connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_s * 1000:.0f}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _prepare(engine: Engine) -> None:
    """Raises DBAPIError for a file that is not whole, OperationFailed for one of a newer Warren."""
    from warren.coordinator.migrations.run import migrate

    with engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise DBAPIError("PRAGMA quick_check", None, sqlite3.DatabaseError(str(found).splitlines()[-1]))
        migrate(connection)


def _sentence(path: Path, error: DBAPIError) -> str:
    cause = error.orig
    if isinstance(cause, sqlite3.OperationalError):
        if "locked" in str(cause):
            return f"{path} is locked by another process: stop it, or wait until it is done"
        return f"{path} cannot be used: {cause}; make room, or repair what is wrong with the disk, and start again"
    return _DAMAGED.format(path, cause)


_DAMAGED: Final = (
    "{} is damaged ({}): put the last backup in its place, or move it away to begin with no networks "
    "(their members go on until their leases end)"
)
