"""What all use cases of one coordinator share: the store, the clock, randomness, keys, and the queue of writers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from warren import log
from warren.coordinator.metrics import Metrics
from warren.coordinator.problems import Problem
from warren.coordinator.rows import NetworkRow
from warren.coordinator.store import Store
from warren.coordinator.wakes import Hub
from warren.coordinator.work import Work
from warren.identity.signing import SigningKey

T = TypeVar("T")

BATCH_MAX: Final = 32
"""Use cases that share one commit; as many as take some 40 ms of the event loop."""
WAITING_MAX: Final = 20_000
"""Use cases that wait for their turn; beyond it a storm is told to come back."""

_log = log.get("coordinator")


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may set; seconds."""

    quarantine_s: float = 86_400.0
    """How long an address rests before it is given to another node, counted from the end of the last lease that had
    it or from its release, whichever is later.
    """
    ephemeral_grace_s: float = 300.0
    """How long an ephemeral member may be gone before it is forgotten."""
    first_token_ttl_s: int = 86_400


@dataclass(eq=False, slots=True)
class _Job:
    operation: Callable[[Work], Awaitable[Any]]
    answer: asyncio.Future[Any]
    result: Any = None


class _Again(Exception):
    """The transaction is rolled back and begins anew, without the job that failed."""


class Core:
    """Single owner: one event loop."""

    identity: SigningKey

    def __init__(
        self,
        store: Store,
        *,
        urls: tuple[str, ...],
        wall_clock: Callable[[], float],
        random: Callable[[int], bytes],
        options: Options,
    ) -> None:
        self.store = store
        self.urls = urls
        self.now = wall_clock
        self.random = random
        self.options = options
        self.replica = random(8).hex()
        self.hub = Hub()
        self.metrics = Metrics()
        self.reached: dict[bytes, int] = {}
        """Per network the highest revision that is known to be committed."""
        self.names: dict[tuple[bytes, str], int] = {}
        """Where the search for a free number after a name begins; only a hint."""
        self.changed: Callable[[dict[bytes, int]], Awaitable[None]] | None = None
        """Called after each commit with the networks whose map changed."""
        self._authorities: dict[bytes, SigningKey] = {}
        self._waiting: deque[_Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def authority(self, network: NetworkRow) -> SigningKey:
        """The network's signing key, made once (50 µs)."""
        key = self._authorities.get(network.key)
        if key is None:
            key = self._authorities[network.key] = SigningKey(network.seed)
        return key

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Work]:
        """A transaction that only reads. Problem ``unavailable``."""
        async with self.store.read() as transaction:
            yield Work(transaction, self.now())

    async def write(self, operation: Callable[[Work], Awaitable[T]]) -> T:
        """Run a use case in a write transaction, and return when it is committed: what it wrote is then on the disk.

        Use cases that wait at the same time share one commit. ``operation`` may be called again when another one made
        the transaction fail, so it has no effect but through its work. What it raises is raised here, and nothing it
        did remains; Problem ``unavailable`` when the database failed, ``limit`` when too many wait.
        """
        if self._closed:
            raise Problem("unavailable", "the coordinator is stopping", "Try again in a moment.", retry_after_s=5.0)
        if len(self._waiting) >= WAITING_MAX:
            raise Problem("limit", "too many changes at once", "Try again in a moment.", retry_after_s=10.0)
        job = _Job(operation, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off())
        result: T = await job.answer
        return result

    async def close(self) -> None:
        """Finish what waits; nothing more is written then."""
        self._closed = True
        if self._task is not None:
            await self._task
        self.hub.close()

    async def _work_off(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            touched = await self._commit(batch)
            if touched and self.changed is not None:
                try:
                    await self.changed(touched)
                except Problem as problem:
                    _log.warning("a change is told later: %s", problem)

    async def _commit(self, jobs: list[_Job]) -> dict[bytes, int]:
        """Run the jobs in one transaction and answer them; those that fail by themselves fail alone."""
        while jobs := [job for job in jobs if not job.answer.done()]:
            try:
                async with self.store.write() as transaction:
                    work = Work(transaction, self.now())
                    done = [job for job in jobs if await _run(job, work)]
                    await work.finish()
            except _Again:
                continue
            except Problem as problem:
                self.metrics.database_failures += 1
                for job in jobs:
                    _answer(job, problem)
                return {}
            except Exception as error:  # noqa: BLE001 - a bug; the queue goes on, and who asked is told
                _log.exception("a transaction failed in a way that was not expected")
                for job in jobs:
                    _answer(job, error)
                return {}
            self.metrics.commits += 1
            for network, revision in work.touched.items():
                self.reached[network] = max(revision, self.reached.get(network, 0))
            for job in done:
                if not job.answer.done():
                    job.answer.set_result(job.result)
            return work.touched
        return {}


async def _run(job: _Job, work: Work) -> bool:
    """Whether the job did what it wanted. Raises Problem ``unavailable`` when nobody can go on, and _Again when the
    job has failed after it wrote.
    """
    mark = work.mark()
    try:
        job.result = await job.operation(work)
    except Exception as error:  # whatever it is, it is the answer to who asked
        if isinstance(error, Problem) and error.kind == "unavailable":
            raise
        _answer(job, error)
        if not work.back_to(mark):
            raise _Again from None
        return False
    return True


def _answer(job: _Job, error: Exception) -> None:
    if not job.answer.done():  # else whoever asked is gone
        job.answer.set_exception(error)
