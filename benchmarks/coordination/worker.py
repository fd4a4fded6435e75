"""Many nodes in one process: ``python -m benchmarks.coordination.worker``.

Orders come as JSON, a line each, on stdin; each is answered by one line on stdout. All times are of the monotonic
clock, which the processes of a machine share. No order takes longer than its ``within_s``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from asyncio import sslproto
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.coordination.node import Node, Place
from warren.api.trust import establish_trust
from warren.identity.signing import VerifyKey

TLS_READ_BYTES: Final = 16 << 10
_POLL_S: Final = 0.02


class Worker:
    """The nodes of this process, each with a task that keeps it connected."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def join(self, at_once: int, within_s: float) -> dict[str, Any]:
        """Every node enrols, ``at_once`` of them at a time; each takes its turn until its first map is complete.

        ``latencies``: of those who got it, from the beginning of the first attempt on.
        """
        gate = asyncio.Semaphore(at_once)
        latencies: list[float] = []
        mapped: list[float] = []

        async def join_one(index: int, node: Node) -> None:
            async with gate:
                began = time.monotonic()
                self._tasks[index] = asyncio.create_task(node.live())
                await node.mapped.wait()
                latencies.append(time.monotonic() - began)
                mapped.append(time.monotonic())

        began = time.monotonic()
        joining = [asyncio.create_task(join_one(index, node)) for index, node in enumerate(self._nodes)]
        _, late = await asyncio.wait(joining, timeout=within_s)
        for task in late:
            task.cancel()
        return {"began": began, "mapped": mapped, "latencies": latencies, "failures": self._failures()}

    async def settled(self, revision: int, within_s: float) -> dict[str, Any]:
        """When each node had the map of ``revision``; of those that had it in time. ``opened``: when each was let in
        the last time.
        """
        await _until(lambda: all(node.revision >= revision for node in self._nodes), within_s)
        reached = [node.reached_at for node in self._nodes if node.revision >= revision]
        return {"reached": reached, "revision": max(node.revision for node in self._nodes)}

    async def published(self, within_s: float) -> dict[str, Any]:
        """Wait until the records of all nodes are stored; how many are."""
        await _until(lambda: all(node.published for node in self._nodes), within_s)
        return {"published": sum(node.published > 0 for node in self._nodes)}

    async def back(self, after: float, within_s: float) -> dict[str, Any]:
        """When each node was let in, at a later time than ``after``."""
        await _until(lambda: all(node.is_open() and node.opened_at > after for node in self._nodes), within_s)
        opened = [node.opened_at for node in self._nodes if node.is_open() and node.opened_at > after]
        return {"opened": opened, "failures": self._failures()}

    async def publish(self, index: int, within_s: float) -> dict[str, Any]:
        """One node publishes a new record; returns when it was sent, and when the coordinator had it."""
        node = self._nodes[index]
        began = time.monotonic()
        node.publish()
        await _until(lambda: node.published >= node.version, within_s)
        return {"began": began, "stored": node.published >= node.version}

    async def renew(self, index: int, within_s: float) -> dict[str, Any]:
        """One node comes back without a map; what it was sent, and how long after it was let in that was complete."""
        node, before = self._nodes[index], self._tasks[index]
        before.cancel()
        await asyncio.gather(before, return_exceptions=True)
        sizes = (node.counts.update_bytes, node.counts.documents, node.counts.wire_bytes)
        revision, node.revision = node.revision, 0
        self._tasks[index] = asyncio.create_task(node.live())
        await _until(lambda: node.revision >= revision and node.connection is not None, within_s)
        if node.connection is None or node.revision < revision:
            return {"mapped": False}
        return {
            "mapped": True,
            "took_s": node.reached_at - node.opened_at,
            "bytes": node.counts.update_bytes - sizes[0],
            "documents": node.counts.documents - sizes[1],
            "wire_bytes": node.counts.wire_bytes + node.connection.wire_bytes() - sizes[2],
        }

    async def counts(self) -> dict[str, Any]:
        """Sums over all nodes since the beginning."""
        counts = [node.counts for node in self._nodes]
        open_now = [node.connection.wire_bytes() for node in self._nodes if node.connection is not None]
        return {
            "open": sum(node.is_open() for node in self._nodes),
            "wire_bytes": sum(one.wire_bytes for one in counts) + sum(open_now),
            "updates": sum(one.updates for one in counts),
            "update_bytes": sum(one.update_bytes for one in counts),
            "documents": sum(one.documents for one in counts),
            "connections": sum(one.connections for one in counts),
            "cpu_s": time.process_time(),
        }

    async def end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _failures(self) -> dict[str, int]:
        """Attempts that came to nothing, by why; counted once."""
        sums: dict[str, int] = {}
        for node in self._nodes:
            for why, count in node.failures.items():
                sums[why] = sums.get(why, 0) + count
            node.failures.clear()
        return sums


async def _until(condition: Callable[[], bool], within_s: float) -> None:
    """Returns when it holds, or the time is over."""
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - to be told would cost those measured
        await asyncio.sleep(_POLL_S)


async def _work() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    setup = json.loads(await orders.readline())
    trusted = await establish_trust([setup["url"]], VerifyKey.from_text(setup["coordinator"]))
    place = Place(trusted, VerifyKey.from_text(setup["network"]), bytes.fromhex(setup["secret"]), setup["members"])
    worker = Worker([Node(number, place) for number in range(setup["first"], setup["first"] + setup["count"])])
    gc.collect()
    gc.freeze()
    _answer({"ready": setup["count"]})
    try:
        while line := await orders.readline():
            order = json.loads(line)
            work: Callable[..., Awaitable[dict[str, Any]]] = getattr(worker, order.pop("do"))
            _answer(await work(**order))
    finally:
        await worker.end()


def _answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sslproto.SSLProtocol.max_size = TLS_READ_BYTES
    asyncio.run(_work())


if __name__ == "__main__":
    main()
