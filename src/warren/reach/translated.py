"""Addresses of IPv4 as a host without IPv4 writes them: behind a NAT64 (RFC 6052)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.paths.pairing import target
from warren.paths.values import Base, Surroundings
from warren.reach.relay_values import RelayPlace

_FROM: Final = Base(kind="host", address=IPv6Address("::"))


def translated(remotes: Iterable[TransportAddress], around: Surroundings) -> list[TransportAddress]:
    """Where to connect to in order to get to ``remotes``; behind a NAT64 those that it leads nowhere are left out."""
    if around.nat64 is None:
        return list(remotes)
    return [there for one in remotes if (there := target(_FROM, one, around)) is not None]


def translated_places(places: Sequence[RelayPlace], around: Surroundings) -> list[RelayPlace]:
    """Relays by their addresses of IPv4 first, as the NAT64 has them: so a relay sees which address that gives us."""
    if around.nat64 is None:
        return list(places)
    return [replace(place, hosts=tuple(_hosts(place.hosts, around))) for place in places]


def _hosts(hosts: Sequence[str], around: Surroundings) -> list[str]:
    ours: list[tuple[bool, str]] = []
    for host in hosts:
        try:
            remote = TransportAddress(ip_address(host), 1)
        except ValueError:  # a name: DNS64 knows
            ours.append((True, host))
            continue
        ours += [(remote.ip.version == 6, str(one.ip)) for one in translated([remote], around)]
    return [host for _, host in sorted(ours, key=lambda one: one[0])]
