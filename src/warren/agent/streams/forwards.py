"""The forwards and the SOCKS server of this node's own operator, over all its networks; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from warren.agent.streams.directory import Directory, NetworkView, Protocol
from warren.agent.streams.forward_text import Forward, Socks
from warren.agent.streams.order import Orders
from warren.agent.streams.services import EXPIRED, service_backends
from warren.agent.streams.values import Backends, Item
from warren.l4.config import Backend, Entry, Limits, Listen, Way
from warren.model.members import Member
from warren.model.services import Service
from warren.model.stream_places import Place
from warren.model.tunnel import IPAddress

CONNECT_WITHIN_S: Final = 10.0
"""The first stream to a member may have to wait for the second handshake, which is 5 s after the first."""
STREAMS_MAX: Final = 65_536
"""Of one forward or SOCKS server: these are the operator's own, so it is descriptors that they may run out of."""

Origin = Literal["config", "kept", "held"]
"""agent.toml; by command, until it is removed; by a command that still runs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What this node's operator wants, and how it was said."""

    what: Forward | Socks
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Goal:
    """Where a forward goes, as its text is understood now."""

    backends: Backends
    network: str = ""
    """The label of the network that it goes into."""
    kind: Literal["plain", "ftp", "tftp"] = "plain"
    idle_s: float | None = None


def asked_item(asked: Asked, views: Sequence[NetworkView], orders: Orders, owner_uid: int) -> Item:
    """``owner_uid``: whose programs may use a SOCKS5 server; root's is for all programs of this host."""
    if isinstance(asked.what, Socks):
        return _socks(asked.what, asked.origin, views, owner_uid)
    return _forward(asked.what, asked.origin, views, orders)


def objection(
    views: Sequence[NetworkView], address: IPAddress, protocol: Protocol, port: int
) -> tuple[str, str] | None:
    """Why a program of this host may not have a stream or flow there by the SOCKS server: one of
    :data:`~warren.l4.config.REASONS` and a sentence. None: nothing speaks against it, or it is in none of the networks,
    which the server's entry says itself.
    """
    for view in views:
        directory = view.directory
        if directory.is_own(address):
            return None  # no firewall is in between
        if not directory.has(address):
            continue
        if directory.state == "expired":
            return "policy", EXPIRED
        if directory.holder(address) is None:
            return "unresolved", f"no live member has the address {address}"
        why = directory.objection(address, protocol, port)
        return ("policy", f"{why}; who administers {directory.network} can allow it") if why else None
    return None


def _forward(forward: Forward, origin: Origin, views: Sequence[NetworkView], orders: Orders) -> Item:
    """Whatever is wrong with it, it has an entry, which refuses: where it listens is not left to another program."""
    goal = _goal(forward, views, orders)
    usable = goal.backends.usable
    entry = Entry(
        id=forward.id,
        kind=goal.kind,
        listen=_listens(forward, views),
        way=Way(
            backends=usable,
            refusal=goal.backends.problem,
            refused_as=goal.backends.refused_as,
            connect_timeout_s=CONNECT_WITHIN_S,
            idle_s=goal.idle_s,
        ),
        limits=Limits() if forward.protocol == "udp" else Limits(streams_max=STREAMS_MAX),
    )
    labels = {goal.network} if goal.network else {view.label for view in views} if forward.overlay else set()
    return Item(
        id=forward.id,
        task=forward.id,
        kind="forward",
        networks=tuple(sorted(labels)),
        target=forward.aim,
        backends=goal.backends.names,
        entry=entry if entry.listen else None,
        problem=goal.backends.problem or ("" if entry.listen else "this node has no overlay address now"),
        origin=origin,
    )


def _socks(socks: Socks, origin: Origin, views: Sequence[NetworkView], owner_uid: int) -> Item:
    prefixes = (network for view in views for network in (*view.directory.prefixes, *view.directory.behind))
    entry = Entry(
        id=socks.id,
        kind="socks",
        listen=(_listen(socks.listen, "tcp"),),
        owner_uid=owner_uid or None,
        limits=Limits(streams_max=STREAMS_MAX),
        allowed=tuple(dict.fromkeys(map(str, prefixes))),
    )
    return Item(id=socks.id, task=socks.id, kind="socks", networks=(), target=socks.aim, entry=entry, origin=origin)


def _listens(forward: Forward, views: Sequence[NetworkView]) -> tuple[Listen, ...]:
    if not forward.overlay:
        return (_listen(forward.listen, forward.protocol),)
    own = (address for view in views for address in (view.directory.own.address6, view.directory.own.address4))
    return tuple(
        Listen(side="overlay", protocol=forward.protocol, address=str(ip), port=forward.listen.port, freebind=True)
        for ip in own
        if ip is not None
    )


def _listen(place: Place, protocol: Literal["tcp", "udp"]) -> Listen:
    if place.path:
        return Listen(path=place.path)
    return Listen(protocol=protocol, address="" if place.address is None else str(place.address), port=place.port)


def _goal(forward: Forward, views: Sequence[NetworkView], orders: Orders) -> _Goal:
    host = forward.target.host
    address = _address(host)
    if forward.overlay and not _is_in_overlay(host, address, views):
        target = forward.target
        return _Goal(Backends((Backend(name=str(target), side="host", host=host, port=target.port, path=target.path),)))
    if address is not None:
        return _to_address(forward, address, views)
    found = [view for view in views if view.directory.member(host) or view.directory.service(host)]
    if len(found) > 1:
        names = " and ".join(view.label for view in found)
        full = f"{host}.{found[0].directory.network}"
        return _nowhere(f"{host} is a name in {names}; say which, as in {full}")
    if not found:
        return _nowhere(_unknown(host, views))
    (view,) = found
    service = view.directory.service(host)
    if service is not None:
        return _to_service(forward, service, view, orders)
    member = view.directory.member(host)
    if member is None or not forward.target.port:
        return _nowhere(f"{host} is a member, so say the port as well: {host}:PORT")
    return _Goal(_of_member(forward, member, view), view.label)


def _nowhere(why: str, network: str = "") -> _Goal:
    return _Goal(Backends((), nobody=why, unresolved=True), network)


def _unknown(host: str, views: Sequence[NetworkView]) -> str:
    if views and all(view.directory.state == "expired" for view in views):
        return EXPIRED
    return f"no member and no service is called {host}; `warren status` lists them"


def _address(host: str) -> IPAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _is_in_overlay(host: str, address: IPAddress | None, views: Sequence[NetworkView]) -> bool:
    """Of a forward that comes from the overlay: whether it also goes there, which it must say unmistakably."""
    if address is not None:
        return any(address in prefix for view in views for prefix in view.directory.prefixes)
    return any(view.directory.is_full(host) for view in views)


def _to_address(forward: Forward, address: IPAddress, views: Sequence[NetworkView]) -> _Goal:
    for view in views:
        if not view.directory.has(address):
            continue
        holder = view.directory.holder(address)
        if holder is None:
            return _nowhere(f"no live member has the address {address}", view.label)
        return _Goal(_backends(view.directory, holder.name, (address,), forward), view.label)
    return _nowhere(f"{address} is no address of the overlay, and behind no member; see `warren status`")


def _of_member(forward: Forward, member: Member, view: NetworkView) -> Backends:
    addresses: tuple[IPAddress, ...] = (member.address6,)
    if member.address4 is not None and view.directory.own.address4 is not None:
        addresses = (member.address6, member.address4)  # a program may listen on IPv4 alone
    return _backends(view.directory, member.name, addresses, forward)


def _backends(directory: Directory, name: str, addresses: tuple[IPAddress, ...], forward: Forward) -> Backends:
    port = forward.target.port
    objections = {ip: directory.objection(ip, forward.protocol, port) for ip in addresses}
    usable = tuple(
        Backend(name=name, side="overlay", host=str(ip), port=port) for ip in addresses if not objections[ip]
    )
    return Backends(usable, refusal="" if usable else objections[addresses[0]])


def _to_service(forward: Forward, service: Service, view: NetworkView, orders: Orders) -> _Goal:
    if service.protocol != forward.protocol:
        slash = "/udp" if service.protocol == "udp" else ""
        return _nowhere(f"service {service.name} is of {service.protocol}: say {service.name}{slash}", view.label)
    if forward.target.port not in {0, service.overlay_port}:
        why = f"service {service.name} is at port {service.overlay_port}: say {service.name}"
        return _nowhere(why if service.protocol == "tcp" else f"{why}/udp", view.label)
    backends = service_backends(view, service, orders)
    kind = "plain" if service.helper == "none" else service.helper
    return _Goal(backends, view.label, kind, None if service.idle_s is None else float(service.idle_s))
