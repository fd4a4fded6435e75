"""What a node takes for the connectors that its networks want of it; pure.

Connectors of kind ``tls`` and ``http`` share places: one entry, the *gateway* of that place, tells their streams apart
by the names in TLS, and hands those of web sites to Caddy. Plain HTTP goes to Caddy whole, which tells sites apart by
the Host header. From Caddy the streams come back by a Unix socket of each site, so that choosing a member, and another
one when that fails, is the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from warren.agent.streams.challenges import others_of, socket_for, socket_of
from warren.agent.streams.config import Gateway
from warren.agent.streams.directory import NetworkView
from warren.agent.streams.order import Orders
from warren.agent.streams.permits import Taking
from warren.agent.streams.services import service_backends, service_way
from warren.agent.streams.values import Item
from warren.ingress.sites import Ports, Site
from warren.l4.config import Entry, Limits, Listen
from warren.model.members import Member
from warren.model.services import HTTP_PORT, Connector, Service, mismatch, place_of
from warren.model.serving import connectors_of, service_named
from warren.model.stream_places import Place

_NO_GATEWAY = (
    "this node takes nothing from outside unless its operator lets it: agent.toml, [gateway] enabled = true, or listen "
    "on 127.0.0.1"
)
_NO_DOMAIN = (
    "it has no domain, and this gateway has none to give it one in: add a domain, or agent.toml, [gateway] domain"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What of this node counts for connectors."""

    run: Path
    """For the Unix sockets of web sites."""
    gateway: Gateway | None = None
    known_as: IPv4Address | None = None
    """By which others know this node, though it may not have it itself."""
    domains: Mapping[str, str] = field(default_factory=dict)
    """Of the domains that were looked up: why they do not lead to this node; empty: they do."""
    ports: Ports | None = None
    """Where Caddy listens; None: it does not run (yet)."""
    caddy_problem: str = ""
    """Why it does not."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Of sites, by name, what Caddy says is wrong."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A connector that shares a place with others: what its gateway is to know of it."""

    item: Item
    place: Place
    connector: Connector
    wanted: tuple[str, ...]
    """Domains that are asked for."""
    domains: tuple[str, ...]
    """Those of them that can be served."""
    site: Site | None = None
    others: tuple[Member, ...] = ()
    """Gateways that share its domains, where certificates come by ACME."""


@dataclass(frozen=True, slots=True)
class Connectors:
    """All connectors of one network at this node."""

    items: tuple[Item, ...]
    shared: tuple[Taken, ...]


def connectors(view: NetworkView, around: Surroundings, orders: Orders, taking: Taking) -> Connectors:
    """What the connectors at this node need, as far as each of them alone is looked at."""
    items: list[Item] = []
    shared: list[Taken] = []
    for connector in connectors_of(view.directory.spec, view.directory.own):
        service = service_named(view.directory.spec, connector.service)
        if service is None:
            items.append(_item(view, connector, problem=f"there is no service {connector.service} in this network"))
            continue
        public = is_public(place_of(connector, service))
        backends = service_backends(view, service, orders, others_only=public)
        problem = taking.objection(_places(connector, service), gateway=around.gateway is not None)
        if public and around.gateway is None:
            problem = _NO_GATEWAY
        problem = problem or mismatch(connector, service) or ""
        way = service_way(backends, service)
        entry = Entry(
            id=item_id(view, connector),
            kind="plain" if service.helper == "none" else service.helper,
            listen=(_listen(place_of(connector, service), service),),
            way=way,
            limits=limits_of(connector),
            proxy_in=connector.accepts_proxy_protocol,
            known_as=str(around.known_as) if around.known_as is not None and service.helper == "ftp" else "",
        )
        item = _item(view, connector, backends=backends.names, entry=entry, problem=problem or backends.problem)
        if problem:
            items.append(_without_entry(item))
        elif connector.kind == "port":
            items.append(item)
        else:
            shared.append(_shared(view, connector, service, item, around))
    return Connectors(tuple(items), tuple(shared))


def _places(connector: Connector, service: Service) -> list[Place]:
    """Where streams of ``connector`` come in; browsers ask first without TLS."""
    place = place_of(connector, service)
    if connector.kind == "http" and connector.certificate != "none" and is_public(place):
        return [place, Place(place.address, HTTP_PORT)]
    return [place]


def item_id(view: NetworkView, connector: Connector) -> str:
    return f"{view.label}: connector {connector.name}"


def is_public(place: Place) -> bool:
    """Whether others than programs of this host come in there."""
    return not place.path and not (place.address is not None and place.address.is_loopback)


def limits_of(connector: Connector) -> Limits:
    return Limits(sources=connector.sources, rate=connector.rate, streams_max=connector.streams_max)


def _item(
    view: NetworkView,
    connector: Connector,
    *,
    backends: tuple[str, ...] = (),
    entry: Entry | None = None,
    problem: str = "",
) -> Item:
    return Item(
        id=item_id(view, connector),
        task=f"connector {connector.name}",
        kind="connector",
        networks=(view.label,),
        target=f"service {connector.service}",
        backends=backends,
        entry=entry,
        problem=problem,
    )


def _without_entry(item: Item) -> Item:
    return replace(item, entry=None, backends=())


def _listen(place: Place, service: Service) -> Listen:
    if place.path:
        return Listen(path=place.path)
    address = "" if place.address is None else str(place.address)
    return Listen(protocol=service.protocol, address=address, port=place.port)


def _shared(view: NetworkView, connector: Connector, service: Service, item: Item, around: Surroundings) -> Taken:
    """Of kind ``tls`` or ``http``."""
    place = place_of(connector, service)
    if connector.kind == "tls":
        return Taken(item, place, connector, connector.domains, connector.domains)
    domains = connector.domains
    if not domains and around.gateway is not None and around.gateway.domain is not None:
        domains = (f"{connector.name}.{around.gateway.domain}",)
    if not domains:
        return Taken(replace(_without_entry(item), problem=_NO_DOMAIN), place, connector, (), ())
    usable, wrong, waits = domains, "", False
    if connector.certificate == "acme":
        usable = tuple(domain for domain in domains if around.domains.get(domain) == "")
        wrong = "; ".join(why for domain in domains if (why := around.domains.get(domain)))
        waits = any(domain not in around.domains for domain in domains)
    others = others_of(view, connector)
    site = Site(
        item.id,
        usable,
        connector.certificate,
        socket_of(around.run, item.id),
        https_port=place.port,
        others=tuple(socket_for(view, member, around.run) for member in others.members),
    )
    told = around.caddy_problem or wrong or around.problems.get(site.connector, "") or others.problem
    if not usable:
        return Taken(replace(_without_entry(item), problem=told, pending=waits), place, connector, domains, ())
    entry = item.entry
    if around.caddy_problem and around.ports is None:
        entry = None
    if entry is not None:  # streams come from Caddy, which has let the client in already
        limits = Limits(streams_max=connector.streams_max)
        entry = Entry(id=entry.id, listen=(Listen(path=str(site.upstream)),), way=entry.way, limits=limits)
    pending = waits or (around.ports is None and not around.caddy_problem)
    item = replace(item, entry=entry, problem=told or item.problem, pending=pending, site=site.connector)
    return Taken(item, place, connector, domains, usable, site, others.members)
