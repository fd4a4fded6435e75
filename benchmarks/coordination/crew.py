"""The worker processes, as one: an order goes to all of them, and what they answer comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from warren.errors import OperationFailed

ANSWER_BYTES_MAX: Final = 64 << 20
START_WITHIN_S: Final = 120.0
LATE_S: Final = 60.0
"""How much longer than an order may take a worker may be busy with what came before."""
END_WITHIN_S: Final = 20.0


class Crew:
    """``count`` nodes in all, in several processes. Made by :func:`crew`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._processes: list[asyncio.subprocess.Process] = []
        self._sizes: list[int] = []

    async def start(self, setup: dict[str, Any], processes: int) -> None:
        """Raises OperationFailed."""
        first = 1
        for number in range(processes):
            size = self.count // processes + (number < self.count % processes)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.coordination.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=ANSWER_BYTES_MAX,
            )
            self._processes.append(process)
            self._sizes.append(size)
            _write(process, {**setup, "first": first, "count": size, "members": self.count})
            first += size
        for process in self._processes:
            await _read(process, START_WITHIN_S)

    async def all(self, order: str, within_s: float | None = None, **arguments: Any) -> list[dict[str, Any]]:
        """Have every worker do something that takes ``within_s`` at most. Raises OperationFailed when one is gone."""
        if within_s is not None:
            arguments["within_s"] = within_s
        for process in self._processes:
            _write(process, {"do": order, **arguments})
        return list(await asyncio.gather(*(_read(one, (within_s or 0.0) + LATE_S) for one in self._processes)))

    async def one(self, node: int, order: str, within_s: float) -> dict[str, Any]:
        """Have one node do something."""
        for process, size in zip(self._processes, self._sizes, strict=True):
            if node < size:
                _write(process, {"do": order, "index": node, "within_s": within_s})
                return await _read(process, within_s + LATE_S)
            node -= size
        raise ValueError("there is no such node")

    async def end(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes:
            try:
                async with asyncio.timeout(END_WITHIN_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


@contextlib.asynccontextmanager
async def crew(count: int, processes: int, setup: dict[str, Any]) -> AsyncIterator[Crew]:
    """Workers that are ready; they are gone after. ``setup``: url, coordinator, network, secret."""
    made = Crew(count)
    try:
        await made.start(setup, processes)
        yield made
    finally:
        await made.end()


def _write(process: asyncio.subprocess.Process, order: dict[str, Any]) -> None:
    if process.stdin is None:
        raise RuntimeError("asked for a pipe")
    process.stdin.write(json.dumps(order).encode() + b"\n")


async def _read(process: asyncio.subprocess.Process, within_s: float) -> dict[str, Any]:
    if process.stdout is None:
        raise RuntimeError("asked for a pipe")
    try:
        async with asyncio.timeout(within_s):
            line = await process.stdout.readline()
    except TimeoutError:
        raise OperationFailed(f"a worker does not answer within {within_s:.0f} s") from None
    if not line:
        raise OperationFailed("a worker has ended")
    answer: dict[str, Any] = json.loads(line)
    return answer
