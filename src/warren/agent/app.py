"""``warren up``: puts the parts together and runs them in this process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from warren import __version__, log
from warren.agent import config as configs
from warren.agent.agent import Agent
from warren.agent.config import AgentConfig, Wanted
from warren.agent.control import serve
from warren.agent.inside import Inside, of_host, of_nest
from warren.agent.places import Places
from warren.agent.ready import service_manager
from warren.agent.shared import Shared
from warren.agent.state import locked, make_private, networks
from warren.agent.world import Link, World
from warren.api.node import NodeLink
from warren.engine.choose import Choice, choose
from warren.errors import UsageError, WarrenError
from warren.identity.signing import SigningKey, VerifyKey
from warren.identity.store import KeyStore
from warren.linux.nat64 import discover_nat64
from warren.linux.netlink import Netlink, open_netlink
from warren.linux.nft_removals import removals
from warren.model.documents import Coordinator
from warren.proto.control.client import EnrolRequest
from warren.proto.control.local import Joined

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_log = log.get("agent")


def run(
    where: Places, ticket: str | None, name: str | None, told: Callable[[Joined], None], engine: Wanted | None = None
) -> None:
    """Be the agent until SIGTERM or SIGINT. With a ``ticket`` join first, and call ``told`` with the result.

    ``engine``: which one to use, whatever agent.toml says. Raises WarrenError: what keeps it from running, why the
    ticket was refused, or what could not be removed at the end.
    """
    tell_ready = service_manager()
    config = configs.load(configs.locate(where.state))
    choice = choose(engine or config.engine)
    with contextlib.ExitStack() as locks:
        locks.enter_context(locked(where.state))
        if ticket is None and not networks(where.state):
            raise UsageError(
                "this machine is in no network yet: get a ticket with `warren network invite NETWORK` where the network"
                " is run, and paste it behind `warren up`"
            )
        make_private(where.run, "--run")
        where.check()
        if where.run != where.state:
            locks.enter_context(locked(where.run, "--run"))
        _log.info("engine: %s, since %s", choice.engine, choice.why)
        asyncio.run(_run(where, config, choice, ticket, name, told, tell_ready))


async def _run(
    where: Places,
    config: AgentConfig,
    choice: Choice,
    ticket: str | None,
    name: str | None,
    told: Callable[[Joined], None],
    tell_ready: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        netlink = await stack.enter_async_context(open_netlink())
        side = of_nest(where) if choice.engine == "rootless" else of_host(where, netlink)
        inside = await stack.enter_async_context(side)
        keys = KeyStore.open(where.state / "keys")
        agent = Agent(Shared(_world(netlink, inside, choice), keys, where.state, config), run=where.run)
        inside.healed = agent.network_changed
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        loop.add_signal_handler(signal.SIGHUP, _reload, agent)
        await stack.enter_async_context(serve(agent, where.socket))
        tell_ready()
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


def _world(netlink: Netlink, inside: Inside, choice: Choice) -> World:
    return World(
        netlink=netlink,
        inside=inside.netlink,
        nft=inside.nft,
        sysctls=inside.sysctls,
        overlay=inside.overlay,
        tcp=inside.tcp,
        engines=inside.engines,
        open_link=_open_link,
        names=inside.names,
        find_nat64=discover_nat64,
        boot=_boot(),
        choice=choice,
        filter_removals=None if choice.engine == "rootless" else removals,
        helper_trouble=lambda: inside.trouble,
    )


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
