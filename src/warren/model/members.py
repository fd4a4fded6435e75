"""A member of a network in types to work with, and what a document may not claim even when it is signed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from warren.identity.keys import PublicKey
from warren.identity.signing import VerifyKey
from warren.model.addresses import (
    check_address4,
    check_prefix4,
    check_route,
    node_address,
    service_address,
    ula_prefix,
)
from warren.model.documents import Document, Membership, NetworkSpec, NodeRecord, Ticket
from warren.model.parts import canonical_network
from warren.model.tunnel import IPNetwork, TransportAddress


@dataclass(frozen=True)
class Member:
    """A member with what it says of itself, in types to work with."""

    membership: Membership
    record: NodeRecord | None = None

    @cached_property
    def key(self) -> VerifyKey:
        return VerifyKey(self.membership.node)

    @property
    def name(self) -> str:
        return self.membership.name

    @cached_property
    def prefix6(self) -> IPv6Network:
        return IPv6Network(self.membership.prefix6)

    @cached_property
    def address6(self) -> IPv6Address:
        return node_address(self.prefix6)

    @cached_property
    def address4(self) -> IPv4Address | None:
        return None if self.membership.address4 is None else IPv4Address(self.membership.address4)

    def service_address(self, service: str) -> IPv6Address:
        """Where it answers for the service of that name, if it serves it (see :mod:`warren.model.serving`)."""
        return service_address(self.prefix6, service)

    @cached_property
    def own(self) -> tuple[IPNetwork, ...]:
        """What selectors stand for: its /64 and its IPv4 address, never its routes."""
        return (self.prefix6,) if self.address4 is None else (self.prefix6, IPv4Network(self.address4))

    @property
    def tags(self) -> tuple[str, ...]:
        return self.membership.tags

    @cached_property
    def routes(self) -> tuple[IPNetwork, ...]:
        return tuple(canonical_network(route) for route in self.membership.routes)

    @cached_property
    def wireguard_key(self) -> PublicKey | None:
        """None: it has not published a NodeRecord yet."""
        return None if self.record is None else PublicKey(self.record.wireguard_key)

    @cached_property
    def next_wireguard_key(self) -> PublicKey | None:
        """The key it will use next; None: not announced."""
        announced = None if self.record is None else self.record.next_wireguard_key
        return None if announced is None else PublicKey(announced)

    @cached_property
    def candidates(self) -> tuple[TransportAddress, ...]:
        found = () if self.record is None else self.record.candidates
        return tuple(TransportAddress(ip_address(candidate.address), candidate.port) for candidate in found)


def check_within_network(document: Document, network: VerifyKey) -> None:
    """Whether a verified document keeps to what is its network's. Raises ValueError, saying what is not.

    A node may be in several networks whose authorities do not trust each other: none may take the addresses of
    another, of the host, or of the Internet, whatever it signs.
    """
    own = ula_prefix(network)
    match document:
        case NetworkSpec():
            if document.prefix6 != str(own):
                raise ValueError(f"{document.prefix6} is not the prefix of this network, {own}")
            if document.prefix4 is not None:
                check_prefix4(IPv4Network(document.prefix4))
        case Membership():
            prefix = IPv6Network(document.prefix6)
            if not prefix.subnet_of(own) or prefix.network_address == own.network_address:
                raise ValueError(f"{prefix} is not the prefix of a node in {own}")
            if document.address4 is not None:
                check_address4(IPv4Address(document.address4))
            for route in map(canonical_network, document.routes):
                check_route(route)
                if isinstance(route, IPv6Network) and route.overlaps(own):
                    raise ValueError(f"the route {route} has addresses of the network itself in it")
        case Ticket():
            raise ValueError("a ticket is a secret and no part of a map")
        case _:
            pass
