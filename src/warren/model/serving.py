"""Who serves a service and who has a connector, among the members there are; pure.

Selectors of a service's or connector's ``at`` pick members: all of them, one by name, those with a tag, or those whose
own overlay address (not their routes) lies in a prefix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address

from warren.model.documents import NetworkSpec
from warren.model.members import Member
from warren.model.parts import canonical_network
from warren.model.services import Connector, Service
from warren.model.tunnel import IPNetwork


def selected(selectors: Iterable[str], members: Iterable[Member]) -> tuple[Member, ...]:
    """Those of ``members`` that at least one selector picks, in their order."""
    selectors = frozenset(selectors)
    if "members" in selectors:
        return tuple(members)
    prefixes = [canonical_network(one) for one in selectors if not one.startswith(("member:", "tag:"))]
    return tuple(
        member
        for member in members
        if f"member:{member.name}" in selectors
        or any(f"tag:{tag}" in selectors for tag in member.tags)
        or any(_is_in(member, prefix) for prefix in prefixes)
    )


def service_named(spec: NetworkSpec, name: str) -> Service | None:
    return next((service for service in spec.services if service.name == name), None)


def serving(spec: NetworkSpec, members: Iterable[Member], service: str) -> tuple[Member, ...]:
    """Those of ``members`` (the live ones) that serve the service of that name, in their order; nobody serves one that
    is not there. Each is reached at its :meth:`~warren.model.members.Member.service_address`, if it takes it up.
    """
    found = service_named(spec, service)
    return () if found is None else selected(found.at, members)


def services_of(spec: NetworkSpec, member: Member) -> tuple[Service, ...]:
    """What ``member`` is to serve."""
    return tuple(service for service in spec.services if selected(service.at, (member,)))


def connectors_of(spec: NetworkSpec, member: Member) -> tuple[Connector, ...]:
    """What ``member`` is to take streams for."""
    return tuple(connector for connector in spec.connectors if selected(connector.at, (member,)))


def service_addresses(services: Iterable[Service], members: Iterable[Member]) -> Mapping[IPv6Address, Service]:
    """Each address at which a service is served by one of ``members``."""
    members = tuple(members)
    found: dict[IPv6Address, Service] = {}
    for service in services:
        for member in selected(service.at, members):
            found.setdefault(member.service_address(service.name), service)  # the first of two whose hashes collide
    return found


def _is_in(member: Member, prefix: IPNetwork) -> bool:
    """An address is in no prefix of the other IP version."""
    return member.address6 in prefix or (member.address4 is not None and member.address4 in prefix)
