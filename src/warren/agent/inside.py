"""The network that tunnels end in, by the engine that was chosen: the host's own, or a nest that a helper keeps.

What an agent that was killed has left of the other engine is ended first: two data planes with one key would take each
other's packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from warren import log
from warren.agent.names import OwnNames
from warren.agent.network.plane import is_ours
from warren.agent.places import Places
from warren.agent.state import NetworkState, networks
from warren.agent.streams.process import SOCKET as STREAMS_SOCKET
from warren.agent.world import DataPlane, Engines, Names
from warren.engine.userspace.client import UserspaceEngine
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.identity.store import KeyStore
from warren.l3.table import PolicyTable
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.linux.netlink import Netlink
from warren.linux.nft import LibNft, Nft
from warren.linux.peers import peer_of
from warren.linux.sysctl import ProcSysctls, Sysctls
from warren.linux.tcp_sockets import KernelTcp, TcpSockets

if TYPE_CHECKING:
    from warren.engine.rootless.nest import Nest

AGAIN_FIRST_S: Final = 0.1
AGAIN_MAX_S: Final = 30.0
_ENDED_WITHIN_S: Final = 5.0

_log = log.get("agent")


@dataclass
class Inside:
    """Doors to that network. ``trouble``: what keeps its helper from working; empty while all is well."""

    netlink: Netlink
    nft: Nft
    sysctls: Sysctls
    overlay: OverlaySockets
    engines: Engines
    names: Names
    tcp: TcpSockets
    trouble: str = ""
    healed: Callable[[], None] = field(default=lambda: None)
    """Called when the helper works again."""


class UserspaceEngines:
    """Data planes of our own, each a process; ``nest``: where the interfaces are, if not here."""

    def __init__(self, state: Path, *, sockets: Path | None = None, nest: Path | None = None) -> None:
        self._state = state
        self._sockets = sockets
        self._nest = nest

    async def start(self, interface: str, mtu: int) -> DataPlane:
        return await UserspaceEngine.start(
            interface, mtu=mtu, state=self._state, sockets=self._sockets, nest=self._nest
        )

    async def attach(self, interface: str) -> DataPlane:
        return await UserspaceEngine.attach(interface, sockets=self._sockets)


@asynccontextmanager
async def of_host(where: Places, netlink: Netlink) -> AsyncIterator[Inside]:
    """For the userspace engine. ``netlink`` is the host's."""
    await end_nest(where)
    async with OwnNames.of_host(where.run) as names:
        engines = UserspaceEngines(where.state / "data-plane")
        yield Inside(netlink, LibNft(), ProcSysctls(), HostSockets(), engines, names, KernelTcp())


@asynccontextmanager
async def of_nest(where: Places) -> AsyncIterator[Inside]:
    """For the rootless engine: the nest is found or made, and its helper is replaced when it dies. It ends with the
    block. Raises OperationFailed.
    """
    check_private(where.run)
    if os.geteuid() == 0:
        await end_host_planes(where)
    nest = await _nest(where)
    try:
        async with OwnNames.of_nest(nest.sockets, where.resolv_conf) as names:
            engines = UserspaceEngines(where.state / "data-plane", sockets=where.planes, nest=where.nest)
            inside = Inside(nest.netlink, nest.nft, nest.sysctls, nest.sockets, engines, names, nest.tcp)
            keeper = asyncio.create_task(keep(nest, inside), name="helper of the rootless engine")
            try:
                yield inside
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
    finally:
        await nest.close()


def check_private(run: Path) -> None:
    """Who could put sockets into ``run`` would be taken for the helper. Raises OperationFailed."""
    found = run.stat()
    if found.st_uid != os.geteuid():
        raise OperationFailed(f"{run} is another user's directory; name one of your own with --run")
    if found.st_mode & 0o077:
        raise OperationFailed(f"{run} is open to other users: `chmod 700 {run}`, or name another with --run")


async def _nest(where: Places) -> Nest:
    from warren.engine.rootless.nest import Nest

    try:
        nest = await Nest.attach(where.run)
    except Unreachable:
        if not any(answers(path) for path in where.planes.glob("*.sock")):
            await end_behind(where.run / STREAMS_SOCKET)  # its sockets are of a nest that is gone
        nest = await Nest.start(where.run)  # where data planes of before still are, if there are such
        _log.info("the rootless engine's helper is process %d", nest.pid)
    else:
        _log.info("took over the rootless engine's helper, process %d, which runs already", nest.pid)
    return nest


async def keep(nest: Nest, inside: Inside) -> None:
    """Replace the helper whenever it dies. Tunnels, streams and the nest itself outlive it."""
    while True:
        await nest.wait_closed()
        inside.trouble = "the helper has ended, so nothing can be changed in the overlay until there is another"
        _log.error("the rootless engine's helper has ended; tunnels go on; starting another")
        wait_s, said = AGAIN_FIRST_S, ""
        while True:
            try:
                await nest.revive()
                break
            except WarrenError as error:
                inside.trouble = f"its helper has ended and cannot be started again: {error}"
                if str(error) != said:
                    _log.error("%s", error)
                said = str(error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, AGAIN_MAX_S)
        inside.trouble = ""
        _log.info("the rootless engine's helper is process %d now", nest.pid)
        inside.healed()


async def end_host_planes(where: Places) -> None:
    """End the data planes that a killed agent of root has left in the host, and what belongs to them."""
    from warren.dns.split import recover

    keys = KeyStore.open(where.state / "keys")
    for network in networks(where.state):
        interface = NetworkState(where.state, network).settings.interface
        try:
            engine = await UserspaceEngine.attach(interface)
        except Unreachable:
            continue
        own = keys.wireguard_keys(network, time.time())
        if await is_ours(engine, [key.public_key() for key in (own.current, own.next) if key is not None]):
            await engine.close()
            PolicyTable(LibNft(), interface).remove()
            _log.info("ended the data plane of %s, which was left of the userspace engine", interface)
    with contextlib.suppress(OperationFailed):  # said by the next agent that changes the file
        await recover(run=where.run)


async def end_nest(where: Places) -> None:
    """End what a killed agent has left of the rootless engine: helper, data planes, and streams in its overlay."""
    paths = [where.nest, *sorted(where.planes.glob("*.sock"))]
    if not any(path.exists() for path in paths):
        return
    ended = [path.name for path in (*paths, where.run / STREAMS_SOCKET) if await end_behind(path)]
    if ended:
        _log.info("ended what was left of the rootless engine: %s", ", ".join(ended))
    _remove([*paths, where.resolv_conf])


def answers(path: Path) -> bool:
    """Whether a process listens on the Unix socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


async def end_behind(path: Path) -> bool:
    """End the process that listens on the Unix socket ``path``; returns whether there was one of this user's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return False
        pid, user = peer_of(connection)
    if user != os.geteuid():
        return False
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if await _has_ended(process):
                return True
    finally:
        os.close(process)
    raise OperationFailed(f"process {pid}, which was left by an agent that was killed, does not end; `kill -9 {pid}`")


async def _has_ended(process: int) -> bool:
    """Within some seconds."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        async with asyncio.timeout(_ENDED_WITHIN_S):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
    return True


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
