"""Which connectors and services would be in each other's way at a member, found before anybody is told of them, and
which only members take whose operators have said so; pure.

Of a connector's place (an address and port of the host) there is one user, except that TLS connectors share one by the
names that are asked for, and so do those of plain HTTP. Those of kind ``http`` also share port 80, where browsers ask
first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal, NamedTuple

from warren.model.addresses import service_interface_id
from warren.model.documents import NetworkSpec
from warren.model.ip import unmapped
from warren.model.members import Member
from warren.model.services import HTTP_PORT, Connector, Service, place_of
from warren.model.serving import selected
from warren.model.stream_places import METADATA, PRIVILEGED_PORTS, Place, parse_target, unprivileged
from warren.model.tunnel import IPAddress, IPNetwork

SERVICE_ADDRESSES_MAX: Final = 65_536
"""Of all services at all members together: each is an address of an interface, a name's record and maybe an element of
everybody's firewall. As many as a network has members.
"""


class Clash(NamedTuple):
    """Why ``connector`` cannot be beside another; ``field``: ``listen`` or ``domains``, whichever is to be changed."""

    connector: str
    field: Literal["listen", "domains"]
    what: str


def colliding_service(services: Sequence[Service]) -> tuple[str, str] | None:
    """Two services with one address at every member, so that one needs another name; None: there are none."""
    seen: dict[int, str] = {}
    for service in services:
        other = seen.setdefault(service_interface_id(service.name), service.name)
        if other != service.name:
            return other, service.name
    return None


def clashes(connectors: Iterable[Connector], services: Mapping[str, Service], members: Sequence[Member]) -> list[Clash]:
    """At most one for each connector. One whose service is not there is passed over."""
    taken = _Taken()
    at = _At(members)
    found = []
    for connector in connectors:
        service = services.get(connector.service)
        if service is None:
            continue
        clash = next(taken.clashes(connector, service, at.of(connector.at)), None)
        if clash is None:
            taken.add(connector, service, at.of(connector.at))
        else:
            found.append(clash)
    return found


def closed_target(service: Service, spec: NetworkSpec, members: Sequence[Member]) -> str | None:
    """Why some of those who serve ``service`` do not lead to its target unless their operators name it; None: as far as
    can be seen from here, all do. The addresses of a name are the serving member's to see, but for the network's own.
    """
    serving = selected(service.at, members)
    target = parse_target(service.target)
    try:
        ip = unmapped(ip_address(target.host))
    except ValueError:
        name = target.host.rstrip(".").lower()
        domain = f".{spec.name}.{spec.suffix}"
        others = [one for one in serving if name != one.name + domain]
        what = f"{name} is a name of this network" if name.endswith(domain) and (others or not serving) else ""
    else:
        what = _closed(ip, spec, members, serving)
    if not what:
        return None
    return (
        f"{what}, where members do not lead unless their operators name it (agent.toml, [services] allow); let those "
        "who have it serve it themselves"
    )


def _closed(ip: IPAddress, spec: NetworkSpec, members: Sequence[Member], serving: Sequence[Member]) -> str:
    if ip.is_loopback:
        return ""
    for network, what in METADATA:
        if ip in network:
            return f"{ip} is {what}"
    if any(ip in prefix for prefix in _prefixes(spec)):
        strangers = [one for one in serving if ip not in {one.address6, one.address4}]
        return f"{ip} is an address of this network" if strangers or not serving else ""
    for member in members:
        if any(ip in route for route in member.routes):
            strangers = [one for one in serving if one != member and not any(ip in route for route in one.routes)]
            if strangers:
                return f"{ip} is behind {member.name}"
    return ""


def _prefixes(spec: NetworkSpec) -> Iterator[IPNetwork]:
    yield IPv6Network(spec.prefix6)
    if spec.prefix4 is not None:
        yield IPv4Network(spec.prefix4)


def permitted_place(connector: Connector, service: Service) -> str | None:
    """Why members do not listen there for ``connector`` unless their operators name the place; None: they do, or need
    to be gateways.
    """
    place = place_of(connector, service)
    if place.path:
        what, remedy = "on a Unix socket", ""
    elif place.address is not None and place.address.is_loopback and place.port < PRIVILEGED_PORTS:
        what = f"on loopback below port {PRIVILEGED_PORTS}"
        remedy = f"; to listen at another port, say {unprivileged(place.port)}, needs no such word"
    else:
        return None
    return (
        f"members listen {what} only where their operators name the place: agent.toml, [connectors] allow = "
        f'["{place}"]{remedy}'
    )


class _At:
    """Where a connector is: the members it is at now, and its selectors, since others may come."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._known: dict[tuple[str, ...], Sequence[str]] = {}

    def of(self, selectors: tuple[str, ...]) -> Sequence[str]:
        if selectors not in self._known:
            names = (f"member:{member.name}" for member in selected(selectors, self._members))
            self._known[selectors] = tuple(dict.fromkeys((*names, *selectors)))
        return self._known[selectors]


class _Claim(NamedTuple):
    """``manner``: how those who come in are told apart; ``whole``: not at all."""

    protocol: Literal["tcp", "udp"]
    place: Place
    manner: Literal["whole", "tls", "plain"]


class _Taken:
    """What connectors have, by where they are. One with a clash has nothing, so that only the second is blamed."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, int, str], dict[tuple[IPAddress | None, str], dict[str, str]]] = {}
        """By protocol, port and path; by address and manner; by where: the connector."""
        self._domains: dict[tuple[str, int], dict[str, str]] = {}
        """By domain and port; by where: the connector."""

    def add(self, connector: Connector, service: Service, at: Sequence[str]) -> None:
        for protocol, place, manner in _claims(connector, service):
            bucket = self._places.setdefault((protocol, place.port, place.path), {})
            holders = bucket.setdefault((place.address, manner), {})
            for where in at:
                holders.setdefault(where, connector.name)
            for domain in connector.domains:
                self._domains.setdefault((domain, place.port), {}).update(dict.fromkeys(at, connector.name))

    def clashes(self, connector: Connector, service: Service, at: Sequence[str]) -> Iterator[Clash]:
        for protocol, place, manner in _claims(connector, service):
            bucket = self._places.get((protocol, place.port, place.path), {})
            for (address, other_manner), holders in bucket.items():
                shared = manner == other_manner != "whole" and address == place.address
                if not shared and _overlap(address, place.address):
                    for where, other in _first(at, holders):
                        theirs = Place(address, place.port, place.path)
                        has = f"connector {other} listens at {_shown(theirs, protocol)} of {_whom(where)} already"
                        yield Clash(connector.name, "listen", f"{has}{_remedy(connector, service, place)}")
            for domain in connector.domains:
                for where, other in _first(at, self._domains.get((domain, place.port), {})):
                    what = f"connector {other} has {domain} at {_whom(where)} already; leave it to one of them"
                    yield Clash(connector.name, "domains", what)


def _claims(connector: Connector, service: Service) -> Iterator[_Claim]:
    place = place_of(connector, service)
    if connector.kind == "port":
        yield _Claim(service.protocol, place, "whole")
        return
    plain = connector.kind == "http" and connector.certificate == "none"
    yield _Claim("tcp", place, "plain" if plain else "tls")
    if connector.kind == "http" and not plain:
        yield _Claim("tcp", Place(None, HTTP_PORT), "plain")


def _first(at: Sequence[str], holders: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for where in at:
        if where in holders:
            yield where, holders[where]
            return


def _overlap(one: IPAddress | None, other: IPAddress | None) -> bool:
    """Whether two sockets of one port could not both be bound there (None: at all addresses)."""
    if one is None or other is None or one == other:
        return True
    return one.version == other.version and (one.is_unspecified or other.is_unspecified)


def _shown(place: Place, protocol: str) -> str:
    return str(place) if place.path else f"{protocol} {place}"


def _remedy(connector: Connector, service: Service, place: Place) -> str:
    if place != place_of(connector, service):
        return ", where kind http needs *:80 for browsers that come without TLS; move that one"
    return "; choose another path" if place.path else "; choose another port or address"


def _whom(where: str) -> str:
    """``web1`` for ``member:web1``; other selectors as they are."""
    return where.removeprefix("member:")
