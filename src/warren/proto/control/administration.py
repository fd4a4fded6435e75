"""What a coordinator is asked by administrators and answers: the bodies of its REST API, as values.

The OpenAPI description is made from here, and the client of the command line uses the same structs. Times are RFC 3339
text in UTC on the wire (``datetime`` here), keys their 52-character text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from warren.model.parts import NAME_PATTERN, SUFFIX_CHARACTERS_MAX, SUFFIX_PATTERN, TAG_PATTERN
from warren.model.services import Connector, Service
from warren.proto.control.messages import Interface, Task
from warren.proto.control.spans import INVITE_S_MAX, TOKEN_S_MAX

NameText = Annotated[str, Meta(pattern=NAME_PATTERN, description="a DNS label: a-z, 0-9 and inner hyphens")]
TagText = Annotated[str, Meta(pattern=TAG_PATTERN)]
KeyText = Annotated[str, Meta(pattern=r"^[a-z2-7]{52}$(?!\n)", description="an Ed25519 public key in base32")]
Note = Annotated[str, Meta(max_length=256)]

PortNumber = Annotated[int, Meta(ge=1, le=65_535)]
HOST_PATTERN: Final = (
    r"^([0-9a-fA-F]*(:[0-9a-fA-F.]*){2,}|[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?)$(?!\n)"
)
"""An IP address or a DNS name, as far as a pattern tells."""

LEASE_S_MIN, LEASE_S_MAX = 60, 30 * 86_400


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body, or a part of one. A key that it does not have is refused, since it may be misspelt."""


# Actors


class Actor(Value, frozen=True, kw_only=True):
    """Who asks: made from a verified token by the one function that does so, and by nothing else."""

    name: str
    """For the audit log: ``token:LABEL`` or ``node:NAME``."""
    role: Literal["admin", "reader"]
    network: KeyText | None = None
    """The only network this actor may see; None: all."""
    token: str = ""
    """The id of that token: whether it still stands is asked again in every transaction that writes."""


class TokenRequest(Value, frozen=True, kw_only=True):
    label: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Literal["admin", "reader"] = "admin"
    network: KeyText | NameText | None = None
    ttl_s: Annotated[int, Meta(ge=1, le=TOKEN_S_MAX)]


class Token(Value, frozen=True, kw_only=True):
    id: str
    label: str
    role: Literal["admin", "reader"]
    network: KeyText | None
    created: datetime
    expires: datetime


class NewToken(Token, frozen=True, kw_only=True):
    secret: str
    """Shown this once; the coordinator keeps a hash of it."""


# Networks


class NetworkRequest(Value, frozen=True, kw_only=True):
    name: NameText
    prefix4: Annotated[str, Meta(max_length=18)] | None = None
    """An IPv4 block for the members, such as 10.77.0.0/16; private or shared address space (RFC 1918, RFC 6598)."""
    suffix: Annotated[str, Meta(pattern=SUFFIX_PATTERN, max_length=SUFFIX_CHARACTERS_MAX)] = "internal"
    lease_s: Annotated[int, Meta(ge=LEASE_S_MIN, le=LEASE_S_MAX)] = 86_400


class Network(Value, frozen=True, kw_only=True):
    id: KeyText
    name: NameText
    prefix6: str
    prefix4: str | None
    suffix: str
    lease_s: int
    version: int
    """Of its NetworkSpec."""
    revision: int
    """Of its map: grows with every change of any document."""
    members: int
    created: datetime


# Invites


class InviteRequest(Value, frozen=True, kw_only=True):
    uses: Annotated[int, Meta(ge=1, le=100_000)] = 1
    ttl_s: Annotated[int, Meta(ge=1, le=INVITE_S_MAX)] = 3600
    tags: Annotated[tuple[TagText, ...], Meta(max_length=64)] = ()
    ephemeral: bool = False


class Invite(Value, frozen=True, kw_only=True):
    id: str
    uses: int
    used: int
    tags: tuple[TagText, ...]
    ephemeral: bool
    created: datetime
    expires: datetime
    revoked: bool


class NewInvite(Invite, frozen=True, kw_only=True):
    ticket: str
    """What a person pastes; shown this once."""


# Relays


class RelayRequest(Value, frozen=True, kw_only=True):
    """A TURN server that members may use: our own or coturn. It takes names and passwords made from ``secret``."""

    name: NameText
    hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=HOST_PATTERN, max_length=253)], ...], Meta(min_length=1, max_length=8)
    ]
    """IP addresses or DNS names, all of this one server."""
    udp_port: PortNumber | None = 3478
    tcp_port: PortNumber | None = None
    tls_port: PortNumber | None = None
    certificate_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")] | None = None
    """Of the certificate's DER form; without it, one that certificate authorities vouch for is needed."""
    secret: Annotated[str, Meta(min_length=16, max_length=256)]

    def __repr__(self) -> str:
        return f"RelayRequest(name={self.name!r}, …)"


class RelayEntry(Value, frozen=True, kw_only=True):
    name: NameText
    hosts: tuple[str, ...]
    udp_port: int | None
    tcp_port: int | None
    tls_port: int | None
    certificate_sha256: str | None
    own: bool
    """Run by a coordinator itself, for all networks."""
    created: datetime


# Services and connectors


class Hindrance(Value, frozen=True, kw_only=True):
    """Why a member does not do what it is named for in a service or connector."""

    member: NameText
    state: Literal["failed", "pending", "away"]
    """``away``: it is not connected, so nothing is known of it."""
    reason: str
    """A sentence with what to do, as the member said it last."""


class ServiceRequest(Service, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A service to be, with its name."""


class ServiceEntry(ServiceRequest, frozen=True, kw_only=True, omit_defaults=False):
    """A service as it is; ``port`` is filled in."""

    full_name: str
    """Whose AAAA records are the addresses where it is served."""
    served_by: tuple[NameText, ...]
    """The members that are to serve it, the first few."""
    served_by_count: int
    connectors: tuple[NameText, ...]
    """That lead to it."""
    warnings: tuple[str, ...]
    """What is perhaps not meant."""
    working_count: int = 0
    """How many of the members serve it now, as they said last."""
    hindered: tuple[Hindrance, ...] = ()
    """The others, the first few."""


class ConnectorRequest(Connector, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A connector to be, with its name."""


class ConnectorEntry(ConnectorRequest, frozen=True, kw_only=True, omit_defaults=False):
    """A connector as it is; ``listen`` is filled in."""

    taken_by: tuple[NameText, ...]
    """The members that are to take streams for it, the first few."""
    taken_by_count: int
    warnings: tuple[str, ...]
    """What is perhaps not meant."""
    working_count: int = 0
    """How many of the members take streams for it now, as they said last."""
    hindered: tuple[Hindrance, ...] = ()
    """The others, the first few."""


# Members


class Member(Value, frozen=True, kw_only=True):
    id: KeyText
    name: NameText
    prefix6: str
    address6: str
    address4: str | None
    tags: tuple[TagText, ...]
    routes: tuple[str, ...]
    ephemeral: bool
    joined: datetime
    lease_ends: datetime
    connected: bool
    connected_since: datetime | None
    last_seen: datetime | None
    reachability: str
    observed: str
    """The source address of its connection to the coordinator; empty: never connected."""
    candidates: tuple[str, ...]


class MemberStatus(Member, frozen=True, kw_only=True):
    """A member with its own last report: the inventory (R18)."""

    stated: tuple[str, ...]
    interfaces: tuple[Interface, ...]
    tasks: tuple[Task, ...]
    version: str
    system: str


class MemberChange(Value, frozen=True, kw_only=True, omit_defaults=True):
    """None: as it is."""

    name: NameText | None = None
    tags: Annotated[tuple[TagText, ...], Meta(max_length=64)] | None = None
    routes: Annotated[tuple[str, ...], Meta(max_length=64)] | None = None


class Revoked(Value, frozen=True, kw_only=True):
    id: KeyText
    name: str
    at: datetime
    lease_ended: datetime
    """Partitioned members drop it then at the latest."""


# Events and status


class Event(Value, frozen=True, kw_only=True):
    """An entry of the audit log."""

    sequence: int
    at: datetime
    actor: str
    action: str
    """``network.create``, ``member.join``, ``policy.apply`` …"""
    network: KeyText | None
    subject: str
    detail: str


class NetworkStatus(Value, frozen=True, kw_only=True):
    network: Network
    connected: int
    members: tuple[MemberStatus, ...]
