"""All that the stream process of a node is to do: from its networks, its own config and what was asked; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from msgspec import structs

from warren.agent.streams.challenges import challenge_items
from warren.agent.streams.closed import closed
from warren.agent.streams.config import StreamConfig
from warren.agent.streams.connectors import Surroundings, Taken, connectors
from warren.agent.streams.directory import Directory, NetworkView
from warren.agent.streams.forwards import Asked, asked_item
from warren.agent.streams.gateway import gateways
from warren.agent.streams.order import Key, Orders
from warren.agent.streams.services import service_items, subnet_items
from warren.agent.streams.values import Item
from warren.ingress.sites import Site
from warren.l4.config import Config, Listen
from warren.model.tunnel import IPAddress

PEER_LOOKUP: Final = "peers.sock"
DNS_PORT: Final = 53


@dataclass(frozen=True, slots=True)
class Wishes:
    """What this node's operator asks for."""

    config: StreamConfig = StreamConfig()  # noqa: RUF009 - frozen
    asked: tuple[Asked, ...] = ()
    """By command."""
    owner_uid: int = 0

    def all(self) -> Iterator[Asked]:
        """The config's first: of two at one place, the first has it."""
        yield from (Asked(forward, "config") for forward in self.config.forwards)
        if self.config.socks is not None:
            yield Asked(self.config.socks, "config")
        yield from self.asked


@dataclass(frozen=True, slots=True)
class Streams:
    """What it all comes to."""

    items: tuple[Item, ...] = ()
    config: Config = Config()  # noqa: RUF009 - frozen
    sites: tuple[Site, ...] = ()
    """For Caddy."""
    orders: Mapping[Key, tuple[bytes, ...]] = field(default_factory=dict)
    """Of the members for each network and service; for the next time."""
    domains: frozenset[str] = frozenset()
    """Whose addresses are to be looked up, and whether they lead here."""


def streams(
    views: Sequence[NetworkView], wishes: Wishes, around: Surroundings, before: Mapping[Key, Sequence[bytes]]
) -> Streams:
    """``views`` in an order that stays. ``before``: the orders of the last time."""
    orders = Orders(before)
    items: list[Item] = []
    shared: list[Taken] = []
    shut = closed(views)
    for view in views:
        items += service_items(view, wishes.config.serving, shut)
        items += subnet_items(view, wishes.config.serving)
        found = connectors(view, around, orders, wishes.config.taking)
        items += found.items
        shared += found.shared
        others = [member for taken in found.shared for member in taken.others]
        items += challenge_items(view, others, around.run, around.ports)
    gates = gateways(shared, around.ports, around.run)
    asked = (asked_item(one, views, orders, wishes.owner_uid) for one in wishes.all())
    kept = tuple(_beside_names(_without_clashes([*asked, *items, *gates.items]), views))
    return Streams(
        items=kept,
        config=Config(
            entries=tuple(item.entry for item in kept if item.entry is not None),
            peer_lookup=str(peer_lookup(around.run)) if gates.sites else "",
        ),
        sites=gates.sites,
        orders=orders.found,
        domains=frozenset(
            domain
            for taken in shared
            if taken.connector.kind == "http" and taken.connector.certificate == "acme"
            for domain in taken.wanted
        ),
    )


def peer_lookup(run: Path) -> Path:
    """Where Caddy asks the stream process who a client is."""
    return run / PEER_LOOKUP


def _beside_names(items: Iterable[Item], views: Sequence[NetworkView]) -> Iterator[Item]:
    """A node itself answers for names at port 53 of its overlay addresses: what listens there is beside that."""
    names = tuple(dict.fromkeys(str(ip) for view in views for ip in _addresses(view.directory)))
    for item in items:
        entry = item.entry
        if names and entry is not None and any(_is_at_names(one, names) for one in entry.listen):
            listen = tuple(
                structs.replace(one, beside=names) if _is_at_names(one, names) else one for one in entry.listen
            )
            yield replace(item, entry=structs.replace(entry, listen=listen))
        else:
            yield item


def _is_at_names(listen: Listen, names: Sequence[str]) -> bool:
    return listen.port == DNS_PORT and not listen.path and (not listen.address or listen.address in names)


def _addresses(directory: Directory) -> Iterator[IPAddress]:
    yield directory.own.address6
    if directory.own.address4 is not None:
        yield directory.own.address4


def listener_at(items: Iterable[Item], wanted: Item) -> str:
    """Which of ``items``, as people call it, listens where ``wanted`` would; empty: none, as far as is known here."""
    places = () if wanted.entry is None else wanted.entry.listen
    for item in items:
        others = () if item.entry is None else item.entry.listen
        if item.id != wanted.id and any(_meet(one, other) for one in places for other in others):
            return f"{item.task} of {item.networks[0]}" if item.origin == "network" and item.networks else item.id
    return ""


def _meet(one: Listen, other: Listen) -> bool:
    """Whether the kernel gives the place to one of the two alone."""
    if one.path or other.path:
        return one.path == other.path
    if (one.side, one.protocol, one.port) != (other.side, other.protocol, other.port):
        return False
    return one.address == other.address or not one.address or not other.address


def _without_clashes(items: Iterable[Item]) -> Iterator[Item]:
    """Of two entries at one place the first has it; a wildcard and an address are for the kernel to judge."""
    owners: dict[Listen, str] = {}
    ids: set[str] = set()
    for item in items:
        listens = () if item.entry is None else item.entry.listen
        other = next((owners[listen] for listen in listens if listen in owners), None)
        if item.entry is not None and (other is not None or item.id in ids):
            yield replace(item, entry=None, problem=f"{other or item.id} listens there already; choose another port")
            continue
        owners.update(dict.fromkeys(listens, item.id))
        ids.update([item.id] if item.entry is not None else [])
        yield item
