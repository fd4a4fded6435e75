"""The signed documents of a network: what each says, and who must have signed it (:mod:`warren.model.verified`).

==========  ============  =======================================  ============================
kind        signed by     says                                     :class:`DocumentKey` subject
==========  ============  =======================================  ============================
network     authority     :class:`NetworkSpec`                     empty
membership  authority     :class:`Membership`, a lease             the node's key
revocation  authority     :class:`Revocation`                      empty
node        the node      :class:`NodeRecord`                      the node's key
ticket      authority     :class:`Ticket`                          empty
==========  ============  =======================================  ============================

A payload is a msgpack map; unknown keys in it are passed over by who reads and kept by who passes on. Versions only
grow: of two documents with one :class:`DocumentKey` the one with the greater version counts.

Times are seconds since 1970 (UTC), addresses and prefixes text in the one canonical form of :mod:`ipaddress`
(RFC 5952), keys 32 raw bytes. Every struct refuses, when made and when decoded, what breaks its own rules.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from warren.model.parts import (
    SUFFIX_CHARACTERS_MAX,
    SUFFIX_PATTERN,
    Comment,
    Key,
    Name,
    Seconds,
    Tag,
    Text,
    Url,
    Version,
    canonical_address,
    canonical_network,
    check_selector,
    port_range,
)
from warren.model.services import Connector, Service, check_names
from warren.model.tunnel import IPAddress


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """What every document begins with. ``network`` is the authority's key: a document is of one network only."""

    KIND: ClassVar[str]

    network: Key
    version: Version

    @property
    def subject(self) -> bytes:
        return b""


class Coordinator(msgspec.Struct, frozen=True, kw_only=True):
    """Where a coordinator answers, and the Ed25519 key by which it is known whatever its certificate."""

    url: Url
    key: Key


class Relay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A TURN server (RFC 8656) that members may use, coturn or our own. It sees ciphertext only."""

    name: Name
    hosts: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=8)]
    """IP addresses or DNS names, all of one server."""
    udp_port: Annotated[int, Meta(ge=1, le=65_535)] | None = 3478
    """TURN over UDP, and STUN; None: not there."""
    tcp_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    tls_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    certificate_sha256: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None
    """The hash of the certificate (DER) that it shows with TLS; None: one that certificate authorities vouch for."""

    def __post_init__(self) -> None:
        if self.udp_port is None and self.tcp_port is None and self.tls_port is None:
            raise ValueError(f"relay {self.name} has no port")


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a policy; of an ordered list the first that matches decides, and without one nothing passes.

    A selector is ``members`` (all members' own addresses), ``member:NAME``, ``tag:TAG``, or a prefix; a destination
    may also be ``service:NAME``. ``members`` and tags include services, which have addresses of their members, and
    never the routes that members offer: a subnet is reached only by a rule that names it.
    """

    action: Literal["allow", "deny"]
    sources: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1024)]
    destinations: Annotated[tuple[Text, ...], Meta(min_length=1, max_length=1024)]
    protocol: Literal["any", "tcp", "udp", "icmp"] = "any"
    """``icmp`` is ICMP and ICMPv6."""
    ports: Annotated[tuple[Text, ...], Meta(max_length=256)] = ()
    """``"22"`` or ``"8000-8100"``; empty: all. Only with tcp and udp."""
    comment: Comment = ""

    def __post_init__(self) -> None:
        for selector in self.sources:
            check_selector(selector)
        for selector in self.destinations:
            check_selector(selector, services=True)
        if self.ports and self.protocol not in {"tcp", "udp"}:
            raise ValueError(f"protocol {self.protocol} has no ports; say tcp or udp")
        for ports in self.ports:
            port_range(ports)


class NetworkSpec(_Document, frozen=True, kw_only=True):
    """What holds for all members."""

    KIND = "network"

    name: Name
    prefix6: str
    """The ULA /48 that follows from the authority's key (RFC 4193)."""
    prefix4: str | None = None
    suffix: Annotated[str, Meta(pattern=SUFFIX_PATTERN, max_length=SUFFIX_CHARACTERS_MAX)] = "internal"
    """Members are ``NODE.NETWORK.SUFFIX``."""
    policy: Annotated[tuple[Rule, ...], Meta(max_length=4096)] = ()
    coordinators: Annotated[tuple[Coordinator, ...], Meta(max_length=16)] = ()
    relays: Annotated[tuple[Relay, ...], Meta(max_length=16)] = ()
    relay_members: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    """Selectors of the members that may relay for others, if they are public and offer it."""
    services: Annotated[tuple[Service, ...], Meta(max_length=1024)] = ()
    connectors: Annotated[tuple[Connector, ...], Meta(max_length=1024)] = ()
    lease_s: Seconds = 86_400
    """How long a Membership is good for; the bound within which a revocation reaches a partitioned member."""

    def __post_init__(self) -> None:
        if _network6(self.prefix6).prefixlen != 48:
            raise ValueError(f"{self.prefix6} is not a /48")
        if self.prefix4 is not None:
            _network4(self.prefix4)
        for selector in self.relay_members:
            check_selector(selector)
        check_names("service", self.services)
        check_names("connector", self.connectors)


class Membership(_Document, frozen=True, kw_only=True):
    """That ``node`` is a member, from ``not_before`` until ``not_after``, and what it may call its own."""

    KIND = "membership"

    node: Key
    name: Name
    prefix6: str
    """The node's /64; the node itself is ::1 in it."""
    address4: str | None = None
    tags: Annotated[tuple[Tag, ...], Meta(max_length=64)] = ()
    routes: Annotated[tuple[str, ...], Meta(max_length=64)] = ()
    """Prefixes behind the node that others reach through it."""
    ephemeral: bool = False
    """The member vanishes when it is gone."""
    not_before: Seconds
    not_after: Seconds

    def __post_init__(self) -> None:
        if _network6(self.prefix6).prefixlen != 64:
            raise ValueError(f"{self.prefix6} is not a /64")
        if self.address4 is not None and str(IPv4Address(self.address4)) != self.address4:
            raise ValueError(f"{self.address4} is not written as usual")
        for route in self.routes:
            canonical_network(route)

    @property
    def subject(self) -> bytes:
        return self.node

    def holds_at(self, now_s: float) -> bool:
        return self.not_before <= now_s < self.not_after


class Revocation(_Document, frozen=True, kw_only=True):
    """Keys that are members no longer, whatever Membership they still show. One is listed at least until the last of
    its leases has ended.
    """

    KIND = "revocation"

    nodes: Annotated[tuple[Key, ...], Meta(max_length=16_384)] = ()


_UNUSABLE: Final = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0/96"),
)
"""Of this host, reserved and broadcast, IPv4 written as IPv6 (RFC 6890, RFC 4291 §2.5.5)."""


def is_place(ip: IPAddress) -> bool:
    """Whether some other host may have this address: not loopback, multicast, reserved or IPv4 in disguise."""
    return not (ip.is_unspecified or ip.is_loopback or ip.is_multicast or any(ip in unusable for unusable in _UNUSABLE))


class Candidate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A transport address at which a node may answer (RFC 8445 §5.1.1)."""

    kind: Literal["host", "stated", "mapped", "srflx", "prflx", "relay"]
    """``stated``: the operator's word (public config)."""
    address: str
    port: Annotated[int, Meta(ge=1, le=65_535)]

    def __post_init__(self) -> None:
        if not is_place(canonical_address(self.address)):
            raise ValueError(f"nobody can be reached at {self.address}")


class RelayOffer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member relays for the others at its own addresses; what counts is whether the NetworkSpec lets it."""

    udp_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    tls_port: Annotated[int, Meta(ge=1, le=65_535)] | None = None
    certificate_sha256: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None


class NodeRecord(_Document, frozen=True, kw_only=True):
    """What a node says of itself: how to reach it and by which WireGuard key. ``version`` is its sequence number."""

    KIND = "node"

    node: Key
    wireguard_key: Key
    next_wireguard_key: Key | None = None
    """Announced before it takes the place of ``wireguard_key``, so that a partitioned peer knows it in time."""
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=64)] = ()
    reachability: Literal["unknown", "hidden", "hidden-dual-stack", "public"] = "unknown"
    nat: Text = ""
    """How its NAT behaves, in words that paths/nat.py reads; empty: not known. A hint for hole punching, no more."""
    relay: RelayOffer | None = None

    @property
    def subject(self) -> bytes:
        return self.node


class Ticket(_Document, frozen=True, kw_only=True):
    """What a person pastes to join: where to enrol, and the secret of an invite. It is a secret itself."""

    KIND = "ticket"

    name: Name
    """The network's."""
    coordinators: Annotated[tuple[Coordinator, ...], Meta(min_length=1, max_length=4)]
    secret: Annotated[bytes, Meta(min_length=16, max_length=64)]
    not_after: Seconds

    def __repr__(self) -> str:
        return f"Ticket(name={self.name!r}, …)"


Document = NetworkSpec | Membership | Revocation | NodeRecord | Ticket

KINDS: Final[dict[str, type[Document]]] = {
    kind.KIND: kind for kind in (NetworkSpec, Membership, Revocation, NodeRecord, Ticket)
}


class DocumentKey(NamedTuple):
    """What a document is about; of two with equal keys the one with the greater version counts."""

    kind: str
    subject: bytes = b""


def _network6(text: str) -> IPv6Network:
    network = canonical_network(text)
    if isinstance(network, IPv6Network):
        return network
    raise ValueError(f"{text} is not an IPv6 prefix")


def _network4(text: str) -> IPv4Network:
    network = canonical_network(text)
    if isinstance(network, IPv4Network):
        return network
    raise ValueError(f"{text} is not an IPv4 prefix")
