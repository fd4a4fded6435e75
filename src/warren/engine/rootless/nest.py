"""The nest as the agent holds it: the network namespace of a rootless node, and the helper process that works in it.

The namespaces live as long as anything holds them: the helper, this object, a data plane's interface. So the helper may
die without an address, a rule or a packet being lost, and :meth:`Nest.revive` starts another in the same ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Self

from warren import log
from warren.engine.rootless.blocking import BlockingLine, Descriptors, close_all, unreachable
from warren.engine.rootless.calls import Line
from warren.engine.rootless.doors import NestNetlink, NestNft, NestSysctls, NestTcp
from warren.engine.rootless.messages import Namespaces
from warren.engine.rootless.now import as_many
from warren.engine.rootless.places import SOCKET_NAME
from warren.engine.rootless.sockets import NestSockets
from warren.engine.rootless.survivors import surviving_namespaces
from warren.errors import OperationFailed, Unreachable
from warren.linux.netlink import Netlink
from warren.linux.nft import Nft
from warren.linux.processes import Outliving
from warren.linux.sysctl import Sysctls
from warren.linux.tcp_sockets import TcpSockets

_log = log.get("nest")


class Nest:
    """One nest. Dropping the object, or killing the process that has it, leaves the helper running; :meth:`attach`
    finds it again.

    ``netlink``, ``nft``, ``sysctls`` and ``tcp`` are the doors to its network; ``sockets`` makes sockets of it. All of
    them go on working after :meth:`revive`. Their errors: OperationFailed, also for a helper that does not answer.
    """

    def __init__(self, path: Path, helper: Outliving, namespaces: Descriptors) -> None:
        self.path = path
        """The helper's socket, for other processes of this user."""
        self._helper = helper
        self._namespaces = namespaces
        self._line = BlockingLine(path)
        self._netlink = NestNetlink(path)
        self.netlink: Netlink = self._netlink
        self.nft: Nft = NestNft(self._line)
        self.sysctls: Sysctls = NestSysctls(self._line)
        self._tcp = NestTcp(path)
        self.tcp: TcpSockets = self._tcp
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
            helper = await _started(path, survivors, identity=identity)
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
        return await cls._of(path, _found(path))

    @classmethod
    async def _of(cls, path: Path, helper: Outliving) -> Self:
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
        helper = await _started(self.path, self._namespaces)
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
        self._tcp.close()
        self._line.close()
        close_all(self._namespaces)


async def _started(path: Path, namespaces: Descriptors, *, identity: bool = True) -> Outliving:
    """A new helper, in ``namespaces`` if there are such."""
    command = [sys.executable, "-m", "warren.engine.rootless", str(path)]
    if namespaces:
        command += ["--join", *(str(descriptor) for descriptor in namespaces)]
    if not identity:
        command.append("--as-root")
    return await Outliving.start(command, "the rootless engine", kept=namespaces)


def _found(path: Path) -> Outliving:
    """The helper that listens at ``path``. Raises Unreachable."""
    line = BlockingLine(path)
    try:
        return Outliving(line.helper())
    except ProcessLookupError:
        raise unreachable(path) from None
    finally:
        line.close()
