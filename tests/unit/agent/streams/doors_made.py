"""Connectors of a network, and what a node makes of them."""

from __future__ import annotations

from tests.unit.agent.streams.fakes import RUN, view, worked_out
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.entries import Streams, Wishes
from warren.agent.streams.permits import PermitTable, taking_of
from warren.ingress.sites import Ports
from warren.model.services import Connector, Service

WEB = Service(name="web", at=("members",), target="localhost:8080", port=80)
PORTS = Ports(8080, 8443)
GATEWAY = Gateway(domain="gw.example.org")


def made(
    *connectors: Connector,
    ports: Ports | None = PORTS,
    gateway: Gateway | None = GATEWAY,
    allow: tuple[str, ...] | None = None,
    **around: object,
) -> Streams:
    where = Surroundings(RUN / "sites", gateway, ports=ports, **around)  # type: ignore[arg-type]
    config = StreamConfig(gateway=gateway, taking=taking_of(PermitTable(allow=allow)))
    return worked_out(view(WEB, connectors=connectors), wishes=Wishes(config), around=where)


def connector(name: str, **changes: object) -> Connector:
    return Connector(name=name, at=("member:me",), service="web", **changes)  # type: ignore[arg-type]


def site(name: str, **changes: object) -> Connector:
    return connector(name, kind="http", **{"certificate": "internal", "domains": (f"{name}.example.org",)} | changes)
