"""The names of a network: what its documents say, as a zone to answer from; pure.

A member is ``NODE.NETWORK.SUFFIX``, a service ``SERVICE.svc.NETWORK.SUFFIX``, with an address at each member that is to
serve it. Addresses lead back to these names: the reverse zones are those of the network's own prefixes, never those of
subnets behind members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from itertools import chain
from typing import Final

from warren.model.documents import NetworkSpec
from warren.model.members import Member
from warren.model.parts import canonical_network
from warren.model.services import SERVICE_LABEL
from warren.model.serving import service_addresses
from warren.model.tunnel import IPAddress, IPNetwork

NAME_CHARACTERS_MAX: Final = 253
"""Without the final dot (RFC 1035 §2.3.4: 255 bytes on the wire)."""
SERVICE_RECORDS_MAX: Final = 256
"""Addresses in one answer, 7 KB of it by TCP: whoever cannot connect to that many will not to more."""


@dataclass(frozen=True, slots=True)
class Zone:
    """The names of one network, in lower case and without the final dot."""

    origin: str
    """``NETWORK.SUFFIX``."""
    addresses: Mapping[str, tuple[IPAddress, ...]] = field(default_factory=dict)
    """By full name, the IPv6 address first."""
    reverse: tuple[str, ...] = ()
    """Origins of the reverse zones."""
    pointers: Mapping[str, str] = field(default_factory=dict)
    """Full names by reverse name."""
    left_out: tuple[str, ...] = ()
    """Members, and services as ``SERVICE.svc``, whose full name would be too long for DNS."""

    @property
    def domains(self) -> tuple[str, ...]:
        """All names this zone answers for end in one of these."""
        return (self.origin, *self.reverse)


def records(spec: NetworkSpec, members: Iterable[Member]) -> Zone:
    """The zone of a network with these members (the live ones). Of two with one name the lower address counts. A
    service that none of them serves has no name.
    """
    origin = f"{spec.name}.{spec.suffix}".lower()
    addresses: dict[str, tuple[IPAddress, ...]] = {}
    pointers: dict[str, str] = {}
    left_out = []
    ordered = sorted(members, key=lambda one: one.prefix6)
    for member in ordered:
        name = f"{member.name}.{origin}"
        if len(name) > NAME_CHARACTERS_MAX:
            left_out.append(member.name)
        elif name not in addresses:
            own = (member.address6,) if member.address4 is None else (member.address6, member.address4)
            addresses[name] = own
            pointers.update((address.reverse_pointer, name) for address in own)
    for service, places in _served(spec, ordered).items():
        name = f"{service}.{SERVICE_LABEL}.{origin}"
        if len(name) > NAME_CHARACTERS_MAX:
            left_out.append(f"{service}.{SERVICE_LABEL}")
        else:
            addresses[name] = tuple(places[:SERVICE_RECORDS_MAX])
            pointers.update((address.reverse_pointer, name) for address in places)
    prefixes = [canonical_network(prefix) for prefix in (spec.prefix6, spec.prefix4) if prefix is not None]
    reverse = tuple(chain.from_iterable(reverse_zones(prefix) for prefix in prefixes))
    return Zone(origin, addresses, reverse, pointers, tuple(left_out))


def _served(spec: NetworkSpec, members: Sequence[Member]) -> Mapping[str, list[IPv6Address]]:
    """The addresses of each service, in the order of ``members``."""
    found: dict[str, list[IPv6Address]] = {}
    for address, service in service_addresses(spec.services, members).items():
        found.setdefault(service.name, []).append(address)
    return found


def reverse_zones(network: IPNetwork) -> tuple[str, ...]:
    """Origins of the zones that hold the reverse names of ``network`` and no others (RFC 1035 §3.5, RFC 3596 §2.5).

    Where the prefix ends inside a label (a nibble or an octet) these are several, at most 128.
    """
    step, labels = (8, 4) if isinstance(network, IPv4Network) else (4, 32)
    length = -(-network.prefixlen // step) * step
    subnets: Iterable[IPv4Network | IPv6Network] = network.subnets(new_prefix=length)
    unused = labels - length // step
    return tuple(one.network_address.reverse_pointer.split(".", unused)[-1] for one in subnets)
