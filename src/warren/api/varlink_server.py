"""A Varlink service on a Unix socket, for root and one owner.

Parse → authenticate → authorise → allocate: who connects is looked at before a byte is read (SO_PEERCRED, which no
client can forge), whatever the mode of the socket file is. A client may take its time between calls, not within one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from warren import log
from warren.api.varlink import FAILED, REQUEST_BYTES_MAX, SERVICE, Call, Failure, Reply
from warren.api.varlink_service import SERVICE_DESCRIPTION, Asked, Description, Info, Nothing
from warren.errors import OperationFailed, WarrenError
from warren.linux import unix_sockets
from warren.linux.peers import peer_of

CONNECTIONS_MAX: Final = 64
"""Commands of one person, and a few programs that watch."""
HELD_MAX: Final = 32
"""Of them, calls that last; the other half is for everything else."""
IDLE_S: Final = 300.0
"""Between calls."""
TRANSFER_S: Final = 10.0
"""For one request to arrive once it began, or one answer to be read."""

_log = log.get("varlink")


@dataclass(frozen=True, slots=True)
class Method:
    """One method: the struct that its parameters are, and who answers with a struct.

    A WarrenError from ``handler`` becomes the interface's error ``Failed``.
    """

    parameters: type[msgspec.Struct]
    handler: Callable[[Any], Awaitable[msgspec.Struct | None]]
    held: Callable[[Any], AbstractAsyncContextManager[tuple[msgspec.Struct, asyncio.Event]]] | None = None
    """Of a call with ``more``, which lasts as long as its caller stays connected: what is answered at once, and an
    event that ends it from this side, with the same answer again. Nothing else is called on that connection.
    """


@dataclass(frozen=True, slots=True)
class Interface:
    """``description`` is in Varlink's interface definition language."""

    name: str
    description: str
    methods: Mapping[str, Method]


class _ServiceError(Exception):
    """An error of ``org.varlink.service``."""

    def __init__(self, name: str, **parameters: str) -> None:
        super().__init__(name)
        self.reply = _reply(parameters, f"{SERVICE}.{name}")


class VarlinkServer:
    """Serves ``interfaces`` from :meth:`start` to :meth:`close`; single owner, one event loop."""

    def __init__(self, path: Path, interfaces: Sequence[Interface], *, version: str, owner: int | None = None) -> None:
        """``owner``: the uid that may connect besides root; None: this process's own."""
        self.path = path
        self.owner = os.geteuid() if owner is None else owner
        names = (SERVICE, *(interface.name for interface in interfaces))
        self._info = Info("Warren", "Warren", version, "", names)
        self._interfaces = {interface.name: interface for interface in (*interfaces, self._own())}
        self._connections: set[asyncio.Task[None]] = set()
        self._holding: set[contextlib.AsyncExitStack] = set()
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] = (0, 0)

    async def start(self) -> None:
        """Raises OperationFailed when another process serves the socket, or it cannot be made."""
        try:
            listener = _listen(self.path, self.owner)
        except OSError as error:
            what = f"the socket {self.path} cannot be made: {error.strerror or error}"
            raise OperationFailed(f"{what}; run as the owner of its directory, or name another") from error
        status = self.path.stat()
        self._inode = (status.st_dev, status.st_ino)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=REQUEST_BYTES_MAX)

    async def close(self) -> None:
        """End all connections, calls that run among them, and remove the socket if it is still this one."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        with contextlib.suppress(OSError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._inode:
                self.path.unlink()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_of(writer.get_extra_info("socket")).uid
        if uid not in {0, self.owner}:
            _log.warning("user %d may not use %s: connection closed", uid, self.path)
        elif len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("%s has %d connections already: one more was closed", self.path, CONNECTIONS_MAX)
        else:
            task = asyncio.ensure_future(self._serve(reader, writer))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            return
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                call = msgspec.json.decode(request, type=Call)
                if call.more and self._lasts(call):
                    await self._hold(call, reader, writer)
                    return
                reply = await self._guarded(call, self._answer)
                if not call.oneway:
                    await _send(writer, reply)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            _log.debug("a client of %s sent no call", self.path)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            _log.debug("a client of %s went away, was too slow or sent too much", self.path)
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it does not read
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, call: Call) -> Reply:
        method = self._find(call)
        answer = await method.handler(_parameters(call, method))
        return _reply(Nothing() if answer is None else answer)

    async def _guarded(self, call: Call, work: Callable[[Call], Awaitable[Reply]]) -> Reply:
        """The reply that ``work`` makes, or the one that says why there is none."""
        failed = f"{call.method.rpartition('.')[0]}.{FAILED}"
        try:
            return await work(call)
        except _ServiceError as error:
            return error.reply
        except WarrenError as error:
            return _reply(Failure(str(error), error.exit_status), failed)
        except Exception:  # noqa: BLE001 - a bug in one answer; the agent goes on
            _log.exception("%s failed in a way that was not expected", call.method)
            sentence = "this is a bug in Warren: the log of the agent has it"
            return _reply(Failure(sentence, 1), failed)

    def _lasts(self, call: Call) -> bool:
        try:
            return self._find(call).held is not None
        except _ServiceError:
            return False

    async def _hold(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A call that lasts: until its caller goes away, or says anything more, or it has ended by itself."""
        ended = asyncio.Event()

        async with contextlib.AsyncExitStack() as stack:

            async def begin(call: Call) -> Reply:
                nonlocal ended
                method = self._find(call)
                if method.held is None or len(self._holding) >= HELD_MAX:
                    raise OperationFailed(f"{HELD_MAX} commands hold something here already; end one of them first")
                self._holding.add(stack)
                stack.callback(self._holding.discard, stack)
                answer, ended = await stack.enter_async_context(method.held(_parameters(call, method)))
                return _reply(answer, continues=True)

            reply = await self._guarded(call, begin)
            await _send(writer, reply)
            if reply.continues and await _is_first(ended, reader):
                await _send(writer, msgspec.structs.replace(reply, continues=False))

    def _find(self, call: Call) -> Method:
        name, _, method = call.method.rpartition(".")
        interface = self._interfaces.get(name)
        if interface is None:
            raise _ServiceError("InterfaceNotFound", interface=name)
        if method not in interface.methods:
            raise _ServiceError("MethodNotFound", method=call.method)
        if call.upgrade:
            raise _ServiceError("InvalidParameter", parameter="upgrade")
        return interface.methods[method]

    def _own(self) -> Interface:
        methods = {
            "GetInfo": Method(Nothing, self._get_info),
            "GetInterfaceDescription": Method(Asked, self._get_description),
        }
        return Interface(SERVICE, SERVICE_DESCRIPTION, methods)

    async def _get_info(self, _: Nothing) -> Info:
        return self._info

    async def _get_description(self, asked: Asked) -> Description:
        interface = self._interfaces.get(asked.interface)
        if interface is None:
            raise _ServiceError("InterfaceNotFound", interface=asked.interface)
        return Description(interface.description)


async def _read(reader: asyncio.StreamReader) -> bytes | None:
    """The next request; None when the client has closed between two, or has said nothing for long."""
    try:
        async with asyncio.timeout(IDLE_S):
            first = await reader.readexactly(1)
    except (TimeoutError, asyncio.IncompleteReadError):
        return None
    if first == b"\0":
        return b""
    async with asyncio.timeout(TRANSFER_S):
        return first + (await reader.readuntil(b"\0"))[:-1]


def _parameters(call: Call, method: Method) -> Any:
    try:
        return msgspec.json.decode(call.parameters, type=method.parameters)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _ServiceError("InvalidParameter", parameter=str(error)) from None


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> None:
    writer.write(msgspec.json.encode(reply) + b"\0")
    async with asyncio.timeout(TRANSFER_S):
        await writer.drain()


async def _is_first(ended: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Whether ``ended`` is set before the other side goes away or speaks."""
    waiting = asyncio.ensure_future(ended.wait())
    reading = asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
        return not reading.done()
    finally:
        for task in (waiting, reading):
            task.cancel()
        await asyncio.gather(waiting, reading, return_exceptions=True)


def _reply(parameters: object, error: str | None = None, *, continues: bool = False) -> Reply:
    return Reply(msgspec.Raw(msgspec.json.encode(parameters)), error, continues)


def _listen(path: Path, owner: int) -> socket.socket:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if path.is_socket():
        if unix_sockets.answers(path):
            raise OperationFailed(f"{path} is served already: another agent runs; stop it first")
        path.unlink()
    listener = unix_sockets.listen(path, CONNECTIONS_MAX)
    try:
        if owner != os.geteuid():
            os.chown(path, owner, -1)
    except OSError:
        listener.close()
        path.unlink()
        raise
    return listener
