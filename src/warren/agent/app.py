"""``warren up``: puts the parts together and runs them in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from warren import __version__, log
from warren.agent import config as configs
from warren.agent.agent import Agent
from warren.agent.control import serve
from warren.agent.names import HostNames
from warren.agent.places import Places
from warren.agent.shared import Shared
from warren.agent.state import locked, make_private, networks
from warren.agent.world import DataPlane, Link, World
from warren.api.node import EnrolRequest, NodeLink
from warren.engine.userspace.client import UserspaceEngine
from warren.errors import OperationFailed, UsageError, WarrenError
from warren.identity.signing import SigningKey, VerifyKey
from warren.identity.store import KeyStore
from warren.l4.overlay import HostSockets
from warren.linux import capabilities
from warren.linux.nat64 import discover_nat64
from warren.linux.netlink import open_netlink
from warren.linux.nft import LibNft
from warren.linux.sysctl import ProcSysctls
from warren.model.documents import Coordinator
from warren.proto.control.local import Joined

_TUN: Final = Path("/dev/net/tun")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_log = log.get("agent")


class UserspaceEngines:
    """Data planes of our own, each a process."""

    def __init__(self, state: Path) -> None:
        self._state = state

    async def start(self, interface: str, mtu: int) -> DataPlane:
        return await UserspaceEngine.start(interface, mtu=mtu, state=self._state)

    async def attach(self, interface: str) -> DataPlane:
        return await UserspaceEngine.attach(interface)


def run(where: Places, ticket: str | None, name: str | None, told: Callable[[Joined], None]) -> None:
    """Be the agent until SIGTERM or SIGINT. With a ``ticket`` join first, and call ``told`` with the result.

    Raises WarrenError: what keeps it from running, why the ticket was refused, or what could not be removed at the end.
    """
    check_host()
    with locked(where.state):
        if ticket is None and not networks(where.state):
            raise UsageError(
                "this machine is in no network yet: get a ticket with `warren network invite NETWORK` where the network"
                " is run, and paste it behind `warren up`"
            )
        asyncio.run(_run(where, ticket, name, told))


async def _run(where: Places, ticket: str | None, name: str | None, told: Callable[[Joined], None]) -> None:
    loop = asyncio.get_running_loop()
    config = configs.load(configs.locate(where.state))
    async with contextlib.AsyncExitStack() as stack:
        netlink = await stack.enter_async_context(open_netlink())
        names = await stack.enter_async_context(HostNames.open(where.run))
        world = World(
            netlink=netlink,
            inside=netlink,
            nft=LibNft(),
            sysctls=ProcSysctls(),
            overlay=HostSockets(),
            engines=UserspaceEngines(where.state / "data-plane"),
            open_link=_open_link,
            names=names,
            find_nat64=discover_nat64,
            boot=_boot(),
        )
        keys = KeyStore.open(where.state / "keys")
        agent = Agent(Shared(world, keys, where.state, config))
        make_private(where.run, "--run")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        loop.add_signal_handler(signal.SIGHUP, _reload, agent)
        await stack.enter_async_context(serve(agent, where.socket))
        work = asyncio.create_task(agent.run(), name="agent")
        try:
            await _serve(agent, work, ticket, name, told)
        finally:
            agent.stop()
            await asyncio.gather(work, return_exceptions=True)
        work.result()


async def _serve(
    agent: Agent, work: asyncio.Task[None], ticket: str | None, name: str | None, told: Callable[[Joined], None]
) -> None:
    if ticket is not None:
        joining = asyncio.create_task(agent.join(ticket, name), name="joining")
        stopping = asyncio.create_task(agent.stopping.wait(), name="stopping")
        try:
            await asyncio.wait({joining, stopping, work}, return_when=asyncio.FIRST_COMPLETED)
            if not joining.done():
                return
            told(joining.result())
        except WarrenError as error:
            if not agent.known():
                raise
            _log.error("%s", error)  # the networks it is in already go on
        finally:
            for task in (joining, stopping):
                task.cancel()
            await asyncio.gather(joining, stopping, return_exceptions=True)
    await asyncio.wait({work})


def _open_link(
    *,
    network: VerifyKey,
    node: SigningKey,
    coordinators: Sequence[Coordinator],
    since: Callable[[], int],
    enrol: EnrolRequest | None,
    proxy: str | None,
) -> Link:
    return NodeLink(
        network=network,
        node=node,
        coordinators=coordinators,
        since=since,
        enrol=enrol,
        version=__version__,
        random=random.SystemRandom(),
        proxy=proxy,
    )


def _reload(agent: Agent) -> None:
    try:
        agent.reload()
    except WarrenError as error:
        _log.error("%s; going on with the config as it was", error)


def _boot() -> str:
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


def check_host() -> None:
    """Raises OperationFailed when this process may not make interfaces, or this host cannot."""
    if capabilities.CAP_NET_ADMIN not in capabilities.effective():
        raise OperationFailed("the agent makes network interfaces, which needs CAP_NET_ADMIN; run it as root (sudo)")
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise OperationFailed(
            f"there is no {_TUN}: `modprobe tun`, or give the container the device (--device {_TUN})"
        ) from None
    except OSError as error:
        raise OperationFailed(f"{_TUN} cannot be opened: {error.strerror}; run as root and allow the device") from None
