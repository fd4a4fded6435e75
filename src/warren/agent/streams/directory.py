"""One network as streams see it: who is called what, who serves what, and what its policy lets this node do; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from warren.agent.network.desired import State, Wanted
from warren.agent.streams.order import Near, Nearness, ordered
from warren.l4.config import Ruled
from warren.model.documents import NetworkSpec
from warren.model.members import Member
from warren.model.policy import Flow, Judge, ResolvedRule, resolve
from warren.model.services import SERVICE_LABEL, Service
from warren.model.serving import service_named, serving
from warren.model.tunnel import IPAddress, IPNetwork

Protocol = Literal["tcp", "udp"]


@dataclass(frozen=True)
class Directory:
    """What follows from the documents alone; worth keeping as long as they stay the same."""

    network: str
    """The network's name."""
    state: State
    spec: NetworkSpec
    own: Member
    members: tuple[Member, ...]
    """The live ones, this node among them; none while its own lease has ended."""
    peers: Mapping[bytes, tuple[IPNetwork, ...]]
    """What is sent to each other member."""
    _holders: dict[IPAddress, Member | None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, network: str, wanted: Wanted, own: Member | None) -> Directory | None:
        """None: nothing can be said yet, or any more."""
        if wanted.spec is None or own is None or wanted.state in {"starting", "revoked"}:
            return None
        allowed = {node: peer.allowed_ips for node, peer in wanted.peers.items()}
        return cls(network, wanted.state, wanted.spec, own, wanted.members, allowed)

    @cached_property
    def _by_name(self) -> Mapping[str, Member]:
        return {member.name: member for member in self.members}

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.spec.policy, self.members, self.spec.services)

    @cached_property
    def prefixes(self) -> tuple[IPNetwork, ...]:
        """The network's own."""
        found: list[IPNetwork] = [IPv6Network(self.spec.prefix6)]
        if self.spec.prefix4 is not None:
            found.append(IPv4Network(self.spec.prefix4))
        return tuple(found)

    @cached_property
    def behind(self) -> tuple[IPNetwork, ...]:
        """Subnets that are reached through members."""
        return tuple(
            network
            for networks in self.peers.values()
            for network in networks
            if not any(_within(network, prefix) for prefix in self.prefixes)
        )

    def labels(self, name: str) -> tuple[str, ...]:
        """What is before the network's name in ``name``: ``db`` for ``db``, ``db.home`` and ``db.home.internal``; none
        when it is a name of something else.
        """
        name = name.rstrip(".").lower()
        for tail in (f".{self.network}.{self.spec.suffix}", f".{self.network}"):
            if name.endswith(tail):
                name = name.removesuffix(tail)
                break
        labels = tuple(name.split("."))
        return labels if len(labels) == 1 or (len(labels) == 2 and labels[1] == SERVICE_LABEL) else ()

    def is_full(self, name: str) -> bool:
        """Whether ``name`` ends in the network's domain."""
        return name.rstrip(".").lower().endswith(f".{self.network}.{self.spec.suffix}")

    def member(self, name: str) -> Member | None:
        labels = self.labels(name)
        return self._by_name.get(labels[0]) if len(labels) == 1 else None

    def service(self, name: str) -> Service | None:
        """Of ``NAME.svc…``, or of ``NAME`` where no member has that name."""
        labels = self.labels(name)
        if not labels or (len(labels) == 1 and labels[0] in self._by_name):
            return None
        return service_named(self.spec, labels[0])

    def addresses(self, name: str, near: Near) -> tuple[str, ...]:
        """Of the member or the service called ``name``, the best first; none: nobody is called so, or serves it."""
        member, service = self.member(name), self.service(name)
        if member is not None:
            return tuple(str(ip) for ip in (member.address6, member.address4) if ip is not None)
        if service is None:
            return ()
        members = ordered(self.serving(service.name), near)
        return tuple(str(one.service_address(service.name)) for one in members)

    def serving(self, service: str) -> tuple[Member, ...]:
        return serving(self.spec, self.members, service)

    def holder(self, address: IPAddress) -> Member | None:
        """The live member that ``address`` is of, or that it is behind."""
        if address not in self._holders:
            self._holders[address] = self._holder(address)
        return self._holders[address]

    def _holder(self, address: IPAddress) -> Member | None:
        for member in self.members:
            if address in member.prefix6 or address == member.address4:
                return member
        best: tuple[int, Member | None] = (-1, None)
        for member in self.members:
            for network in self.peers.get(member.membership.node, ()):
                if network.version == address.version and address in network and network.prefixlen > best[0]:
                    best = (network.prefixlen, member)
        return best[1]

    def has(self, address: IPAddress) -> bool:
        """Whether ``address`` is of the overlay, or behind a member."""
        return any(address in prefix for prefix in (*self.prefixes, *self.behind))

    def is_own(self, address: IPAddress) -> bool:
        """Whether it is this node's, of a service or not."""
        return address in self.own.prefix6 or (self.spec.prefix4 is not None and address == self.own.address4)

    @cached_property
    def _rules(self) -> tuple[ResolvedRule, ...]:
        return resolve(self.spec, self.members)

    def clients(self, address: IPv6Address, protocol: Protocol, port: int) -> tuple[Ruled, ...]:
        """Whom the policy lets reach this node there, itself first."""
        found = [Ruled(allow=True, sources=(str(self.own.prefix6),))]
        for rule in self._rules:
            if (
                rule.protocol in {"any", protocol}
                and (not rule.ports or any(low <= port <= high for low, high in rule.ports))
                and any(address in network for network in rule.destinations)
            ):
                sources = tuple(str(network) for network in rule.sources if network.version == 6)
                found.append(Ruled(allow=rule.action == "allow", sources=sources))
        return tuple(found)

    def permits(self, source: IPAddress, destination: IPAddress, protocol: Protocol, port: int) -> bool:
        """Whether the policy lets ``source`` open that; between members, whatever lies in between."""
        return self._judge.verdict(Flow(source, destination, protocol, port)).allowed

    def objection(self, destination: IPAddress, protocol: Protocol, port: int) -> str:
        """Why the policy does not let this node reach it; empty: it does."""
        source = self.own.address6 if destination.version == 6 else self.own.address4
        if source is None:
            return f"this node has no IPv4 address in {self.network}"
        answer = self._judge.verdict(Flow(source, destination, protocol, port))
        if answer.allowed:
            return ""
        which = "no rule allows it" if answer.rule is None else f"rule {answer.rule + 1} denies it"
        return f"the policy of {self.network} does not let this node reach {destination} at {protocol}/{port}: {which}"


def _anywhere(_: bytes) -> Nearness:
    return Nearness()


@dataclass(frozen=True, slots=True)
class NetworkView:
    """One network of this node, of this moment."""

    label: str
    """The network's name, with something behind it where two have the same."""
    directory: Directory
    near: Near = _anywhere
    interface: str = ""
    transparent_port: int = 0
    """Where what is meant for subnets behind this node is handed over; 0: the kernel passes it on, as root's do."""


def _within(network: IPNetwork, prefix: IPNetwork) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(prefix, IPv4Network) and network.subnet_of(prefix)
    return isinstance(prefix, IPv6Network) and network.subnet_of(prefix)
