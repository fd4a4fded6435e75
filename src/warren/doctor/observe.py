"""Looks at everything at once, within a given time; what takes too long or may not be looked at is said."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from warren.doctor.hops import first_hops
from warren.doctor.host import look_at_kernel, look_at_network
from warren.doctor.mtu import path_mtu
from warren.doctor.observed import Family, GatewaySeen, LifetimeSeen, NatSeen, Nic, Observed, TcpSeen
from warren.doctor.sockets import discover_behaviour, discover_lifetime, source_for
from warren.doctor.web import CoordinatorTarget, TlsTarget, look_at_coordinator, look_at_tls
from warren.errors import OperationFailed
from warren.linux.names import resolve
from warren.linux.nat64 import discover_nat64
from warren.linux.netlink import open_netlink
from warren.model.tunnel import TransportAddress
from warren.proto.portmap.values import Gateway
from warren.proto.stun.behaviour import Behaviour
from warren.proto.stun.behaviour_discovery import SERVERS_MAX
from warren.proto.stun.lifetime import WAITS_S
from warren.reach.portmap import discover

WITHIN_S: Final = 10.0
_NAMES_WITHIN_S: Final = 3.0
_MTU_SERVERS: Final = 2
_RESERVE_S: Final = 0.5
"""What is left for putting the answers together."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class StunTarget:
    """A STUN server, by name or address."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom to ask."""

    stun: tuple[StunTarget, ...] = ()
    tls: tuple[TlsTarget, ...] = ()
    coordinators: tuple[CoordinatorTarget, ...] = ()
    ignored: tuple[str, ...] = ()
    """Patterns (fnmatch(3)) of interfaces that lead to nobody else: Warren's own, and those of containers."""
    proxy: str | None = field(default=None, repr=False)
    """The URL of the HTTP proxy for coordinators and relays; None: as the environment says."""


async def observe(targets: Targets, *, within_s: float = WITHIN_S, lifetime_s: float = 0.0) -> Observed:
    """Everything that can be seen within about ``within_s``. With ``lifetime_s`` mappings are watched for that long
    afterwards, if there is a NAT or a firewall. Raises OperationFailed only when netlink itself does not answer.
    """
    watch = _Watch(asyncio.get_running_loop().time() + within_s - _RESERVE_S)
    async with open_netlink() as netlink:
        nics, gateways = await look_at_network(netlink, targets.ignored)
    kernel = look_at_kernel([nic.name for nic in nics])
    servers = await _resolved(targets.stun, watch)
    async with asyncio.TaskGroup() as group:
        ipv4 = group.create_task(_family(4, servers, watch))
        ipv6 = group.create_task(_family(6, servers, watch))
        hops = group.create_task(watch.wait("the routers on the way", _hops(servers), ()))
        nat64 = group.create_task(watch.wait("the NAT64", _nat64(nics), ""))
        portmap = group.create_task(_portmap(gateways, watch))
        tcp = [group.create_task(_coordinator(target, targets.proxy, watch)) for target in targets.coordinators]
        tcp += [group.create_task(_relay(target, targets.proxy, watch)) for target in targets.tls]
    families = [
        await _with_lifetime(family, servers, lifetime_s) if lifetime_s else family
        for family in (ipv4.result(), ipv6.result())
    ]
    return Observed(
        nics=nics,
        ipv4=families[0],
        ipv6=families[1],
        hops=hops.result(),
        nat64=nat64.result(),
        gateways=portmap.result(),
        tcp=tuple(task.result() for task in tcp),
        proxy=_proxy(targets.proxy),
        kernel=kernel,
        passed_over=tuple(watch.passed_over),
    )


class _Watch:
    """Ends what takes too long, and remembers that it did."""

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.passed_over: list[str] = []

    @property
    def left_s(self) -> float:
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())

    async def wait(self, what: str, looking: Awaitable[Result], otherwise: Result, within_s: float = 3600.0) -> Result:
        try:
            async with asyncio.timeout(min(self.left_s, within_s)):
                return await looking
        except TimeoutError:
            self.passed_over.append(f"{what}: there was no time left")
        except OSError as error:
            self.passed_over.append(f"{what}: {error.strerror or error}")
        return otherwise


async def _coordinator(target: CoordinatorTarget, proxy: str | None, watch: _Watch) -> TcpSeen:
    detail = f"{target.url} does not answer in time"
    slow = TcpSeen(role="coordinator", name=target.name, place=target.url, outcome="silent", detail=detail)
    return await watch.wait(target.name, look_at_coordinator(target, proxy), slow)


async def _relay(target: TlsTarget, proxy: str | None, watch: _Watch) -> TcpSeen:
    place = f"{target.host} port {target.port}"
    slow = TcpSeen(role="relay", name=target.name, place=place, outcome="silent", detail=f"{place} does not answer")
    return await watch.wait(target.name, look_at_tls(target, proxy), slow)


async def _resolved(targets: Sequence[StunTarget], watch: _Watch) -> tuple[TransportAddress, ...]:
    async def one(target: StunTarget) -> tuple[TransportAddress, ...]:
        try:
            return await resolve(target.host, target.port)
        except OperationFailed as error:
            watch.passed_over.append(str(error))
            return ()

    waits = [watch.wait(f"the name {target.host}", one(target), (), _NAMES_WITHIN_S) for target in targets]
    found = await asyncio.gather(*waits)
    return tuple(dict.fromkeys(address for addresses in found for address in addresses))


async def _family(version: Literal[4, 6], servers: Collection[TransportAddress], watch: _Watch) -> Family:
    asked = [server for server in servers if server.ip.version == version][:SERVERS_MAX]
    usable = [server for server in asked if source_for(server) is not None]
    if not usable:
        return Family(version=version, asked=tuple(map(str, asked)))
    clock = asyncio.get_running_loop().time
    within_s = watch.left_s - _RESERVE_S
    nothing: tuple[Behaviour | None, int | None] = None, None
    looking = watch.wait(f"NAT of IPv{version}", discover_behaviour(usable, within_s), nothing)
    probing = [
        watch.wait(f"MTU of IPv{version}", path_mtu(server, within_s, clock), None) for server in usable[:_MTU_SERVERS]
    ]
    (behaviour, refused), mtus = await asyncio.gather(looking, asyncio.gather(*probing))
    return Family(
        version=version,
        asked=tuple(map(str, usable)),
        nat=None if behaviour is None else _nat_seen(behaviour),
        path_mtu=max((mtu for mtu in mtus if mtu is not None), default=None),
        refused="" if refused in {None, errno.EMSGSIZE} else os.strerror(refused or 0),
    )


def _nat_seen(behaviour: Behaviour) -> NatSeen:
    return NatSeen(
        local=str(behaviour.local),
        mapped=None if behaviour.mapped is None else str(behaviour.mapped),
        translated=behaviour.translated,
        mapping=behaviour.mapping,
        filtering=behaviour.filtering,
        allocation=behaviour.allocation,
        hairpin=behaviour.hairpin,
        answered=tuple(map(str, behaviour.answered)),
        rtt_ms=None if behaviour.rtt_s is None else round(behaviour.rtt_s * 1000, 2),
        discovery=None if behaviour.discovery is None else str(behaviour.discovery),
    )


async def _with_lifetime(family: Family, servers: Collection[TransportAddress], lifetime_s: float) -> Family:
    """``family`` with the lifetime of its mappings, by the first server that can help."""
    import msgspec

    if family.nat is None or (not family.nat.translated and family.nat.filtering == "eif"):
        return family
    waits_s = [wait_s for wait_s in WAITS_S if wait_s < lifetime_s] + [lifetime_s]
    answered = [server for server in servers if str(server) in family.nat.answered]
    answered.sort(key=lambda server: family.nat is not None and str(server) != family.nat.discovery)
    for server in answered:
        found = await discover_lifetime(server, waits_s)
        if found is not None:
            seen = LifetimeSeen(at_least_s=found.at_least_s, below_s=found.below_s)
            return msgspec.structs.replace(family, lifetime=seen)
    return family


async def _hops(servers: Collection[TransportAddress]) -> tuple[str, ...]:
    for server in servers:
        if server.ip.version == 4 and source_for(server) is not None:
            return await first_hops(server)
    return ()


async def _nat64(nics: Collection[Nic]) -> str:
    if any(":" not in address for nic in nics for address in nic.addresses):
        return ""  # with IPv4 nobody needs one
    prefix = await discover_nat64()
    return "" if prefix is None else str(prefix)


async def _portmap(gateways: Sequence[Gateway], watch: _Watch) -> tuple[GatewaySeen, ...] | None:
    if not gateways:
        return ()
    found = await watch.wait("port mapping", discover(gateways, within_s=max(0.1, watch.left_s - _RESERVE_S)), None)
    if found is None:
        return None
    return tuple(
        GatewaySeen(address=str(one.gateway.address), protocol=one.protocol, detail=one.detail) for one in found
    )


def _proxy(stated: str | None) -> str:
    """The proxy that is used for HTTPS, without a password."""
    url = getproxies_environment().get("https", "") if stated is None else stated
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""
    except ValueError:
        return "one whose address does not parse"
