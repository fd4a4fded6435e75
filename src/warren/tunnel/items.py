"""What a tunnel puts into the host besides its interface, one value per thing; also how the journal writes them.

:class:`~warren.linux.netlink_values.Address`, ``Route`` and ``Rule`` are the kernel's own words; the rest is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from warren.linux.netlink_values import Address, Route, Rule
from warren.model.tunnel import IPAddress


@dataclass(frozen=True, slots=True)
class Mtu:
    """The MTU of the interface, in bytes."""

    interface: str
    value: int

    def __str__(self) -> str:
        return f"MTU {self.value} of {self.interface}"


@dataclass(frozen=True, slots=True)
class Up:
    """The interface is up."""

    interface: str

    def __str__(self) -> str:
        return f"{self.interface} up"


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting."""

    name: str
    """Its path below ``/proc/sys``."""
    value: str
    previous: str = field(default="", compare=False)
    """What it was before; empty: not known, so it stays."""

    def __str__(self) -> str:
        return f"sysctl {self.name.replace('/', '.')}={self.value}"


@dataclass(frozen=True, slots=True)
class Firewall:
    """The nftables table of the default-route method (:mod:`warren.tunnel.firewall`), for IPv4 or IPv6."""

    interface: str
    version: int
    mark: int
    addresses: tuple[IPAddress, ...]

    def __str__(self) -> str:
        return f"nftables table {'ip' if self.version == 4 else 'ip6'} warren-{self.interface}"


@dataclass(frozen=True, slots=True)
class Dns:
    """The name servers that this host asks while the tunnel is up, and the domains it tries names in."""

    interface: str
    servers: tuple[IPAddress, ...]
    search: tuple[str, ...]

    def __str__(self) -> str:
        search = f" search {' '.join(self.search)}" if self.search else ""
        return f"DNS {' '.join(str(server) for server in self.servers)}{search} by {self.interface}"


Item = Address | Mtu | Up | Route | Sysctl | Firewall | Rule | Dns


def pack(items: Iterable[Item]) -> list[dict[str, Any]]:
    """The items as JSON values; MTU and Up are left out, since they end with the interface."""
    return [packed for item in items if (packed := _pack(item))]


def _pack(item: Item) -> dict[str, Any]:
    match item:
        case Address(interface, value):
            return {"kind": "address", "interface": interface, "value": str(value)}
        case Route(network, interface, table):
            return {"kind": "route", "network": str(network), "interface": interface, "table": table}
        case Rule(version, priority, table, fwmark, inverted, suppress):
            return {
                "kind": "rule",
                "version": version,
                "priority": priority,
                "table": table,
                "fwmark": fwmark,
                "inverted": inverted,
                "suppress_prefixlength": suppress,
            }
        case Sysctl(name, value, previous):
            return {"kind": "sysctl", "name": name, "value": value, "previous": previous}
        case Firewall(interface, version, mark, addresses):
            texts = [str(address) for address in addresses]
            return {"kind": "firewall", "interface": interface, "version": version, "mark": mark, "addresses": texts}
        case Dns(interface, servers, search):
            texts = [str(server) for server in servers]
            return {"kind": "dns", "interface": interface, "servers": texts, "search": list(search)}
    return {}


def unpack(packed: Iterable[Mapping[str, Any]]) -> frozenset[Item]:
    """What :func:`pack` wrote. Raises ValueError, KeyError or TypeError on anything else."""
    return frozenset(_unpack(dict(values)) for values in packed)


def _unpack(values: dict[str, Any]) -> Item:
    kind = values.pop("kind")
    match kind:
        case "address":
            return Address(values["interface"], ip_interface(values["value"]))
        case "route":
            return Route(ip_network(values["network"]), values["interface"], int(values["table"]))
        case "rule":
            return Rule(**values)
        case "sysctl":
            return Sysctl(**values)
        case "firewall":
            addresses = tuple(ip_address(text) for text in values.pop("addresses"))
            return Firewall(**values, addresses=addresses)
        case "dns":
            servers = tuple(ip_address(text) for text in values["servers"])
            return Dns(values["interface"], servers, tuple(values["search"]))
    raise ValueError(f"{kind!r} is not an item")
