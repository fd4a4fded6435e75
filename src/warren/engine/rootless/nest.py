"""The nest as the agent holds it: the network namespace of a rootless node, and the helper process that works in it.

The namespaces live as long as anything holds them: the helper, this object, a data plane's interface. So the helper may
die without an address, a rule or a packet being lost, and :meth:`Nest.revive` starts another in the same ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, Self

from warren import log
from warren.engine.rootless.blocking import BlockingLine, Descriptors, close_all, unreachable
from warren.engine.rootless.calls import Line
from warren.engine.rootless.doors import NestNetlink, NestNft, NestSysctls
from warren.engine.rootless.messages import Namespaces
from warren.engine.rootless.now import as_many
from warren.engine.rootless.places import SOCKET_NAME
from warren.engine.rootless.sockets import NestSockets
from warren.engine.rootless.survivors import surviving_namespaces
from warren.errors import OperationFailed, Unreachable
from warren.linux.netlink import Netlink
from warren.linux.nft import Nft
from warren.linux.sysctl import Sysctls

_START_TIMEOUT_S: Final = 20.0  # a loaded machine imports what it needs in a second or two
_STOP_TIMEOUT_S: Final = 5.0

_log = log.get("nest")


class Nest:
    """One nest. Dropping the object, or killing the process that has it, leaves the helper running; :meth:`attach`
    finds it again.

    ``netlink``, ``nft`` and ``sysctls`` are the doors to its network; ``sockets`` makes sockets of it. All of them go
    on working after :meth:`revive`. Their errors: OperationFailed, also for a helper that does not answer.
    """

    def __init__(self, path: Path, helper: _Helper, namespaces: Descriptors) -> None:
        self.path = path
        """The helper's socket, for other processes of this user."""
        self._helper = helper
        self._namespaces = namespaces
        self._line = BlockingLine(path)
        self._netlink = NestNetlink(path)
        self.netlink: Netlink = self._netlink
        self.nft: Nft = NestNft(self._line)
        self.sysctls: Sysctls = NestSysctls(self._line)
        self.sockets = NestSockets(path)

    @property
    def pid(self) -> int:
        """Of the helper."""
        return self._helper.pid

    @classmethod
    async def start(cls, run: Path, *, identity: bool = True) -> Self:
        """Start a helper, with its socket in the directory ``run``, which must be this user's alone.

        It moves into the namespaces that data planes of an earlier agent still hold, if there are such, else into new
        ones. Inside the user stays who he is, or with ``identity`` False becomes root. Raises OperationFailed with the
        reason.
        """
        path = run / SOCKET_NAME
        survivors = surviving_namespaces(run)
        try:
            helper = await _Helper.start(path, survivors, identity=identity)
        finally:
            close_all(survivors)
        return await cls._of(path, helper)

    @classmethod
    async def attach(cls, run: Path) -> Self:
        """Take over the helper that runs already. Raises Unreachable when none answers.

        One that is there and does not answer, or that nobody understands, is ended: what it did stays where data
        planes hold its namespaces.
        """
        path = run / SOCKET_NAME
        return await cls._of(path, _Helper.found(path))

    @classmethod
    async def _of(cls, path: Path, helper: _Helper) -> Self:
        line = Line(path)
        try:
            _, namespaces = await line.ask_for_descriptors(Namespaces())
            return cls(path, helper, as_many(namespaces, 2))
        except (Unreachable, OperationFailed) as error:
            _log.warning("process %d, a helper of the rootless engine, is of no use: ending it", helper.pid)
            await helper.close()
            raise unreachable(path) from error
        finally:
            line.close()

    async def revive(self) -> None:
        """The helper died: start another in the same namespaces. Tunnels, addresses, rules and sockets are untouched.

        Raises OperationFailed; trying again may help.
        """
        await self._helper.close()
        helper = await _Helper.start(self.path, self._namespaces)
        self._helper.forget()
        self._helper = helper

    async def wait_closed(self) -> None:
        """Return when the helper has ended, for whatever reason."""
        await self._helper.wait_closed()

    async def close(self) -> None:
        """End the helper; with the last data plane the nest is gone. Closing twice is allowed."""
        await self.let_go()
        await self._helper.close()

    async def let_go(self) -> None:
        """Close what this object has open; the helper goes on."""
        await self.sockets.close()
        self._netlink.close()
        self._line.close()
        close_all(self._namespaces)


class _Helper:
    """A helper process."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    async def start(cls, path: Path, namespaces: Descriptors, *, identity: bool = True) -> Self:
        command = [sys.executable, "-m", "warren.engine.rootless", str(path)]
        if namespaces:
            command += ["--join", *(str(descriptor) for descriptor in namespaces)]
        if not identity:
            command.append("--as-root")
        child = _spawn(command, namespaces)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await _first_line(child)
        except BaseException as error:
            child.kill()
            child.wait()
            if isinstance(error, TimeoutError):
                raise OperationFailed(f"the rootless engine did not start within {_START_TIMEOUT_S:.0f} s") from error
            raise
        if line != "ready":
            child.wait()
            raise OperationFailed(line.removeprefix("error: ") or "the rootless engine ended at once")
        return cls(child.pid, child)

    @classmethod
    def found(cls, path: Path) -> Self:
        """The one that listens at ``path``. Raises Unreachable."""
        line = BlockingLine(path)
        try:
            return cls(line.helper(), None)
        except ProcessLookupError:
            raise unreachable(path) from None
        finally:
            line.close()

    async def wait_closed(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        watched = os.dup(self._pidfd)  # several may wait at once: each watches a descriptor of its own
        loop.add_reader(watched, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        if self._child is not None:
            self._child.wait()

    async def close(self) -> None:
        """Ask it to end, and end it when it does not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self.wait_closed()
                return

    def forget(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # it is meant to outlive us: no "still running" warning

    def __del__(self) -> None:
        if hasattr(self, "_child"):
            self.forget()


def _spawn(command: list[str], kept: Descriptors) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C meant for the agent must not end it."""
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, pass_fds=kept
    )


async def _first_line(child: subprocess.Popen[bytes]) -> str:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), child.stdout
    )
    try:
        return (await reader.readline()).decode(errors="replace").strip()
    finally:
        transport.close()
