"""What a policy means: which flow between members passes. The reference that every enforcement is held against.

The first rule that matches decides; without one nothing passes. A flow has a direction: replies belong to the flow that
they answer. Selectors stand for members' *own* addresses (their /64 and their IPv4 address), never for the subnets
behind them, which only a rule with their prefix reaches. ``service:NAME`` stands for the addresses at which members
serve it, which lie in their /64s.

What a rule with ports says of a service's port it says of the ports from 49152 on at the same addresses too, whether it
allows or denies: there its helper takes data connections (:data:`~warren.model.services.DATA_PORTS`), and there
connectors come in (:data:`~warren.model.services.CONNECTOR_PORT`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network
from typing import Final, Literal

from warren.model.addresses import service_interface_id
from warren.model.documents import NetworkSpec, Rule
from warren.model.members import Member
from warren.model.parts import canonical_network, port_range
from warren.model.services import CONNECTOR_PORT, DATA_PORTS, Service
from warren.model.serving import selected, service_addresses
from warren.model.tunnel import IPAddress, IPNetwork

SERVICE_PORTS: Final = (DATA_PORTS[0], CONNECTOR_PORT)
"""At the address of a service: judged as the service's own port is."""
_INTERFACE_ID: Final = (1 << 64) - 1

DEFAULT_POLICY: Final[tuple[Rule, ...]] = (
    Rule(action="allow", sources=("members",), destinations=("members",), comment="members reach each other"),
)
"""What a fresh network starts with: one rule, there to be seen and changed."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, or an exchange of datagrams, as whoever opens it sees it."""

    source: IPAddress
    destination: IPAddress
    protocol: Literal["tcp", "udp", "icmp"]
    port: int | None = None
    """The destination's; None: it has none or it is not known, and rules with ports do not match."""


@dataclass(frozen=True, slots=True)
class Verdict:
    allowed: bool
    rule: int | None
    """Which rule decided, counted from 0; None: none matched, and so nothing passes."""


@dataclass(frozen=True, slots=True)
class ResolvedRule:
    """A rule with its selectors replaced by prefixes: sorted, none within another, at least one on either side."""

    index: int
    """Of the rule in the policy, from 0."""
    action: Literal["allow", "deny"]
    sources: tuple[IPNetwork, ...]
    destinations: tuple[IPNetwork, ...]
    protocol: Literal["any", "tcp", "udp", "icmp"]
    ports: tuple[tuple[int, int], ...]
    """First and last; empty: all."""


def verdict(spec: NetworkSpec, members: Iterable[Member], flow: Flow) -> Verdict:
    """Whether ``flow`` passes among ``members`` (the live ones), and by which rule."""
    return Judge(spec.policy, members, spec.services).verdict(flow)


class Judge:
    """A policy ready for many questions about ``members`` (the live ones) and the network's ``services``."""

    def __init__(self, policy: Sequence[Rule], members: Iterable[Member], services: Iterable[Service]) -> None:
        self._rules = tuple((rule, tuple(port_range(ports) for ports in rule.ports)) for rule in policy)
        self._owners: dict[IPv6Network | IPv4Address, list[Member]] = {}
        self._prefixes: dict[str, IPNetwork] = {}
        self._services = _by_interface_id(services)
        for member in members:
            self._owners.setdefault(member.prefix6, []).append(member)
            if member.address4 is not None:
                self._owners.setdefault(member.address4, []).append(member)

    def verdict(self, flow: Flow) -> Verdict:
        if flow.source.version != flow.destination.version:
            return Verdict(allowed=False, rule=None)  # no such packet exists
        sources, destinations = self._owners_of(flow.source), self._owners_of(flow.destination)
        service = self._service_at(flow.destination, destinations)
        asked = _ports_asked(flow, service)
        for index, (rule, ports) in enumerate(self._rules):
            if (
                rule.protocol in {"any", flow.protocol}
                and (not ports or any(low <= port <= high for low, high in ports for port in asked))
                and any(self._selects(selector, flow.source, sources) for selector in rule.sources)
                and any(
                    (service is not None and selector == f"service:{service.name}")
                    or self._selects(selector, flow.destination, destinations)
                    for selector in rule.destinations
                )
            ):
                return Verdict(rule.action == "allow", index)
        return Verdict(allowed=False, rule=None)

    def _owners_of(self, address: IPAddress) -> Sequence[Member]:
        own = address if isinstance(address, IPv4Address) else IPv6Network((int(address) >> 64 << 64, 64))
        return self._owners.get(own, ())

    def _service_at(self, address: IPAddress, owners: Sequence[Member]) -> Service | None:
        """The service that one of ``owners`` serves at ``address``."""
        if address.version == 4 or not owners:
            return None
        found = self._services.get(int(address) & _INTERFACE_ID, ())
        return next((service for service in found if selected(service.at, owners)), None)

    def _selects(self, selector: str, address: IPAddress, owners: Sequence[Member]) -> bool:
        kind, _, name = selector.partition(":")
        if kind == "members":
            return bool(owners)
        if kind == "member":
            return any(member.name == name for member in owners)
        if kind == "tag":
            return any(name in member.tags for member in owners)
        if kind == "service":
            return False
        prefix = self._prefixes.get(selector)
        if prefix is None:
            prefix = self._prefixes[selector] = canonical_network(selector)
        return address in prefix


def _by_interface_id(services: Iterable[Service]) -> Mapping[int, Sequence[Service]]:
    """More than one only where hashes collide; at a member that serves several of them the first has the address."""
    found: dict[int, list[Service]] = {}
    for service in services:
        found.setdefault(service_interface_id(service.name), []).append(service)
    return found


def _ports_asked(flow: Flow, service: Service | None) -> tuple[int, ...]:
    """The ports of which a rule may speak to match."""
    if flow.port is None:
        return ()
    if service is None or flow.protocol != service.protocol or flow.port < SERVICE_PORTS[0]:
        return (flow.port,)
    return flow.port, service.overlay_port


# Prefixes


def resolve(spec: NetworkSpec, members: Iterable[Member]) -> tuple[ResolvedRule, ...]:
    """The policy with prefixes in place of selectors, for ``members`` (the live ones), in order.

    A rule that cannot match (nobody has the tag, or both sides have no address family in common) is left out; so
    where an enforcement reads a rule without prefixes as one for all, none is opened up. One that speaks of the ports
    of services is followed by another of the same index about their ports from 49152 on.
    """
    return tuple(_resolved(spec.policy, _Selected(members, spec.services)))


def _resolved(policy: Iterable[Rule], known: _Selected) -> Iterator[ResolvedRule]:
    for index, rule in enumerate(policy):
        sources, destinations = known.prefixes(rule.sources), known.prefixes(rule.destinations)
        if not _have_a_version_in_common(sources, destinations):
            continue
        ports = tuple(port_range(text) for text in rule.ports)
        yield ResolvedRule(index, rule.action, sources, destinations, rule.protocol, ports)
        if rule.protocol in {"tcp", "udp"} and ports:
            served = known.services_within(rule.destinations, rule.protocol, ports)
            if _have_a_version_in_common(sources, served):
                yield ResolvedRule(index, rule.action, sources, served, rule.protocol, (SERVICE_PORTS,))


def _have_a_version_in_common(one: Iterable[IPNetwork], other: Iterable[IPNetwork]) -> bool:
    return bool({network.version for network in one} & {network.version for network in other})


class _Selected:
    """What selectors stand for, worked out once for each."""

    def __init__(self, members: Iterable[Member], services: Iterable[Service]) -> None:
        self._by_selector: dict[str, list[IPNetwork]] = {}
        self._merged: dict[tuple[str, ...], tuple[IPNetwork, ...]] = {}
        self._members = tuple(members)
        self._services = tuple(services)
        self._served: dict[str, tuple[IPNetwork, ...]] | None = None
        self._within: dict[tuple[tuple[str, ...], str], list[IPNetwork]] = {}
        self._high: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[IPNetwork, ...]] = {}
        for member in self._members:
            for selector in ("members", f"member:{member.name}", *(f"tag:{tag}" for tag in member.tags)):
                self._by_selector.setdefault(selector, []).extend(member.own)

    def prefixes(self, selectors: tuple[str, ...]) -> tuple[IPNetwork, ...]:
        merged = self._merged.get(selectors)
        if merged is None:
            merged = self._merged[selectors] = without_nested(
                network for selector in selectors for network in self._of(selector)
            )
        return merged

    def services_within(
        self, selectors: tuple[str, ...], protocol: str, ports: tuple[tuple[int, int], ...]
    ) -> tuple[IPNetwork, ...]:
        """The addresses of services of that ``protocol`` and one of those ``ports`` that ``selectors`` stand for."""
        names = tuple(
            service.name
            for service in self._services
            if service.protocol == protocol and any(low <= service.overlay_port <= high for low, high in ports)
        )
        found = self._high.get((selectors, names))
        if found is None:
            found = without_nested(one for name in names for one in self._served_within(selectors, name))
            self._high[selectors, names] = found
        return found

    def _served_within(self, selectors: tuple[str, ...], service: str) -> list[IPNetwork]:
        found = self._within.get((selectors, service))
        if found is None:
            found = _within(self._addresses(service), self.prefixes(selectors))
            self._within[selectors, service] = found
        return found

    def _of(self, selector: str) -> Iterable[IPNetwork]:
        if selector == "members" or selector.startswith(("member:", "tag:")):
            return self._by_selector.get(selector, ())
        if selector.startswith("service:"):
            return self._addresses(selector.partition(":")[2])
        return (canonical_network(selector),)

    def _addresses(self, service: str) -> tuple[IPNetwork, ...]:
        if self._served is None:
            by_name: dict[str, list[IPNetwork]] = {}
            for address, one in service_addresses(self._services, self._members).items():
                by_name.setdefault(one.name, []).append(IPv6Network((int(address), 128)))
            self._served = {name: tuple(addresses) for name, addresses in by_name.items()}
        return self._served.get(service, ())


def _within(networks: Iterable[IPNetwork], places: Sequence[IPNetwork]) -> list[IPNetwork]:
    """Those in one of ``places``, which are as :func:`without_nested` gives them: the last that does not begin behind a
    network has it in it, or none has.
    """
    starts = [(place.version, int(place.network_address)) for place in places]
    found = []
    for network in networks:
        at = bisect_right(starts, (network.version, int(network.network_address)))
        if at and network.version == places[at - 1].version and network.network_address in places[at - 1]:
            found.append(network)
    return found


def without_nested(networks: Iterable[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Sorted, IPv4 first, and without those that lie within another."""
    # By numbers: networks compare and hash ten times slower, and `members` of a large network are many.
    found = {(n.version, int(n.network_address), n.prefixlen): n for n in networks}
    kept: list[IPNetwork] = []
    version, end = 0, 0  # of the last one kept: all below lies within it
    for key in sorted(found):
        if key[0] == version and key[1] < end:
            continue
        kept.append(found[key])
        version, end = key[0], key[1] + (1 << (32 if key[0] == 4 else 128) - key[2])
    return tuple(kept)
