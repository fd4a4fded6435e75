"""What will be where when a scene is built: addresses, interfaces, and which host uses which uplink. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from warren.lab.scene import Scene, SceneSite
from warren.lab.site import FIRST_HOST, Access, Version, outside_families

_METRIC_STEP: Final = 100
_FIRST_NETWORK: Final = 77
"""10.77.0.0/16, 10.78.0.0/16 … are the IPv4 ranges of networks that say none."""


@dataclass(frozen=True, slots=True)
class PlannedServer:
    name: str
    addresses: tuple[str, ...]
    roles: tuple[str, ...]
    """``coordinator``, ``relay``, ``relay (coturn)``."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A host's way to one site. The smallest ``metric`` counts; None is the least."""

    host: str
    interface: str
    addresses: tuple[str, ...]
    metric: int | None


@dataclass(frozen=True, slots=True)
class PlannedSite:
    name: str
    kind: str
    """As the scene calls it; empty: by its parts."""
    behaviour: str
    addresses: tuple[str, ...]
    """The public ones of its outermost router."""
    prefixes: tuple[str, ...]
    gateway: tuple[str, ...]
    link: str
    """What the cable to the Internet does to packets; empty: nothing."""
    uplinks: tuple[Uplink, ...]


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    name: str
    ipv4: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    name: str
    description: str
    servers: tuple[PlannedServer, ...]
    sites: tuple[PlannedSite, ...]
    urls: tuple[str, ...]
    """Of the coordinator; empty: there is none."""
    networks: tuple[PlannedNetwork, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Everything that has a name to run programs on: servers, hosts, and the routers of sites."""
        hosts = dict.fromkeys(uplink.host for site in self.sites for uplink in site.uplinks)
        return (*(server.name for server in self.servers), *hosts)

    @property
    def members(self) -> tuple[str, ...]:
        """Of any network, each once."""
        return tuple(dict.fromkeys(member for network in self.networks for member in network.members))


def plan(scene: Scene) -> Plan:
    """The same for the same scene, always. Servers are attached first, then sites, in the order of the scene."""
    servers = []
    urls: tuple[str, ...] = ()
    for number, server in enumerate(scene.servers, 1):
        addresses = _addresses(Access(number), server.families)
        roles = ("coordinator",) if server.name == scene.coordinator else ()
        if server.name == scene.coordinator:
            urls = tuple(f"https://{_bracketed(address)}:{scene.coordinator_port}" for address in addresses)
        relay = {None: (), "warren": ("relay",), "coturn": ("relay (coturn)",)}[server.relay]
        servers.append(PlannedServer(server.name, addresses, (*roles, *relay)))
    sites = [_site(scene, site, Access(number)) for number, site in enumerate(scene.sites, len(servers) + 1)]
    networks = tuple(
        PlannedNetwork(network.name, network.ipv4 or f"10.{_FIRST_NETWORK + number}.0.0/16", network.members)
        for number, network in enumerate(scene.networks)
    )
    return Plan(scene.name, scene.description, tuple(servers), tuple(sites), urls, networks)


def _site(scene: Scene, site: SceneSite, access: Access) -> PlannedSite:
    prefix4, prefix6 = access.inside(site.kind, site.lan)
    prefixes = [prefix for prefix in (prefix4, prefix6) if prefix is not None]
    uplinks = []
    for number, host in enumerate(site.hosts):
        place = scene.sites_of(host).index(site)
        addresses = tuple(str(prefix[FIRST_HOST + number]) for prefix in prefixes)
        uplinks.append(Uplink(host, f"eth{place}", addresses, place * _METRIC_STEP or None))
    return PlannedSite(
        site.name,
        site.kind_name,
        str(site.kind),
        _addresses(access, outside_families(site.kind)),
        tuple(map(str, prefixes)),
        site.gateway,
        "" if site.link is None else str(site.link),
        tuple(uplinks),
    )


def _addresses(access: Access, families: str) -> tuple[str, ...]:
    versions: tuple[Version, ...] = (4, 6)
    return tuple(access.customer(version) for version in versions if str(version) in families)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
