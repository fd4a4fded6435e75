"""What gateways of the same domains ask each other; pure.

A name with an address of each of several gateways is looked at by an authority for certificates at any of them,
whichever of them asked for one. What Caddy at this one did not ask for itself it passes to a Unix socket for each of
the others, which leads over the overlay to a port of that gateway, and there to Caddy for plain HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warren.agent.streams.directory import NetworkView
from warren.agent.streams.values import Item
from warren.ingress.sites import Ports
from warren.l4.config import Backend, Entry, Limits, Listen, Way
from warren.model.members import Member
from warren.model.services import CHALLENGE_PORT, Connector
from warren.model.serving import selected
from warren.model.stream_places import LOOPBACK

OTHERS_MAX: Final = 8
"""They are asked one after the other, and an authority waits for ten seconds."""
STREAMS_MAX: Final = 64
"""Of questions at the same time, from or to others."""
CONNECT_WITHIN_S: Final = 1.0

_TOO_MANY: Final = f"its domains have more than {OTHERS_MAX + 1} gateways: divide the domains among several connectors"


@dataclass(frozen=True, slots=True)
class Others:
    """The other gateways of one connector with certificates by ACME."""

    members: tuple[Member, ...] = ()
    problem: str = ""
    """A sentence, why not each of them can be asked; empty: each can."""


def others_of(view: NetworkView, connector: Connector) -> Others:
    """By name, so that the order stays."""
    directory = view.directory
    if connector.kind != "http" or connector.certificate != "acme":
        return Others()
    found = [member for member in selected(connector.at, directory.members) if member.key != directory.own.key]
    found.sort(key=lambda member: member.name)
    if len(found) > OTHERS_MAX:
        return Others(tuple(found[:OTHERS_MAX]), _TOO_MANY)
    for member in found:
        if why := _objection(view, member):
            return Others(
                tuple(found),
                f"an authority may look at {member.name} for a certificate that this gateway asks for, so its gateways "
                f"have to reach each other at tcp/{CHALLENGE_PORT}: {why}",
            )
    return Others(tuple(found))


def challenge_items(view: NetworkView, others: Sequence[Member], run: Path, ports: Ports | None) -> Iterator[Item]:
    """For questions of ``others`` (a gateway may be there more than once), and for those to them."""
    members = {member.name: member for member in others}
    if not members:
        return
    if ports is not None:
        item = f"{view.label}: challenges"
        listen = Listen(side="overlay", address=str(view.directory.own.address6), port=CHALLENGE_PORT, freebind=True)
        sources = tuple(f"{member.address6}/128" for member in members.values())
        caddy = Backend(name="caddy", side="host", host=str(LOOPBACK), port=ports.http)
        yield _item(view, item, "this gateway", listen, Way(backends=(caddy,)), sources)
    for member in members.values():
        backend = Backend(name=member.name, side="overlay", host=str(member.address6), port=CHALLENGE_PORT)
        way = Way(backends=(backend,), refusal=_objection(view, member), connect_timeout_s=CONNECT_WITHIN_S)
        yield _item(view, _at(view, member), member.name, Listen(path=str(socket_for(view, member, run))), way)


def socket_for(view: NetworkView, member: Member, run: Path) -> Path:
    """Where Caddy asks that gateway."""
    return socket_of(run, _at(view, member))


def socket_of(run: Path, item: str) -> Path:
    """A short path, since those of sockets are limited (unix(7))."""
    return run / f"{hashlib.sha256(item.encode()).hexdigest()[:16]}.sock"


def _at(view: NetworkView, member: Member) -> str:
    return f"{view.label}: challenges at {member.name}"


def _objection(view: NetworkView, member: Member) -> str:
    return view.directory.objection(member.address6, "tcp", CHALLENGE_PORT)


def _item(view: NetworkView, item: str, target: str, listen: Listen, way: Way, sources: tuple[str, ...] = ()) -> Item:
    return Item(
        id=item,
        task=item.removeprefix(f"{view.label}: "),
        kind="gateway",
        networks=(view.label,),
        target=target,
        backends=tuple(backend.name for backend in way.backends),
        entry=Entry(id=item, listen=(listen,), way=way, limits=Limits(sources=sources, streams_max=STREAMS_MAX)),
    )
