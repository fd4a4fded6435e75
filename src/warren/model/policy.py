"""What a policy means: which flow between members passes. The reference that every enforcement is held against.

The first rule that matches decides; without one nothing passes. A flow has a direction: replies belong to the flow that
they answer. Selectors stand for members' *own* addresses (their /64 and their IPv4 address), never for the subnets
behind them, which only a rule with their prefix reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network
from typing import Final, Literal

from warren.model.documents import NetworkSpec, Rule
from warren.model.members import Member
from warren.model.parts import canonical_network, port_range
from warren.model.tunnel import IPAddress, IPNetwork

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
    return Judge(spec.policy, members).verdict(flow)


class Judge:
    """A policy ready for many questions."""

    def __init__(self, policy: Sequence[Rule], members: Iterable[Member]) -> None:
        self._rules = tuple((rule, tuple(port_range(ports) for ports in rule.ports)) for rule in policy)
        self._owners: dict[IPv6Network | IPv4Address, list[Member]] = {}
        self._prefixes: dict[str, IPNetwork] = {}
        for member in members:
            self._owners.setdefault(member.prefix6, []).append(member)
            if member.address4 is not None:
                self._owners.setdefault(member.address4, []).append(member)

    def verdict(self, flow: Flow) -> Verdict:
        if flow.source.version != flow.destination.version:
            return Verdict(allowed=False, rule=None)  # no such packet exists
        sources, destinations = self._owners_of(flow.source), self._owners_of(flow.destination)
        for index, (rule, ports) in enumerate(self._rules):
            if (
                rule.protocol in {"any", flow.protocol}
                and (not ports or (flow.port is not None and any(low <= flow.port <= high for low, high in ports)))
                and any(self._selects(selector, flow.source, sources) for selector in rule.sources)
                and any(self._selects(selector, flow.destination, destinations) for selector in rule.destinations)
            ):
                return Verdict(rule.action == "allow", index)
        return Verdict(allowed=False, rule=None)

    def _owners_of(self, address: IPAddress) -> Sequence[Member]:
        own = address if isinstance(address, IPv4Address) else IPv6Network((int(address) >> 64 << 64, 64))
        return self._owners.get(own, ())

    def _selects(self, selector: str, address: IPAddress, owners: Sequence[Member]) -> bool:
        kind, _, name = selector.partition(":")
        if kind == "members":
            return bool(owners)
        if kind == "member":
            return any(member.name == name for member in owners)
        if kind == "tag":
            return any(name in member.tags for member in owners)
        prefix = self._prefixes.get(selector)
        if prefix is None:
            prefix = self._prefixes[selector] = canonical_network(selector)
        return address in prefix


# Prefixes


def resolve(spec: NetworkSpec, members: Iterable[Member]) -> tuple[ResolvedRule, ...]:
    """The policy with prefixes in place of selectors, for ``members`` (the live ones), in order.

    A rule that cannot match (nobody has the tag, or both sides have no address family in common) is left out; so
    where an enforcement reads a rule without prefixes as one for all, none is opened up.
    """
    selected = _Selected(members)
    return tuple(rule for rule in _resolved(spec.policy, selected) if rule is not None)


def _resolved(policy: Iterable[Rule], selected: _Selected) -> Iterator[ResolvedRule | None]:
    for index, rule in enumerate(policy):
        sources, destinations = selected.prefixes(rule.sources), selected.prefixes(rule.destinations)
        if {p.version for p in sources} & {p.version for p in destinations}:
            ports = tuple(port_range(text) for text in rule.ports)
            yield ResolvedRule(index, rule.action, sources, destinations, rule.protocol, ports)


class _Selected:
    """What selectors stand for, worked out once for each."""

    def __init__(self, members: Iterable[Member]) -> None:
        self._by_selector: dict[str, list[IPNetwork]] = {}
        self._merged: dict[tuple[str, ...], tuple[IPNetwork, ...]] = {}
        for member in members:
            for selector in ("members", f"member:{member.name}", *(f"tag:{tag}" for tag in member.tags)):
                self._by_selector.setdefault(selector, []).extend(member.own)

    def prefixes(self, selectors: tuple[str, ...]) -> tuple[IPNetwork, ...]:
        merged = self._merged.get(selectors)
        if merged is None:
            merged = self._merged[selectors] = without_nested(
                network for selector in selectors for network in self._of(selector)
            )
        return merged

    def _of(self, selector: str) -> Iterable[IPNetwork]:
        if selector == "members" or selector.startswith(("member:", "tag:")):
            return self._by_selector.get(selector, ())
        return (canonical_network(selector),)


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
