"""What a config asks of the host: addresses, MTU, routes, rules and DNS, by the rules of wg-quick(8); pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from warren.errors import OperationFailed
from warren.linux.netlink_values import TABLE_MAIN, Address, Route, Rule
from warren.model.tunnel import IPNetwork
from warren.tunnel.config import TunnelConfig
from warren.tunnel.fields import TABLE_AUTO, TABLE_OFF
from warren.tunnel.items import Dns, Firewall, Item, Mtu, Sysctl, Up

FIRST_TABLE: Final = 51820
"""The first table number, and mark, that the default-route method tries; wg-quick's."""
OVERHEAD_BYTES: Final = 80
"""IPv6 40, UDP 8, WireGuard 32: what a packet grows by at most."""
ETHERNET_MTU: Final = 1500
SRC_VALID_MARK: Final = "net/ipv4/conf/all/src_valid_mark"


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """The choices of the default-route method: everything not marked goes to ``table``, unless main has a better
    route.
    """

    mark: int
    """The mark of encrypted packets, and the number of the table."""
    priorities: tuple[tuple[int, int], ...]
    """(IP version, priority) of the rule that sends traffic to the table; its exception has the number before it."""

    @property
    def versions(self) -> frozenset[int]:
        return frozenset(version for version, _ in self.priorities)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the config leaves open and the host decides."""

    mtu: int
    table: int | None = None
    """The number of the table that ``Table`` names; None for ``auto`` and ``off``."""
    default_route: DefaultRoute | None = None


def default_versions(config: TunnelConfig) -> frozenset[int]:
    """The IP versions whose default route goes into the tunnel by the default-route method."""
    if config.table != TABLE_AUTO:
        return frozenset()
    return frozenset(network.version for network in _networks(config) if network.prefixlen == 0)


def choose_default_route(
    config: TunnelConfig,
    routes: Collection[Route],
    rules: Collection[Rule],
    kept: DefaultRoute | None = None,
) -> DefaultRoute | None:
    """The mark, table and rule priorities for the default-route method; None when the config has no default route.

    A ``FwMark`` of the config is taken; else that of ``kept``, the choice in force; else the first number from 51820 up
    whose table nobody uses.
    """
    versions = default_versions(config)
    if not versions:
        return None
    used = {route.table for route in routes} | {rule.table for rule in rules}
    old = kept or DefaultRoute(next(number for number in range(FIRST_TABLE, 1 << 32) if number not in used), ())
    known = dict(old.priorities)
    priorities = tuple((version, known.get(version) or _free_priority(rules, version)) for version in sorted(versions))
    return DefaultRoute(config.fwmark or old.mark, priorities)


def default_route_of(made: Collection[Item]) -> DefaultRoute | None:
    """The choice in force, read from the rules that were made for it; None when there are none."""
    rules = [item for item in made if isinstance(item, Rule) and item.inverted]
    if not rules:
        return None
    return DefaultRoute(rules[0].fwmark, tuple(sorted((rule.version, rule.priority) for rule in rules)))


def _free_priority(rules: Collection[Rule], version: int) -> int:
    """Just before all rules but the one for local addresses, where the kernel puts a rule without a number."""
    others = [rule.priority for rule in rules if rule.version == version and rule.priority > 0]
    first = min(others, default=32766)
    if first < 3:
        where = f"the IPv{version} rule with priority {first}"
        raise OperationFailed(f"there is no room for a rule before {where}; give that rule a higher one")
    return first - 1


def tunnel_mtu(path_mtus: Collection[int], default_mtu: int | None) -> int:
    """The MTU in bytes when the config gives none: wg-quick's rule.

    The largest MTU on the way to an endpoint, else that of the default route, else Ethernet's, less the overhead.
    """
    return max(path_mtus, default=default_mtu or ETHERNET_MTU) - OVERHEAD_BYTES


def desired(config: TunnelConfig, interface: str, choices: Choices) -> tuple[Item, ...]:
    """Everything that should be there while the tunnel runs."""
    return tuple(_desired(config, interface, choices))


def _desired(config: TunnelConfig, interface: str, choices: Choices) -> Iterator[Item]:
    for address in config.addresses:
        yield Address(interface, address)
    yield Mtu(interface, choices.mtu)
    yield Up(interface)
    for network, table in _routes(config, choices):
        yield Route(network, interface, table)
    if choices.default_route is not None:
        yield from _default_route(config, interface, choices.default_route)
    if config.dns_servers:
        yield Dns(interface, config.dns_servers, config.dns_search)


def _routes(config: TunnelConfig, choices: Choices) -> Iterator[tuple[IPNetwork, int]]:
    """Every allowed network once, longest prefix first; without those that an address of the interface covers."""
    if config.table == TABLE_OFF:
        return
    networks = sorted(set(_networks(config)), key=lambda network: (-network.prefixlen, network.version, network))
    for network in networks:
        if choices.table is not None:
            yield network, choices.table
        elif network.prefixlen == 0:
            if choices.default_route is not None:
                yield network, choices.default_route.mark
        elif not _connected(config, network):
            yield network, TABLE_MAIN


def _connected(config: TunnelConfig, network: IPNetwork) -> bool:
    """Whether the kernel's route to the network of one of our addresses leads there already."""
    for address in config.addresses:
        own: IPNetwork = address.network
        alone = isinstance(own, IPv4Network) and own.prefixlen == own.max_prefixlen
        if not alone and _within(network, own):  # a lone IPv4 address has no route of its own
            return True
    return False


def _within(network: IPNetwork, other: IPNetwork) -> bool:
    if isinstance(network, IPv4Network) and isinstance(other, IPv4Network):
        return network.subnet_of(other)
    return isinstance(network, IPv6Network) and isinstance(other, IPv6Network) and network.subnet_of(other)


def _default_route(config: TunnelConfig, interface: str, choice: DefaultRoute) -> Iterator[Item]:
    for version, priority in choice.priorities:
        yield Rule(version, priority - 1, TABLE_MAIN, suppress_prefixlength=0)
        yield Rule(version, priority, choice.mark, fwmark=choice.mark, inverted=True)
        own = tuple(dict.fromkeys(address.ip for address in config.addresses if address.version == version))
        yield Firewall(interface, version, choice.mark, own)
    if 4 in choice.versions:
        yield Sysctl(SRC_VALID_MARK, "1")


def _networks(config: TunnelConfig) -> Iterator[IPNetwork]:
    for peer in config.peers:
        yield from peer.allowed_ips
