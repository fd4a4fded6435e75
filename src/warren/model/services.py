"""Services and connectors: the two ends of what a network carries at layer 4 (R26), as the authority states them.

A *service* is something that serving members can reach: a host and port as *they* see it. Each serving member answers
for it at an address of its own for that service, in its /64 (:func:`warren.model.addresses.service_address`), so that
nothing else of the member is there. A *connector* is a place where streams come in, at members that the network names:
a loopback port for the programs of that host, or a public port, a TLS name or a web site of a gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from warren.model.parts import SUFFIX_PATTERN, Comment, Name, Port, Text, canonical_network, check_selector
from warren.model.stream_places import HOST_CHARACTERS_MAX, LOOPBACK, Place, check_domain, parse_listen, parse_target

Selectors = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=64)]
Domain = Annotated[str, Meta(pattern=SUFFIX_PATTERN, max_length=HOST_CHARACTERS_MAX)]

DATA_PORTS: Final = (49_152, 65_534)
"""On the address of a service: where its helper takes data connections, each for one peer and a short time."""
CONNECTOR_PORT: Final = 65_535
"""On the address of a service: where connectors come in, with the client's address in front (PROXY protocol v2)."""
CHALLENGE_PORT: Final = 65_534
"""On the overlay address of a gateway: where gateways of the same domains ask each other for what an authority for
certificates wants to see of them.
"""
HTTP_PORT, HTTPS_PORT = 80, 443
CONNECT_TIMEOUT_S_MAX, IDLE_S_MAX, HEALTH_S_MAX = 60, 7 * 86_400, 3600
SERVICE_LABEL: Final = "svc"
"""Services are ``SERVICE.svc.NETWORK.SUFFIX``."""


class ServiceTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A service but for its name."""

    at: Selectors
    """Members that can reach it; several may."""
    target: Text
    """As a serving member reaches it: HOST:PORT, resolved there, or unix:/PATH."""
    protocol: Literal["tcp", "udp"] = "tcp"
    port: Port | None = None
    """At the service's address; None: the target's."""
    connect_timeout_s: Annotated[int, Meta(ge=1, le=CONNECT_TIMEOUT_S_MAX)] = 5
    idle_s: Annotated[int, Meta(ge=1, le=IDLE_S_MAX)] | None = None
    """A stream or flow on which nothing moves ends after that; None: a stream never, a flow after a minute."""
    health_s: Annotated[int, Meta(ge=0, le=HEALTH_S_MAX)] = 10
    """How often a serving member looks whether the target is there: it connects, or of UDP sends an empty datagram, to
    which all but ICMP's "unreachable" is an answer. While it is not there the member does not serve. 0: never.
    """
    proxy_protocol: bool = False
    """The target is told the client's address (PROXY protocol v2)."""
    helper: Literal["none", "ftp", "tftp"] = "none"
    comment: Comment = ""

    def __post_init__(self) -> None:
        for selector in self.at:
            check_selector(selector)
        target = parse_target(self.target)
        if target.path and self.port is None:
            raise ValueError(f"say a port, since {self.target} has none")
        if target.path and (self.protocol != "tcp" or self.helper != "none"):
            raise ValueError("a Unix socket takes plain TCP streams only")
        if self.helper == "ftp" and (self.protocol != "tcp" or self.proxy_protocol):
            raise ValueError("FTP needs protocol tcp and goes without PROXY protocol")
        if self.helper == "tftp" and self.protocol != "udp":
            raise ValueError("TFTP needs protocol udp")
        if self.proxy_protocol and self.protocol != "tcp":
            raise ValueError("the PROXY protocol needs protocol tcp")
        if self.overlay_port >= DATA_PORTS[0]:
            raise ValueError(f"choose a port below {DATA_PORTS[0]}, those above are for helpers")

    @property
    def overlay_port(self) -> int:
        """At the service's own address."""
        return self.port or parse_target(self.target).port


class Service(ServiceTerms, frozen=True, kw_only=True, omit_defaults=True):
    """What members named by ``at`` serve to others, if the policy lets them."""

    name: Name


class ConnectorTerms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A connector but for its name.

    ====== ======================================================================================================
    kind   what comes in
    ====== ======================================================================================================
    port   everything at ``listen``
    tls    TLS for one of ``domains`` (SNI, RFC 6066 §3) at ``listen``, passed on as it is: the service ends TLS
    http   HTTP for one of ``domains``, or for CONNECTOR.GATEWAY-DOMAIN where there are none; the gateway ends TLS
    ====== ======================================================================================================
    """

    at: Selectors
    service: Name
    kind: Literal["port", "tls", "http"] = "port"
    listen: Text = ""
    """See :func:`parse_listen`; empty: loopback at the service's port for ``port``, else ``*:443``, or
    ``*:80`` without TLS (see :func:`place_of`).
    """
    domains: Annotated[tuple[Domain, ...], Meta(max_length=64)] = ()
    certificate: Literal["acme", "internal", "none"] = "acme"
    """Of ``http``: from a certificate authority by ACME, from the gateway's own, or no TLS at all."""
    sources: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    """Prefixes that streams may come from; empty: all."""
    rate: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """New streams or flows a second that one source (IPv4 address, IPv6 /64) may open, with a burst of ten seconds'
    worth and at least ten; None: as many as it likes.
    """
    streams_max: Annotated[int, Meta(ge=1, le=65_536)] = 4096
    """At the same time, of all sources. One source alone (IPv4 address, IPv6 /64) has four fifths of them at most."""
    accepts_proxy_protocol: bool = False
    """A load balancer in front says who the client is (PROXY protocol v2); ``sources`` are then the balancer's."""
    comment: Comment = ""

    def __post_init__(self) -> None:
        for selector in self.at:
            check_selector(selector)
        for source in self.sources:
            canonical_network(source)
        for number, domain in enumerate(self.domains):
            check_domain(domain)
            if domain in self.domains[:number]:
                raise ValueError(f"the domain {domain} is there twice")
        listen = parse_listen(self.listen) if self.listen else None
        if self.kind == "tls" and not self.domains:
            raise ValueError("kind tls needs domains: streams are told apart by them")
        if self.kind == "port" and self.domains:
            raise ValueError("domains need kind tls or http")
        if self.kind != "port" and listen is not None and listen.path:
            raise ValueError(f"kind {self.kind} listens on a port")
        if self.kind != "http" and self.certificate != "acme":
            raise ValueError("only kind http has a certificate")
        if self.kind == "http" and self.accepts_proxy_protocol:
            raise ValueError("kind http takes no PROXY protocol")


class Connector(ConnectorTerms, frozen=True, kw_only=True, omit_defaults=True):
    """Where streams to ``service`` come in, at members named by ``at``."""

    name: Name


def mismatch(connector: ConnectorTerms, service: ServiceTerms) -> str | None:
    """Why ``connector`` cannot carry what its ``service`` speaks; None: it can."""
    if service.protocol == "udp":
        if connector.kind != "port":
            return f"kind {connector.kind} carries streams of TCP, and the service speaks UDP; take kind port"
        if connector.accepts_proxy_protocol:
            return "the PROXY protocol is for streams of TCP, and the service speaks UDP"
        if connector.listen and parse_listen(connector.listen).path:
            return "a Unix socket takes streams of TCP only, and the service speaks UDP; listen on a port"
    if service.helper == "ftp":
        if connector.kind != "port":
            return f"the service speaks FTP, which kind {connector.kind} cannot carry; take kind port"
        if connector.accepts_proxy_protocol:
            return "FTP's data connections would come past the load balancer; leave the PROXY protocol out"
        if connector.listen and parse_listen(connector.listen).path:
            return "FTP opens more connections to where it listens, so a Unix socket will not do; listen on a port"
    return None


def place_of(connector: ConnectorTerms, service: ServiceTerms) -> Place:
    """Where ``connector`` takes streams for its ``service``."""
    if connector.listen:
        return parse_listen(connector.listen)
    if connector.kind == "port":
        return Place(LOOPBACK, service.overlay_port)
    return Place(None, HTTP_PORT if connector.kind == "http" and connector.certificate == "none" else HTTPS_PORT)


def check_names(what: str, of: Iterable[Service | Connector]) -> None:
    """Raises ValueError when two have one name."""
    seen: set[str] = set()
    for one in of:
        if one.name in seen:
            raise ValueError(f"there are two of the {what} {one.name}")
        seen.add(one.name)
