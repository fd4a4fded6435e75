"""What the agent reaches outside of itself, as Protocols and one value; tests have their own."""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from typing import Protocol, Self

from warren.api.node_events import Event
from warren.engine.base import Engine
from warren.engine.choose import Choice
from warren.identity.signing import SigningKey, VerifyKey
from warren.l4.overlay import OverlaySockets
from warren.linux.netlink import Netlink
from warren.linux.nft import Nft
from warren.linux.sysctl import Sysctls
from warren.linux.tcp_sockets import TcpSockets
from warren.model.documents import Coordinator, NetworkSpec, NodeRecord
from warren.model.netmap import Member
from warren.model.tunnel import IPAddress, TransportAddress
from warren.model.verified import Verified
from warren.proto.control.client import EnrolRequest
from warren.proto.control.messages import Report
from warren.reach.alarm import Alarm, LoopAlarm, MakeAlarm
from warren.reach.doors import Bridge
from warren.reach.hosts import resolve_hosts
from warren.reach.portmap import PortMapping
from warren.reach.proxy import Proxy
from warren.reach.relay_values import RelayPlace, Transport
from warren.reach.streams import open_bridge, punch, tcp_mapped
from warren.relay.config import RelayConfig
from warren.relay.process import RelayProcess


class DataPlane(Engine, Protocol):
    """An engine that runs as a process of its own."""

    async def wait_closed(self) -> None:
        """Return when the process has ended, for whatever reason."""


class Engines(Protocol):
    """Makes data planes."""

    async def start(self, interface: str, mtu: int) -> DataPlane:
        """A new one, with a new interface. Raises OperationFailed."""

    async def attach(self, interface: str) -> DataPlane:
        """One that runs already. Raises Unreachable when there is none."""


class Link(Protocol):
    """The standing link to the coordinators of one network (:class:`warren.api.node.NodeLink`)."""

    coordinators: tuple[Coordinator, ...]
    members: int

    def events(self) -> AsyncIterator[Event]: ...

    def publish(self, record: Verified[NodeRecord]) -> None: ...

    def report(self, report: Report) -> None: ...

    def signal(self, to: bytes, data: bytes) -> bool: ...

    def retry_now(self) -> None: ...

    async def leave(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...


class OpenLink(Protocol):
    """Makes links."""

    def __call__(
        self,
        *,
        network: VerifyKey,
        node: SigningKey,
        coordinators: Sequence[Coordinator],
        since: Callable[[], int],
        enrol: EnrolRequest | None,
        proxy: str | None,
    ) -> Link: ...


class Names(Protocol):
    """Answers the names of one network on its interface, and makes the host ask for them there.

    Errors: OperationFailed, with what to do; names of other networks are not affected.
    """

    async def serve(
        self, interface: str, addresses: Sequence[IPAddress], spec: NetworkSpec, members: Sequence[Member]
    ) -> None:
        """From now on answer these members' names on ``addresses``, which the interface has."""

    async def stop(self, interface: str) -> None:
        """Undo it; nothing happens when there is nothing."""


def boot_clock() -> float:
    """Seconds since the machine started; it counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_alarm(ring: Callable[[], None]) -> Alarm:
    """An alarm by that clock."""
    return LoopAlarm(boot_clock, ring)


@dataclass(frozen=True, slots=True)
class World:
    """Clocks in seconds: ``clock`` counts from boot, never goes back, and counts while the machine sleeps."""

    netlink: Netlink
    """Of the host's network: what paths to peers go through."""
    inside: Netlink
    """Of the network that the tunnel interfaces are in: the same, unless the engine is rootless."""
    nft: Nft
    """Inside."""
    sysctls: Sysctls
    """Inside."""
    overlay: OverlaySockets
    """Inside."""
    engines: Engines
    open_link: OpenLink
    names: Names
    find_nat64: Callable[[], Awaitable[IPv6Network | None]]
    boot: str
    choice: Choice
    """The engine, and why that one."""
    filter_removals: Callable[[], AsyncIterator[None]] | None = None
    """Yields when rules inside were removed, perhaps by another program; None: there is no other."""
    helper_trouble: Callable[[], str] = str
    """Why the helper of the rootless engine does not work now; empty while it does, and with other engines."""
    clock: Callable[[], float] = boot_clock
    wall_clock: Callable[[], float] = time.time
    random: random.Random = field(default_factory=random.SystemRandom)
    urandom: Callable[[int], bytes] = os.urandom
    alarm: MakeAlarm = boot_alarm
    """Of ``clock``."""
    resolve_hosts: Callable[[Sequence[str]], Awaitable[Sequence[IPAddress]]] = resolve_hosts
    open_bridge: Callable[[RelayPlace, Transport, Callable[[], int], Proxy | None], Awaitable[Bridge]] = open_bridge
    tcp_mapped: Callable[[Sequence[RelayPlace], int], Awaitable[Sequence[TransportAddress]]] = tcp_mapped
    punch_tcp: Callable[[Sequence[TransportAddress], bytes, bool, int], Awaitable[Bridge | None]] = punch
    port_mapping: Callable[..., PortMapping] = PortMapping
    make_relay: Callable[[RelayConfig], RelayProcess] = RelayProcess
    tcp: TcpSockets | None = None
    """Inside; None: what the policy comes to forbid is not ended."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
