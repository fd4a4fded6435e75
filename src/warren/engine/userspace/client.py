"""The userspace engine as its controller sees it: a process to start or to attach to, and its UAPI socket."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from warren.engine.userspace.listening import ControlSocket
from warren.engine.userspace.places import control_path, socket_path, zone_index
from warren.errors import MalformedPacket, OperationFailed, Unreachable
from warren.linux.peers import peer_of
from warren.linux.processes import Outliving
from warren.model.datagrams import ControlEvent
from warren.model.tunnel import TunnelChange, TunnelStatus
from warren.proto import uapi, uapi_answers

_ANSWER_TIMEOUT_S = 10.0
_ANSWER_BYTES_MAX = 64 << 20
_REASONS = {
    errno.ENOENT: "no peer has the key that one is to be renamed from",
    errno.EEXIST: "the new key of a renamed peer is in use already",
    errno.EUSERS: "too many peers for one tunnel",
}


class UserspaceEngine:
    """An :class:`~warren.engine.base.Engine` that runs as a process of its own and outlives this object.

    Dropping the object, or killing the process that holds it, leaves the tunnel running; :meth:`attach` finds it again.
    """

    def __init__(self, interface: str, process: Outliving, sockets: Path | None = None) -> None:
        self._interface = interface
        self._sockets = sockets
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        interface: str,
        *,
        mtu: int = 1420,
        state: Path | None = None,
        sockets: Path | None = None,
        nest: Path | None = None,
    ) -> Self:
        """Start a data plane for a new interface. Raises OperationFailed with its reason when it cannot.

        ``sockets``: the directory of its control sockets, if not the usual one. ``nest``: the socket of a rootless
        engine's helper, in whose network the interface is to be; what is sent and received outside stays in this one.
        """
        command = [sys.executable, "-m", "warren.engine.userspace", interface, "--mtu", str(mtu)]
        if state is not None:
            command += ["--state", str(state)]
        if sockets is not None:
            command += ["--sockets", str(sockets)]
        if nest is not None:
            command += ["--nest", str(nest)]
        return cls(interface, await Outliving.start(command, f"the data plane of {interface}"), sockets)

    @classmethod
    async def attach(cls, interface: str, *, sockets: Path | None = None) -> Self:
        """Take over a data plane that runs already. Raises Unreachable when none answers."""
        with _connected(interface, sockets) as connection:
            pid = peer_of(connection).pid
        engine = cls(interface, Outliving(pid), sockets)
        await engine.status()
        return engine

    @property
    def interface(self) -> str:
        return self._interface

    async def configure(self, change: TunnelChange) -> None:
        answer = await self._ask(uapi.pack_change(change))
        if answer.errno:
            raise OperationFailed(_why_refused(self._interface, change, answer.errno))

    async def status(self) -> TunnelStatus:
        return uapi_answers.unpack_status_untrusted(await self._ask(b"get=1\n\n"), zone_index)

    async def statistics(self) -> Mapping[str, int]:
        return {key: int(value) for key, value in (await self._ask(b"statistics=1\n\n")).pairs}

    async def listen(self, heard: Callable[[ControlEvent], None]) -> ControlSocket:
        return await ControlSocket.open(control_path(self._interface, self._sockets), heard)

    async def close(self) -> None:
        """Ask the process to end, and end it when it does not."""
        await self._process.close()

    async def wait_closed(self) -> None:
        """Return when the process has ended, for whatever reason."""
        await self._process.wait_closed()

    async def _ask(self, request: bytes) -> uapi_answers.Answer:
        connection = _connected(self._interface, self._sockets)
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_ANSWER_BYTES_MAX)
            try:
                writer.write(request)
                async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                    text = await reader.readuntil(b"\n\n")
            finally:
                writer.close()
            return uapi_answers.unpack_answer_untrusted(text[:-2])
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError, MalformedPacket) as error:
            raise Unreachable(f"the data plane of {self._interface} does not answer: it may have just ended") from error


def _connected(interface: str, sockets: Path | None) -> socket.socket:
    """A non-blocking connection to the UAPI socket; the caller closes it. Raises Unreachable."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.connect(str(socket_path(interface, sockets)))
    except OSError as error:
        connection.close()
        raise Unreachable(f"no data plane answers for interface {interface}: is it running?") from error
    connection.setblocking(False)
    return connection


def _why_refused(interface: str, change: TunnelChange, number: int) -> str:
    port = f" (ListenPort = {change.listen_port})" if change.listen_port else ""
    return f"the data plane of {interface} refused the configuration{port}: {_REASONS.get(number, os.strerror(number))}"
