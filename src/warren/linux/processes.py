"""Processes that outlive the one that started them: each in a session of its own, watched and ended by a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final, Self

from warren.errors import OperationFailed

START_S: Final = 20.0
"""A loaded machine imports libraries in a second or two."""
STOP_S: Final = 5.0


class Outliving:
    """One process. Dropping the object, or the end of ours, leaves it running."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        """``child``: the same, if it is ours to wait for. Raises ProcessLookupError when it has ended."""
        self.pid = pid
        self._child = child
        self._pidfd = -1
        self._pidfd = os.pidfd_open(pid)  # it stays that process, whoever gets its number later

    @classmethod
    async def start(cls, command: Sequence[str], what: str, *, kept: Sequence[int] = ()) -> Self:
        """Run ``command``, which inherits the descriptors ``kept``, and wait until it says ``ready`` on its standard
        output. ``what`` it is goes into errors. Raises OperationFailed, with its reason if it says ``error: …``.
        """
        child = _spawn(command, kept)
        try:
            async with asyncio.timeout(START_S):
                line = await _first_line(child)
        except BaseException as error:
            child.kill()
            child.wait()
            if isinstance(error, TimeoutError):
                raise OperationFailed(f"{what} did not start within {START_S:.0f} s; the log says more") from error
            raise
        if line != "ready":
            child.wait()
            raise OperationFailed(line.removeprefix("error: ") or f"{what} ended at once; the log says more")
        return cls(child.pid, child)

    async def wait_closed(self) -> None:
        """Return when it has ended, for whatever reason. Several may wait at once."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        watched = os.dup(self._pidfd)  # each watches a descriptor of its own
        loop.add_reader(watched, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        if self._child is not None:
            self._child.wait()

    async def ended(self, within_s: float) -> bool:
        """Wait so long for its end; whether it came."""
        try:
            async with asyncio.timeout(within_s):
                await self.wait_closed()
        except TimeoutError:
            return False
        return True

    def ask_to_end(self) -> None:
        """SIGTERM; harmless when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)

    async def close(self) -> None:
        """Ask it to end, and end it when it does not; harmless when it is gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            if await self.ended(STOP_S):
                return

    async def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self.ended(STOP_S)

    def forget(self) -> None:
        """Let go of it; it goes on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # it is meant to outlive us: no "still running" warning

    def __del__(self) -> None:
        self.forget()


def _spawn(command: Sequence[str], kept: Sequence[int]) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C meant for us must not end it."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, pass_fds=kept
    )


async def _first_line(child: subprocess.Popen[bytes]) -> str:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), child.stdout)
    try:
        return (await reader.readline()).decode(errors="replace").strip()
    finally:
        transport.close()
