"""The store in PostgreSQL, for any number of replicas.

All write transactions of all replicas take one advisory lock, so that one sees what the other wrote; a replica that
hangs with it is cut off after seconds. Replicas wake each other with LISTEN/NOTIFY, which goes with the commit. The
networks' keys are in the database: let nobody but the coordinator's role read it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from warren import log
from warren.coordinator.problems import Problem
from warren.coordinator.store_sql import AWAY, SqlTransaction, problem_of
from warren.errors import OperationFailed, UsageError

CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 5.0
IDLE_TIMEOUT_S: Final = 15.0
"""Of a transaction whose replica says nothing more; it then loses the lock."""
POOL_SIZE: Final = 8
POOL_TIMEOUT_S: Final = 30.0
"""How long one waits for a connection in a storm; that of a database which is away fails long before."""
LISTEN_AGAIN_S: Final = (0.2, 5.0)
"""First and longest wait before the listener connects anew."""
LISTENER_CHECK_S: Final = 15.0

_TAKE_TURN: Final = text(f"SELECT pg_advisory_xact_lock({0x57617272656E})")  # "Warren"
_CHANNEL: Final = "warren"
_log = log.get("coordinator")


async def open_postgres(url: str) -> PostgresStore:
    """The store at ``postgresql://…``. Raises as :func:`warren.coordinator.store.open_store`."""
    from warren.coordinator.migrations.run import migrate

    try:
        parsed = make_url(url).set(drivername="postgresql+asyncpg")
    except (ArgumentError, ValueError):
        raise UsageError("the URL of the database does not parse; say postgresql://USER:PASSWORD@HOST/NAME") from None
    store = PostgresStore(parsed)
    try:
        await store.run(migrate)
    except Problem as problem:
        await store.close()
        where = parsed.set(drivername="postgresql").render_as_string(hide_password=True)
        raise OperationFailed(
            f"the database {where} cannot be used ({problem.detail}): see that it runs, and that the URL is right"
        ) from None
    except BaseException:
        await store.close()
        raise
    return store


class PostgresTransaction(SqlTransaction):
    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection.execute, "postgresql")

    async def notify(self, notice: str) -> None:
        await self._execute(text("SELECT pg_notify(:channel, :notice)"), {"channel": _CHANNEL, "notice": notice})


class PostgresStore:
    """Single owner: one event loop."""

    shared = True

    def __init__(self, url: URL) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_timeout=POOL_TIMEOUT_S,
            pool_pre_ping=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": {
                    "application_name": "warren",
                    "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}ms",
                    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S * 1000:.0f}ms",
                    "synchronous_commit": "on",
                },
            },
        )
        # Each statement of a read sees what is committed then; no round trips for a beginning and an end.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._url = url
        self._listener: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[PostgresTransaction]:
        async with self._connection(self._reading) as connection:
            yield PostgresTransaction(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[PostgresTransaction]:
        async with self._connection(self._engine) as connection:
            await connection.execute(_TAKE_TURN)
            yield PostgresTransaction(connection)

    async def run(self, step: Callable[[Connection], None]) -> None:
        """Call ``step`` in a write transaction, with the connection that alembic wants."""
        async with self._connection(self._engine) as connection:
            await connection.execute(_TAKE_TURN)
            await connection.run_sync(step)

    async def notify(self, notice: str) -> None:
        async with self.read() as transaction:
            await transaction.notify(notice)

    async def listen(self, heard: Callable[[str | None], None]) -> None:
        self._listener = asyncio.create_task(self._listen(heard))

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """In a transaction, committed at the end."""
        try:
            async with engine.begin() as connection:
                yield connection
        except AWAY as error:
            raise problem_of(error) from error

    async def _listen(self, heard: Callable[[str | None], None]) -> None:
        """Keep one connection that listens. Whenever it was lost, notices may have been."""
        wait, longest = LISTEN_AGAIN_S
        while True:
            try:
                await self._listen_once(heard)
                wait = LISTEN_AGAIN_S[0]
            except (*AWAY, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                _log.warning("changes of other replicas are seen late: %s", problem_of(error).detail)
            await asyncio.sleep(wait)
            wait = min(wait * 2, longest)

    async def _listen_once(self, heard: Callable[[str | None], None]) -> None:
        """Returns when the connection is lost; raises when there was none."""
        arguments = self._url.translate_connect_args(username="user")
        connection = await asyncpg.connect(**arguments, **self._url.query, timeout=CONNECT_TIMEOUT_S)
        lost = asyncio.Event()

        def on_notice(_: Any, __: int, ___: str, payload: object) -> None:
            heard(str(payload))

        def on_end(_: Any) -> None:
            lost.set()

        try:
            connection.add_termination_listener(on_end)
            await connection.add_listener(_CHANNEL, on_notice)
            heard(None)
            while not lost.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    async with asyncio.timeout(LISTENER_CHECK_S):
                        await lost.wait()
                if not lost.is_set():
                    await connection.execute("SELECT 1", timeout=CONNECT_TIMEOUT_S)  # a peer that is silently gone
        finally:
            connection.terminate()
