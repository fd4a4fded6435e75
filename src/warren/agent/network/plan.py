"""From what a network wants of the host and what is there to what must be done: pure, the same for a first start, a
change and an adoption.

Everything on our own interface is ours, whoever put it there; nothing else is ever looked at. The kernel's own routes
(of an address) come and go with what they belong to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from warren.linux.netlink_values import PROTOCOL_KERNEL, Address, Link, Route
from warren.model.tunnel import IPNetwork


@dataclass(frozen=True, slots=True)
class Up:
    """The interface is set up."""

    interface: str

    def __str__(self) -> str:
        return f"interface {self.interface} up"


@dataclass(frozen=True, slots=True)
class Mtu:
    """The interface's MTU in bytes."""

    interface: str
    value: int

    def __str__(self) -> str:
        return f"MTU {self.value} on {self.interface}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The interface's nftables table, told by a digest of what is to be in it."""

    interface: str
    digest: str

    def __str__(self) -> str:
        return "policy"


@dataclass(frozen=True, slots=True)
class PathMtu:
    """A route of its own for some addresses of a peer, because less fits its path than the interface takes."""

    network: IPNetwork
    interface: str
    value: int

    @property
    def route(self) -> Route:
        return Route(self.network, self.interface, mtu=self.value)

    @property
    def any_route(self) -> Route:
        """The same whatever its MTU: removing one with an MTU removes that one only."""
        return Route(self.network, self.interface)

    def __str__(self) -> str:
        return f"path MTU {self.value} to {self.network} on {self.interface}"


Item = Policy | Mtu | Address | Up | Route | PathMtu

# In this order things are added: nothing may come in before the policy stands, and routes need the interface up.
_ORDER: tuple[type, ...] = (Policy, Mtu, Address, Up, Route, PathMtu)


@dataclass(frozen=True, slots=True)
class Add:
    """Put ``item`` in place; a policy or an MTU takes the place of the one before."""

    item: Item

    def __str__(self) -> str:
        return f"+ {self.item}"


@dataclass(frozen=True, slots=True)
class Remove:
    item: Item

    def __str__(self) -> str:
        return f"- {self.item}"


Change = Add | Remove


def plan(desired: Sequence[Item], observed: Collection[Item]) -> list[Change]:
    """What turns ``observed`` into ``desired``. New things come before old ones go, so that a connection that both
    serve lives on; only a policy, MTUs and the interface's state are replaced in place.
    """
    present = set(observed)
    adding = sorted((item for item in dict.fromkeys(desired) if item not in present), key=_rank)
    measured = {item.network for item in desired if isinstance(item, PathMtu)}
    leaving: list[Item] = [item for item in present.difference(desired) if isinstance(item, (Address, Route))]
    leaving += [item for item in present if isinstance(item, PathMtu) and item.network not in measured]
    leaving.sort(key=lambda item: (_rank(item), str(item)), reverse=True)
    return [*(Add(item) for item in adding), *(Remove(item) for item in leaving)]


def observed_on(
    interface: str, links: Iterable[Link], addresses: Iterable[Address], routes: Iterable[Route], policy: str | None
) -> frozenset[Item]:
    """What is there of one network. ``policy`` is the digest of its table as it stands; None: there is none."""
    found: set[Item] = set()
    for link in links:
        if link.name == interface:
            found.add(Mtu(interface, link.mtu))
            found.update([Up(interface)] if link.up else [])
    found.update(address for address in addresses if address.interface == interface and not address.value.is_link_local)
    found.update(
        PathMtu(route.network, interface, route.mtu) if route.mtu else route
        for route in routes
        if route.interface == interface and route.protocol != PROTOCOL_KERNEL and not route.network.is_multicast
    )
    found.update([Policy(interface, policy)] if policy is not None else [])
    return frozenset(found)


def _rank(item: Item) -> int:
    return _ORDER.index(type(item))
