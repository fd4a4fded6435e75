"""Varlink (https://varlink.org) between programs of one host: JSON objects that end in a NUL byte, over a Unix socket.

This is the client; :mod:`warren.api.varlink_server` is the other end. Of the protocol ``upgrade`` is left out, and
``more`` is for calls that last as long as their caller stays: every other call has one answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec

from warren.errors import OperationFailed, Unreachable, UsageError, WarrenError

REQUEST_BYTES_MAX: Final = 1 << 20
ANSWER_BYTES_MAX: Final = 64 << 20
"""The status of 100,000 peers."""
ANSWER_WITHIN_S: Final = 60.0

SERVICE: Final = "org.varlink.service"
FAILED: Final = "Failed"
"""The error of Warren's own interfaces: ``message``, a sentence for a person, and ``exit_status``."""

T = TypeVar("T")


class Call(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client sends."""

    method: str
    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    oneway: bool = False
    more: bool = False
    upgrade: bool = False


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a service answers; ``error`` is a name such as ``org.varlink.service.MethodNotFound``."""

    parameters: msgspec.Raw = msgspec.Raw(b"{}")
    error: str | None = None
    continues: bool = False


class Failure(msgspec.Struct, frozen=True):
    """The parameters of :data:`FAILED`."""

    message: str
    exit_status: int = 1


_ERRORS: Final[dict[int, type[WarrenError]]] = {1: OperationFailed, 2: UsageError, 3: Unreachable}


class VarlinkClient:
    """A connection to a service. Use as ``async with await VarlinkClient.connect(path, who) as client:``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str) -> None:
        self._reader = reader
        self._writer = writer
        self._who = who

    @classmethod
    async def connect(cls, path: Path, who: str) -> Self:
        """``who`` names the service in errors: ``the agent``. Raises Unreachable, and OperationFailed for a socket that
        is somebody else's.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_BYTES_MAX)
        except PermissionError as error:
            raise OperationFailed(f"{path} is not yours to use: ask as root, or as the user who runs {who}") from error
        except (OSError, ValueError) as error:
            raise Unreachable(f"{who} does not answer at {path}: is it running?") from error
        return cls(reader, writer, who)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def call(self, method: str, parameters: object, answer: type[T], *, within_s: float = ANSWER_WITHIN_S) -> T:
        """Call ``method`` (with its interface) with ``parameters`` (anything msgspec makes a JSON object of).

        An error of the service is raised: Warren's own as what it was there, others as OperationFailed. Unreachable
        when no answer comes; the connection is of no more use then.
        """
        request = msgspec.json.encode(Call(method, msgspec.Raw(msgspec.json.encode(parameters))))
        try:
            async with asyncio.timeout(within_s):
                received = await self._exchange(request)
        except TimeoutError:
            raise self._silent(within_s) from None
        return self._read(received, answer)[0]

    async def hold(
        self, method: str, parameters: object, answer: type[T], *, within_s: float = ANSWER_WITHIN_S
    ) -> AsyncGenerator[T, None]:
        """Call ``method``, which lasts: yields its answer, and ends when the service has ended it.

        Raises as :meth:`call` does; Unreachable also when the service goes away. The connection is of no more use then.
        """
        request = msgspec.json.encode(Call(method, msgspec.Raw(msgspec.json.encode(parameters)), more=True))
        try:
            async with asyncio.timeout(within_s):
                received = await self._exchange(request)
        except TimeoutError:
            raise self._silent(within_s) from None
        found, continues = self._read(received, answer)
        yield found
        while continues:
            _, continues = self._read(await self._exchange(b""), answer)

    async def _exchange(self, request: bytes) -> bytes:
        """Send a request, or nothing, and return what comes next."""
        try:
            if request:
                self._writer.write(request + b"\0")
                await self._writer.drain()
            return (await self._reader.readuntil(b"\0"))[:-1]
        except TimeoutError:
            raise
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unreachable(f"{self._who} closed the connection without an answer: look into its log") from error

    def _silent(self, within_s: float) -> Unreachable:
        return Unreachable(f"{self._who} did not answer within {within_s:.0f} s")

    def _read(self, received: bytes, answer: type[T]) -> tuple[T, bool]:
        """The answer, and whether more is to come."""
        try:
            reply = msgspec.json.decode(received, type=Reply)
            if reply.error is None:
                return msgspec.json.decode(reply.parameters, type=answer), reply.continues
            raise _error_of(reply, self._who)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise OperationFailed(
                f"{self._who} answers in a way that this version of Warren does not understand ({error}); restart it "
                "if Warren was updated"
            ) from error


def _error_of(reply: Reply, who: str) -> WarrenError:
    name = reply.error or ""
    if name.rpartition(".")[2] == FAILED:
        failure = msgspec.json.decode(reply.parameters, type=Failure)
        return _ERRORS.get(failure.exit_status, OperationFailed)(failure.message)
    parameters: dict[str, Any] = msgspec.json.decode(reply.parameters, type=dict[str, Any])
    told = ", ".join(f"{key} {value}" for key, value in parameters.items())
    return OperationFailed(f"{who} refuses the call: {name} ({told}); restart it if Warren was updated")
