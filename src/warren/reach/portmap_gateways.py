"""Which gateways there are to ask for ways in, out of what netlink lists."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Network
from typing import Final

from warren.linux.netlink_values import TABLE_MAIN, Address, Link, Route
from warren.model.tunnel import IPAddress
from warren.proto.portmap.values import Gateway

SOURCES6_MAX: Final = 2
"""Of an interface: each address needs a pinhole of its own."""
_LOCAL6: Final = IPv6Network("fc00::/7")


def gateways_of(links: Sequence[Link], addresses: Sequence[Address], routes: Sequence[Route]) -> tuple[Gateway, ...]:
    """The default routers of the main table, seen from the addresses that others reach this host at.

    IPv4: one address for each router, one on its link if there is one. IPv6: the lasting public ones of the interface.
    """
    up = {link.name: link.index for link in links if link.up}
    found: list[Gateway] = []
    for route in routes:
        gateway = route.gateway
        if route.network.prefixlen or gateway is None or route.table != TABLE_MAIN or route.interface not in up:
            continue
        own = [one for one in addresses if one.interface == route.interface and one.value.version == gateway.version]
        found += [Gateway(gateway, up[route.interface], source) for source in _sources(gateway, own)]
    return tuple(dict.fromkeys(found))


def _sources(gateway: IPAddress, own: Sequence[Address]) -> list[IPAddress]:
    usable = [one.value for one in own if one.lasting and not (one.value.is_loopback or one.value.is_link_local)]
    if gateway.version == 4:
        return [one.ip for one in sorted(usable, key=lambda one: gateway not in one.network)][:1]
    return [one.ip for one in usable if one.ip not in _LOCAL6][:SOURCES6_MAX]
