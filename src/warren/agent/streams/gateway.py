"""The places that connectors of kind ``tls`` and ``http`` share, of all networks of a node; pure.

=============== ======================================================================================
entry           at the connector's place
=============== ======================================================================================
``sni``         TLS; names of sites go to Caddy's port for TLS, others to the members that serve them
``ended``       plain HTTP, to Caddy: of sites without TLS, and at port 80 of those with it, since there
                browsers ask first, and an authority for certificates asks too
=============== ======================================================================================

Who comes in by plain HTTP can reach each site without TLS, by its Host header, before anything is known of which it
will be. So such a site may have limits on its clients only when all that comes in is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from warren.agent.streams.connectors import Taken, is_public, limits_of
from warren.agent.streams.values import Item
from warren.ingress.sites import Ports, Site, door
from warren.l4.config import Backend, Entry, Limits, Listen, Name, Way
from warren.model.services import HTTP_PORT
from warren.model.stream_places import Place

STREAMS_MAX: Final = 65_536
"""At one shared place: the most that one connector may have, too."""
_NOT_ALONE: Final = (
    "without TLS nobody can tell its clients from those of the other web sites here, so it can have no source list and "
    "no rate of its own; take a certificate (internal, acme), or leave the limits out"
)


@dataclass(frozen=True, slots=True)
class Gateways:
    """What the shared connectors of a node come to."""

    items: tuple[Item, ...]
    """Of the connectors, and of the shared places."""
    sites: tuple[Site, ...]
    """For Caddy."""


@dataclass(frozen=True, slots=True)
class _Caddy:
    """The ways to it."""

    http: Way
    https: Way


def gateways(shared: Sequence[Taken], ports: Ports | None, run: Path) -> Gateways:
    """``shared`` in an order that stays: of two that want the same domain, the first has it. ``ports``: Caddy's;
    ``run``: where the sockets of sites are.
    """
    caddy = None if ports is None else _Caddy(_caddy(ports.http, run), _caddy(ports.https, run))
    kept = [_checked(taken, shared) for taken in _without_clashes(shared)]
    working = [taken for taken in kept if taken.domains]
    items = [_at_work(taken) for taken in kept]
    for place, group in _by_place(working).items():
        items += _by_name(place, group, caddy)
    for place, group in _plain(working).items():
        items += _to_caddy(place, group, caddy)
    return Gateways(tuple(items), tuple(taken.site for taken in working if taken.site is not None))


def _without_clashes(shared: Sequence[Taken]) -> Iterator[Taken]:
    """A name at one port belongs to one connector, and a web site to one at all ports."""
    owners: dict[tuple[object, str], str] = {}
    manners: dict[Place, tuple[bool, str]] = {}
    for taken in shared:
        wheres = [taken.place.port, "web"] if taken.connector.kind == "http" else [taken.place.port]
        keys = [(where, domain) for where in wheres for domain in taken.domains]
        other = next((owners[key] for key in keys if key in owners), None)
        proxied, first = manners.setdefault(taken.place, (taken.connector.accepts_proxy_protocol, taken.item.id))
        if other is not None:
            yield _refused(taken, f"{other} has one of its domains here already; leave it to one of them")
        elif proxied != taken.connector.accepts_proxy_protocol:
            yield _refused(taken, f"{first} shares {taken.place}, and only one of them takes the PROXY protocol")
        else:
            owners.update(dict.fromkeys(keys, taken.item.id))
            yield taken


def _refused(taken: Taken, problem: str) -> Taken:
    item = replace(taken.item, entry=None, backends=(), problem=problem, site="", pending=False)
    return replace(taken, item=item, domains=(), site=None)


def _checked(taken: Taken, shared: Sequence[Taken]) -> Taken:
    limits = limits_of(taken.connector)
    others = any(other.connector.kind == "http" and other.item.id != taken.item.id for other in shared)
    if taken.domains and _is_plain(taken) and others and (limits.sources or limits.rate is not None):
        return _refused(taken, _NOT_ALONE)
    return taken


def _is_plain(taken: Taken) -> bool:
    return taken.connector.kind == "http" and taken.connector.certificate == "none"


def _at_work(taken: Taken) -> Item:
    """The item of a connector that shares its place: of its own it has at most the socket that Caddy comes back by."""
    if not taken.domains:
        return taken.item
    return replace(taken.item, entry=taken.item.entry if taken.site is not None else None, part_of=_id(taken.place))


def _by_place(working: Iterable[Taken]) -> dict[Place, list[Taken]]:
    found: dict[Place, list[Taken]] = {}
    for taken in working:
        if not _is_plain(taken):
            found.setdefault(taken.place, []).append(taken)
    return found


def _plain(working: Iterable[Taken]) -> dict[Place, list[Taken]]:
    found: dict[Place, list[Taken]] = {}
    for taken in working:
        if _is_plain(taken):
            found.setdefault(taken.place, []).append(taken)
        elif taken.connector.kind == "http" and is_public(taken.place):
            found.setdefault(Place(taken.place.address, HTTP_PORT), []).append(taken)
    return found


def _by_name(place: Place, group: Sequence[Taken], caddy: _Caddy | None) -> Iterator[Item]:
    """The entry of a place where TLS comes in; none while all it has are sites, and Caddy does not run."""
    names = tuple(
        Name(
            domain=domain,
            connector=taken.item.id,
            way=way,
            limits=limits_of(taken.connector),
            ended=taken.site is not None,
        )
        for taken in group
        if (way := _way(taken, caddy)) is not None
        for domain in taken.domains
    )
    if names:
        limits = Limits(streams_max=_streams_max(group))
        proxied = group[0].connector.accepts_proxy_protocol
        listen = (_listen(place),)
        yield _item(
            Entry(id=_id(place), kind="sni", listen=listen, limits=limits, names=names, proxy_in=proxied), group
        )


def _to_caddy(place: Place, group: Sequence[Taken], caddy: _Caddy | None) -> Iterator[Item]:
    if caddy is None:
        return
    own = limits_of(group[0].connector) if len(group) == 1 and _is_plain(group[0]) else Limits()
    limits = Limits(sources=own.sources, rate=own.rate, streams_max=_streams_max(group))
    entry = Entry(id=_id(place), kind="ended", listen=(_listen(place),), way=caddy.http, limits=limits)
    yield _item(entry, group)


def _way(taken: Taken, caddy: _Caddy | None) -> Way | None:
    """Where streams for a name go; None: nowhere yet."""
    if taken.site is not None:
        return None if caddy is None else caddy.https
    return None if taken.item.entry is None else taken.item.entry.way


def _caddy(port: int, run: Path) -> Way:
    return Way(backends=(Backend(name="caddy", side="host", port=port, path=str(door(run, port))),))


def _id(place: Place) -> str:
    return f"gateway {place}"


def _listen(place: Place) -> Listen:
    return Listen(address="" if place.address is None else str(place.address), port=place.port)


def _streams_max(group: Iterable[Taken]) -> int:
    return min(STREAMS_MAX, sum(taken.connector.streams_max for taken in group))


def _item(entry: Entry, group: Sequence[Taken]) -> Item:
    return Item(
        id=entry.id,
        task=entry.id,
        kind="gateway",
        networks=tuple(dict.fromkeys(network for taken in group for network in taken.item.networks)),
        target=", ".join(dict.fromkeys(domain for taken in group for domain in taken.domains)),
        entry=entry,
    )
