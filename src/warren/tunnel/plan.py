"""From what should be and what is to what must be done: pure, and the same for a first start, a reload and a stop."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from warren.linux.netlink_values import Address, Route, Rule
from warren.tunnel.items import Dns, Firewall, Item, Mtu, Sysctl, Up

# Things are added in this order and removed in the opposite one. Routes need the interface up; the table of the default
# route is complete, marks are kept and answers accepted before a rule sends traffic there; DNS moves when it can be
# reached.
_ORDER: tuple[type, ...] = (Address, Mtu, Up, Route, Sysctl, Firewall, Rule, Dns)


@dataclass(frozen=True, slots=True)
class Add:
    """Put ``item`` in place; where only one of its kind can be, it replaces that one."""

    item: Item

    def __str__(self) -> str:
        return f"+ {self.item}"


@dataclass(frozen=True, slots=True)
class Remove:
    """Take away ``item``, which we made."""

    item: Item

    def __str__(self) -> str:
        return f"- {self.item}"


Change = Add | Remove


def plan(desired: Sequence[Item], observed: Collection[Item], made: Collection[Item]) -> list[Change]:
    """What turns ``observed`` into ``desired``, in an order in which nothing is cut off on the way.

    Only what is in ``made`` is ever removed: whatever else is there belongs to somebody else. New things come before
    old ones go, so that a connection that both serve lives on.
    """
    present = set(observed)
    slots = {_slot(item) for item in desired}
    adding = sorted((item for item in dict.fromkeys(desired) if item not in present), key=_rank)
    leaving = [item for item in present.intersection(made) if _slot(item) not in slots]
    leaving.sort(key=lambda item: (_rank(item), str(item)), reverse=True)
    return [*(Add(item) for item in adding), *(Remove(item) for item in leaving)]


def _rank(item: Item) -> tuple[int, int]:
    # Of two rules the one with the lower number first: it is the exception to the one after it.
    return _ORDER.index(type(item)), item.priority if isinstance(item, Rule) else 0


def _slot(item: Item) -> Hashable:
    """What can be there only once: two items of one slot replace each other."""
    match item:
        case Mtu(interface) | Up(interface) | Dns(interface):
            return type(item), interface
        case Firewall(interface, version):
            return Firewall, interface, version
        case Sysctl(name):
            return Sysctl, name
    return item
