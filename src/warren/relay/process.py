"""A relay as a child process: its packets stay away from the owner's event loop, and it ends with the owner."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from warren.errors import OperationFailed
from warren.relay.child import LINE_BYTES_MAX, ToChild, ToOwner, pack_config, unpack_ready
from warren.relay.config import RelayConfig
from warren.relay.serve import Ready

START_S: Final = 15.0
STOP_S: Final = 5.0


class RelayProcess:
    """One relay, started and stopped once. Use from one event loop."""

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> Ready:
        """Start it and wait until it serves.

        Raises OperationFailed when it cannot: a taken port, a certificate that cannot be used …
        """
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "warren.relay",
                "--control-fd",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # It shall not get the signals of the owner's terminal: the owner decides when it ends.
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise OperationFailed(f"the relay cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES_MAX)
        try:
            async with asyncio.timeout(START_S):
                await self._tell(ToChild(config=pack_config(self._config)))
                answer = await self._answer()
        except (TimeoutError, OperationFailed):
            await self.stop()
            raise OperationFailed("the relay did not start; the log says more") from None
        except BaseException:
            await self.stop()
            raise
        if answer.ready is None:
            await self.stop()
            raise OperationFailed(answer.error or "the relay did not start")
        return unpack_ready(answer.ready)

    async def set_users(self, users: Mapping[str, str]) -> None:
        """Another table of names and passwords: who is gone from it loses its allocations at once.

        Raises OperationFailed when the relay has ended, as the other methods do.
        """
        await self._tell(ToChild(users=dict(users)))

    async def set_revoked(self, identities: Collection[str]) -> None:
        """Whose time-limited names (the part behind the time) are refused, and lose their allocations at once."""
        await self._tell(ToChild(revoked=tuple(identities)))

    async def counters(self) -> dict[str, int]:
        """What happened so far; ``allocations`` is how many there are now."""
        async with self._asking:
            await self._tell(ToChild(ask=True))
            return (await self._answer()).counters or {}

    async def wait_closed(self) -> int:
        """Wait until the process has ended, by itself or by :meth:`stop`; returns its exit status."""
        if self._process is None:
            return 0
        return await self._process.wait()

    async def stop(self) -> None:
        """End it; harmless when it has ended."""
        process, writer = self._process, self._writer
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_S + self._config.drain_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _tell(self, message: ToChild) -> None:
        if self._writer is None:
            raise OperationFailed("the relay was not started")
        try:
            self._writer.write(msgspec.json.encode(message) + b"\n")
            await self._writer.drain()
        except OSError:
            raise OperationFailed("the relay has ended") from None

    async def _answer(self) -> ToOwner:
        line = b"" if self._reader is None else await self._reader.readline()
        if not line.endswith(b"\n"):
            raise OperationFailed("the relay has ended")
        return msgspec.json.decode(line, type=ToOwner)
