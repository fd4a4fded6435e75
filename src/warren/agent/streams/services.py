"""What a node serves of its networks' services, and how it reaches those of others; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Final

from warren.agent.streams.closed import clouds, opened
from warren.agent.streams.directory import Directory, NetworkView
from warren.agent.streams.order import Orders
from warren.agent.streams.permits import Serving
from warren.agent.streams.values import Backends, Item
from warren.l4 import closed_places
from warren.l4.config import Backend, Closed, Entry, Health, Limits, Listen, Ruled, Way
from warren.model.members import Member
from warren.model.services import CONNECTOR_PORT, Service
from warren.model.serving import selected, service_addresses, services_of
from warren.model.stream_places import Target, parse_target

EXPIRED: Final = "the lease of this node has ended, so it talks to nobody until the coordinator renews it"
STREAMS_MAX: Final = 16_384
"""To one service at one serving member. Each gateway is one source there, which so has room for 13,000; and one service
leaves descriptors to the others.
"""


def service_items(view: NetworkView, serving: Serving, closed: Sequence[Closed] = ()) -> Iterator[Item]:
    """One for each service that the network wants of this node. ``closed``: to the services of all networks."""
    directory = view.directory
    exceptions = opened(closed, serving, directory)
    own = directory.own
    addresses = service_addresses(directory.spec.services, (own,))
    for service in services_of(directory.spec, own):
        target = parse_target(service.target)
        address = own.service_address(service.name)
        way = Way(
            backends=(_target(service),),
            connect_timeout_s=float(service.connect_timeout_s),
            idle_s=_idle(service),
            closed=tuple(closed),
            opened=exceptions,
        )
        problem = serving.objection(target) or _leads_to_closed(target, way)
        if addresses.get(address) is not service:
            problem = f"service {addresses[address].name} has the same address here; another name helps"
        item = f"{view.label}: service {service.name}"
        entry = Entry(
            id=item,
            kind="plain" if service.helper == "none" else service.helper,
            listen=_listens(service, str(address)),
            way=way,
            limits=Limits() if service.protocol == "udp" else Limits(streams_max=STREAMS_MAX),
            health=Health(every_s=float(service.health_s)) if service.health_s else None,
            clients=_clients(directory, service, address),
            proxy_in_from=_connecting(directory, service) if service.proxy_protocol else (),
        )
        yield Item(
            id=item,
            task=f"service {service.name}",
            kind="service",
            networks=(view.label,),
            target=service.target,
            entry=None if problem else entry,
            problem=problem,
        )


def _leads_to_closed(target: Target, way: Way) -> str:
    """What can be said before anybody comes; the addresses of a name are looked at when it is connected to."""
    try:
        return closed_places.objection(ip_address(target.host), target.port, way)
    except ValueError:
        return ""


def _clients(directory: Directory, service: Service, address: IPv6Address) -> tuple[Ruled, ...] | None:
    if service.protocol == "udp" or directory.state == "expired":  # streams may go on when the lease is renewed
        return None
    return directory.clients(address, "tcp", service.overlay_port)


def subnet_items(view: NetworkView, serving: Serving) -> Iterator[Item]:
    """The subnets behind a node without root: streams and flows to them end here and go on from the host's side, as
    this machine. An authority names subnets, so what only this machine may ask is closed here as for services.
    """
    prefixes = view.directory.own.routes
    if not view.transparent_port or not prefixes:
        return
    from warren.l4.transparent import transparent_rules

    listen = transparent_rules(view.interface, prefixes, view.transparent_port).listen
    closed = clouds()
    way = Way(closed=closed, opened=opened(closed, serving, view.directory))
    for protocol in ("tcp", "udp"):
        item = f"{view.label}: subnets by {protocol}"
        yield Item(
            id=item,
            task=f"subnets by {protocol}",
            kind="subnets",
            networks=(view.label,),
            target=", ".join(map(str, prefixes)),
            entry=Entry(
                id=item,
                kind="transparent",
                listen=tuple(one for one in listen if one.protocol == protocol),
                way=way,
                allowed=tuple(map(str, prefixes)),
            ),
        )


def service_backends(view: NetworkView, service: Service, orders: Orders, *, others_only: bool = False) -> Backends:
    """The members that serve ``service``, nearest first, as far as the policy lets this node reach them.

    ``others_only``: this node's own serving does not count.
    """
    directory = view.directory
    if directory.state == "expired":
        return Backends((), refusal=EXPIRED)
    serving = orders.of((view.label, service.name), directory.serving(service.name), view.near)
    members = [member for member in serving if not (others_only and member.key == directory.own.key)]
    if not members:
        network = directory.network
        why = f"nobody in {network} serves {service.name} now; `warren service list {network}` has who should"
        if serving:
            why = f"only this node serves {service.name}, and a gateway publishes services of others alone"
        return Backends((), nobody=why)
    objections = {member.key: _objection(directory, member, service) for member in members}
    usable = tuple(_backend(member, service) for member in members if not objections[member.key])
    return Backends(usable, refusal="" if usable else objections[members[0].key])


def _objection(directory: Directory, member: Member, service: Service) -> str:
    if member.key == directory.own.key:
        return ""  # what a node does with itself is no business of the policy
    address = member.service_address(service.name)
    said = directory.objection(address, service.protocol, service.overlay_port)
    return said.replace(f"reach {address} at", f"use service {service.name} of {member.name} at")


def _backend(member: Member, service: Service) -> Backend:
    return Backend(
        name=member.name,
        side="overlay",
        host=str(member.service_address(service.name)),
        port=service.overlay_port,
        connector_port=CONNECTOR_PORT if service.proxy_protocol else 0,
    )


def service_way(backends: Backends, service: Service) -> Way:
    """Of streams to ``service``."""
    return Way(
        backends=backends.usable,
        refusal=backends.problem,
        refused_as=backends.refused_as,
        connect_timeout_s=float(service.connect_timeout_s),
        idle_s=_idle(service),
    )


def _idle(service: Service) -> float | None:
    return None if service.idle_s is None else float(service.idle_s)


def _target(service: Service) -> Backend:
    target = parse_target(service.target)
    return Backend(
        name=service.target,
        side="host",
        host=target.host,
        port=target.port,
        path=target.path,
        proxy_out=service.proxy_protocol,
    )


def _listens(service: Service, address: str) -> tuple[Listen, ...]:
    ports = (service.overlay_port, CONNECTOR_PORT) if service.proxy_protocol else (service.overlay_port,)
    return tuple(
        Listen(side="overlay", protocol=service.protocol, address=address, port=port, freebind=True) for port in ports
    )


def _connecting(directory: Directory, service: Service) -> tuple[str, ...]:
    """Where connectors of ``service`` come from: only they may say who a client is."""
    found = dict.fromkeys(
        f"{member.address6}/128"
        for connector in directory.spec.connectors
        if connector.service == service.name
        for member in selected(connector.at, directory.members)
    )
    if f"{directory.own.address6}/128" in found:  # this node itself, which speaks to its address from that address
        found[f"{directory.own.service_address(service.name)}/128"] = None
    return tuple(found)
