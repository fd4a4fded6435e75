"""What the host's interfaces say: where this node can be reached, what it can reach, and what goes into the inventory.

Pure: from what the netlink door lists to values. Left out of what others are told are the overlays' own interfaces and
addresses, those that the operator ignores, link-local and loopback addresses, and what the kernel calls temporary,
deprecated or not usable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address
from typing import Literal

from warren.agent.config import AgentConfig
from warren.agent.stated import Stated
from warren.linux.netlink_values import Address, Link, Route
from warren.model.documents import Candidate
from warren.model.tunnel import IPAddress, IPNetwork
from warren.paths.candidates import Underlay
from warren.paths.nat import OPEN, Situation
from warren.paths.values import RemoteCandidate
from warren.proto.control.messages import Interface

Reachability = Literal["unknown", "hidden", "hidden-dual-stack", "public"]

CANDIDATES_MAX = 64
_INTERFACES_MAX = 64
_MTU_USUAL, _MTU_LEAST = 1420, 1280
_OVERHEAD_BYTES = 80  # IPv6 header, UDP, and WireGuard's 32


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The host's network configuration at one moment, the overlays' own interfaces taken out."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    nat64: IPv6Network | None = None

    @classmethod
    def of(
        cls,
        links: Iterable[Link],
        addresses: Iterable[Address],
        routes: Iterable[Route],
        overlays: Collection[str],
        nat64: IPv6Network | None = None,
    ) -> Surroundings:
        """``overlays`` are the names of our own interfaces."""
        ours = {*overlays, "lo"}
        return cls(
            tuple(link for link in links if link.name not in ours),
            tuple(address for address in addresses if address.interface not in ours),
            tuple(route for route in routes if route.interface not in ours),
            nat64,
        )

    def on_link(self) -> tuple[IPNetwork, ...]:
        """The prefixes of the links that the host is on, each once; link-local ones left out."""
        networks = (address.value.network for address in self.usable())
        return tuple(dict.fromkeys(network for network in networks if network.prefixlen < network.max_prefixlen))

    def underlay(self) -> Underlay:
        versions = {address.value.version for address in self.usable()}
        return Underlay(4 in versions, 6 in versions, self.nat64, self.on_link())

    def mtu(self) -> int:
        """The MTU of an overlay's interface (bytes): what fits the links out of here."""
        ways = {route.interface for route in self.routes if route.network.prefixlen == 0}
        mtus = [link.mtu for link in self.links if link.up and (link.name in ways or not ways)]
        return max(_MTU_LEAST, min(_MTU_USUAL, min(mtus, default=1500) - _OVERHEAD_BYTES))

    def usable(self) -> list[Address]:
        """Addresses of links that are up, but for loopback and link-local ones."""
        up = {link.name for link in self.links if link.up}
        return [
            address
            for address in self.addresses
            if address.interface in up and not (address.value.is_loopback or address.value.is_link_local)
        ]

    def offered(self, config: AgentConfig) -> list[IPAddress]:
        """The addresses at which others may find this host, IPv6 and global ones first."""
        found = [
            address.value.ip for address in self.usable() if address.lasting and not config.ignores(address.interface)
        ]
        return sorted(dict.fromkeys(found), key=lambda ip: (not ip.is_global, ip.version == 4))


def candidates(
    surroundings: Surroundings, config: AgentConfig, listen_port: int, overlays: Iterable[IPNetwork]
) -> tuple[Candidate, ...]:
    """Of this node, the stated ones first. Addresses inside ``overlays`` are left out: there lies the tunnel itself."""
    inside = tuple(overlays)
    found: dict[tuple[str, int], Candidate] = {}
    for stated in config.stated.addresses:
        place = stated.at(listen_port)
        found[str(place.ip), place.port] = Candidate(kind="stated", address=str(place.ip), port=place.port)
    for ip in surroundings.offered(config):
        key = str(ip), listen_port
        if key not in found and not any(ip in network for network in inside):
            found[key] = Candidate(kind="host", address=str(ip), port=listen_port)
    return tuple(found.values())[:CANDIDATES_MAX]


def outside(theirs: Iterable[RemoteCandidate], overlays: Iterable[IPNetwork]) -> tuple[RemoteCandidate, ...]:
    """A peer's candidates without those inside ``overlays``: its packets must not be sent into a tunnel again."""
    inside = tuple(overlays)
    return tuple(one for one in theirs if not any(one.address.ip in network for network in inside))


def interfaces(surroundings: Surroundings) -> tuple[Interface, ...]:
    """For the inventory (R18)."""
    addresses: dict[str, list[str]] = {}
    for address in surroundings.addresses:
        if not address.value.is_link_local:
            addresses.setdefault(address.interface, []).append(str(address.value))
    return tuple(
        Interface(name=link.name, mac=link.mac, addresses=tuple(addresses.get(link.name, ())[:64]), up=link.up)
        for link in surroundings.links
        if link.mac or link.name in addresses
    )[:_INTERFACES_MAX]


def own_places(offered: Iterable[Candidate]) -> tuple[IPAddress, ...]:
    """The addresses at which programs of this node are reached: those at relays are the relays'."""
    return tuple(ip_address(one.address) for one in offered if one.kind != "relay")


def reachability(
    surroundings: Surroundings, config: AgentConfig, observed: IPAddress | None, found: Situation | None = None
) -> Reachability:
    """How this node is connected. Stated addresses are taken at their word; else counts what relays ``found``: whom
    they reach unasked is public. Without any, a coordinator that sees a global IPv4 address which is not the host's
    sees a NAT.
    """
    if config.stated.addresses:
        return "public"
    offered = surroundings.offered(config)
    if found is not None and (found.v4 is not None or found.v6 is not None):
        if OPEN in {found.v4, found.v6}:
            return "public"
        return "hidden-dual-stack" if found.v6 is not None else "hidden"
    if observed is not None and observed.version == 4 and observed.is_global and observed not in offered:
        return "hidden-dual-stack" if any(ip.version == 6 and ip.is_global for ip in offered) else "hidden"
    return "unknown"


def disagreements(stated: Stated, surroundings: Surroundings, observed: IPAddress | None) -> tuple[str, ...]:
    """Where the operator's word and what is seen differ, a sentence each (R11). ``observed`` is the address that the
    coordinator sees.
    """
    found = []
    own = {address.value.ip for address in surroundings.addresses}
    own_or_observed = own | ({observed} if observed else set())
    for version in (4, 6):
        addresses = [address.ip for address in stated.addresses if address.ip.version == version]
        seen = [ip for ip in own_or_observed if ip.version == version and ip.is_global] or (
            [observed] if observed and observed.version == version else []
        )
        if addresses and seen and own_or_observed.isdisjoint(addresses):
            found.append(_differ("address", addresses, sorted(seen, key=str)))
    gateways = {route.gateway for route in surroundings.routes if route.network.prefixlen == 0 and route.gateway}
    if stated.gateway is not None:
        same = {gateway for gateway in gateways if gateway.version == stated.gateway.version}
        if same and stated.gateway not in same:
            found.append(_differ("gateway", [stated.gateway], sorted(same, key=str)))
    if stated.segment is not None:
        links = [network for network in surroundings.on_link() if network.version == stated.segment.version]
        if links and stated.segment not in links:
            found.append(_differ("segment", [stated.segment], links))
    return tuple(found)


def _differ(what: str, stated: Iterable[object], seen: Iterable[object]) -> str:
    said, found = (", ".join(map(str, values)) for values in (stated, seen))
    return f"stated {what} {said}, observed {found}: correct [public] in agent.toml unless you know better"
