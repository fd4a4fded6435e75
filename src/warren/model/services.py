"""Services and connectors: the two ends of what a network carries at layer 4 (R26), as the authority states them.

A *service* is something that serving members can reach: a host and port as *they* see it. Each serving member answers
for it at an address of its own for that service, in its /64 (:func:`warren.model.addresses.service_address`), so that
nothing else of the member is there. A *connector* is a place where streams come in, at members that the network names:
a loopback port for the programs of that host, or a public port, a TLS name or a web site of a gateway.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from warren.model.ip import join_host_port
from warren.model.parts import SUFFIX_PATTERN, Comment, Name, Port, Text, canonical_network, check_selector
from warren.model.tunnel import IPAddress, IPNetwork

Selectors = Annotated[tuple[Text, ...], Meta(min_length=1, max_length=64)]
HOST_CHARACTERS_MAX: Final = 253
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
LOOPBACK: Final = IPv4Address("127.0.0.1")
PRIVILEGED_PORTS: Final = 1024
"""Below it the programs of a host take whoever listens on its loopback for root."""
_CLOUD: Final = "where a cloud answers each machine for itself"
METADATA: Final[tuple[tuple[IPNetwork, str], ...]] = (
    (IPv4Network("169.254.0.0/16"), f"link-local, {_CLOUD}"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fd00:ec2::/32"), _CLOUD),  # Amazon's
    (IPv6Network("fd20:ce::254/128"), _CLOUD),  # Google's
    (IPv4Network("168.63.129.16/32"), _CLOUD),  # Azure's
    (IPv4Network("100.100.100.200/32"), _CLOUD),  # Alibaba's
    (IPv4Network("192.0.0.192/32"), _CLOUD),  # Oracle's
)
"""Where no target is unless the operator of the serving node says so: whoever asks there is taken for the machine, and
may be given its credentials. What each is goes on after "ADDRESS is".
"""
SERVICE_LABEL: Final = "svc"
"""Services are ``SERVICE.svc.NETWORK.SUFFIX``."""

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?")
_NUMERIC: Final = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$", re.IGNORECASE)
"""The last label is a number, so whoever reads it takes it for an address (WHATWG URL, "ends in a number")."""
_PATH: Final = re.compile(r"unix:(/[!-~]{1,106})")  # unix(7): sun_path has 108 bytes with the NUL
_TARGET_FORM: Final = "say HOST:PORT, [IPV6]:PORT or unix:/PATH"
_LISTEN_FORM: Final = "say PORT, ADDRESS:PORT, *:PORT or unix:/PATH"


class Target(NamedTuple):
    """Where a stream goes: ``host`` and ``port``, or the Unix socket ``path`` (then ``host`` is empty, ``port`` 0)."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else join_host_port(self.host, self.port)


class Place(NamedTuple):
    """Where streams come in. ``address`` None: everywhere, both IP versions."""

    address: IPAddress | None
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join_host_port("*" if self.address is None else str(self.address), self.port)


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


def unprivileged(port: int) -> int:
    """What to listen at instead of a port below :data:`PRIVILEGED_PORTS`: 8080 for 80, 8443 for 443."""
    return port + 8000


def parse_target(text: str) -> Target:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``; an address is then in its usual spelling. Raises ValueError,
    saying what it may be.
    """
    path = _path(text)
    if path:
        return Target("", 0, path)
    host, separator, port = text.rpartition(":")
    if not host and re.fullmatch("[0-9]+", port):
        raise ValueError(f"{text!r}: say 127.0.0.1:{port} for the serving member itself")
    if not separator or text.startswith("unix:"):
        raise ValueError(f"{text!r} is no target: {_TARGET_FORM}")
    if host.startswith("[") or ":" in host:
        host = str(_bracketed(host, text))
    elif not _HOST.fullmatch(host) or len(host) > HOST_CHARACTERS_MAX:
        raise ValueError(f"{text!r} is no target: {_TARGET_FORM}")
    elif _NUMERIC.search(host):  # resolvers read 127.1, 0x7f.1 and 2130706433 as addresses too
        host = str(_address4(host, text))
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise ValueError(f"{text!r} is nobody's address; for the serving member itself say 127.0.0.1 or [::1]")
    return Target(host, _port(port, text))


def parse_listen(text: str) -> Place:
    """``PORT`` (on IPv4's loopback), ``ADDRESS:PORT``, ``*:PORT`` or ``unix:/PATH``. Raises ValueError."""
    path = _path(text)
    if path:
        return Place(None, 0, path)
    host, separator, port = text.rpartition(":")
    if not separator or host == "localhost":
        return Place(LOOPBACK, _port(port, text))
    if not host:
        raise ValueError(f"{text!r}: say {port} for this host alone, or *:{port} for everybody")
    if host == "*":
        return Place(None, _port(port, text))
    address: IPAddress
    if host.startswith("[") or ":" in host:
        address = _bracketed(host, text)
    elif _NUMERIC.search(host):
        address = _address4(host, text)
    else:
        raise ValueError(f"{text!r} is no place to listen: {_LISTEN_FORM}")
    if address.is_multicast or (address.version == 6 and address.is_link_local):
        raise ValueError(f"{text!r}: nothing can listen at {address}; choose another address, or * for all")
    return Place(address, _port(port, text))


def _path(text: str) -> str:
    """That of ``unix:/PATH``; empty: it is something else. Raises ValueError for one that no socket can have."""
    found = _PATH.fullmatch(text)
    if found is not None:
        return found[1]
    if text.startswith("unix:/"):
        raise ValueError(f"{text!r} is no Unix socket: a path has 107 characters at most, of ASCII, and no spaces")
    return ""


def check_domain(text: str) -> None:
    """Raises ValueError for what is no DNS name, or looks like an address: TLS names no addresses (RFC 6066 §3)."""
    if len(text) > HOST_CHARACTERS_MAX or not re.fullmatch(SUFFIX_PATTERN, text):
        raise ValueError(f"{text!r} is no domain: lower-case letters, digits and hyphens, as in shop.example.com")
    if _NUMERIC.search(text):
        raise ValueError(f"{text} is no domain but an address; clients must ask by a name")


def check_names(what: str, of: Iterable[Service | Connector]) -> None:
    """Raises ValueError when two have one name."""
    seen: set[str] = set()
    for one in of:
        if one.name in seen:
            raise ValueError(f"there are two of the {what} {one.name}")
        seen.add(one.name)


def _bracketed(host: str, text: str) -> IPv6Address:
    if not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: put the IPv6 address in brackets, as in [2001:db8::7]:80")
    try:
        address = IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError(f"{text!r}: there is no IPv6 address in the brackets") from None
    if address.ipv4_mapped is not None:
        raise ValueError(f"{text!r}: say the IPv4 address {address.ipv4_mapped} itself")
    if address.scope_id is not None:
        raise ValueError(f"{text!r}: an address of one link only will not do; choose another one")
    return address


def _address4(host: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(host)
    except ValueError:
        raise ValueError(f"{text!r}: {host} is no IPv4 address; write all four numbers") from None


def _port(port: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise ValueError(f"{text!r}: a port is 1 to 65535")
    return int(port)
