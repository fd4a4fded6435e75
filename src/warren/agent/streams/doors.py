"""What the driver of streams works with: the networks, the stream process, Caddy; tests have others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from warren.agent.streams.directory import Directory
from warren.agent.streams.order import Nearness
from warren.identity.signing import VerifyKey
from warren.ingress.sites import Ports, Settings, Site
from warren.l4.config import Config, Status
from warren.l4.kinds import Judge
from warren.model.tunnel import IPAddress
from warren.proto.control.messages import Task
from warren.reach.hosts import resolve_hosts


class Network(Protocol):
    """What is used of a network (:class:`~warren.agent.network.situation.Situation`)."""

    network: VerifyKey

    @property
    def name(self) -> str: ...

    @property
    def interface(self) -> str: ...

    @property
    def directory(self) -> Directory | None:
        """The same object as long as the documents say the same; None: nothing can be said."""

    @property
    def settled(self) -> bool:
        """It has told what it wants, or cannot soon."""

    def nearness(self, node: bytes) -> Nearness: ...

    def own_ips(self) -> Collection[IPAddress]:
        """Where others reach this node itself, outside the overlay; not its relays' addresses."""

    def tell_tasks(self, tasks: tuple[Task, ...]) -> None: ...


class Process(Protocol):
    """What is used of :class:`~warren.l4.process.StreamProcess`."""

    resolver: Callable[[str], Sequence[str]]
    judge: Judge
    changed: asyncio.Event

    async def configure(self, config: Config) -> Status: ...

    async def status(self) -> Status: ...

    async def wait_closed(self) -> None: ...

    async def close(self) -> None: ...

    async def detach(self) -> None: ...


class Web(Protocol):
    """What is used of :class:`~warren.ingress.caddy.Caddy`."""

    changed: asyncio.Event
    ports: Ports | None

    async def find(self) -> Ports | None: ...

    async def ready(self) -> Ports: ...

    async def keep(self, sites: Sequence[Site]) -> Ports | None: ...

    def problems(self) -> Mapping[str, str]: ...

    async def close(self) -> None: ...

    async def let_go(self) -> None: ...


async def open_process(run: Path, nest: Path | None) -> Process:
    from warren.l4.process import StreamProcess

    return await StreamProcess.attach_or_start(run, nest=nest)


def make_web(settings: Settings, lookup: Path) -> Web:
    from warren.ingress.caddy import Caddy

    return Caddy(settings, lookup)


@dataclass(frozen=True, slots=True)
class Doors:
    """How the driver gets what it drives; tests have others."""

    open_process: Callable[[Path, Path | None], Awaitable[Process]] = open_process
    """The stream process of a run directory, with its sockets of the overlay from a helper."""
    make_web: Callable[[Settings, Path], Web] = make_web
    resolve: Callable[[Sequence[str]], Awaitable[Sequence[IPAddress]]] = resolve_hosts
