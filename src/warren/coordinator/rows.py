"""The tables of a coordinator's database, as values: one struct for a row, with the keys that hold.

The ``networks`` table holds each network's authority key, and ``facts`` the coordinator's own identity key, as they
are: who can read the database can sign for every network in it. An SQLite file is therefore made 0600, and a
PostgreSQL database is to be readable by the coordinator's role only. Secrets of tokens and invites are there as
SHA-256 hashes; each has at least 128 random bits, so nothing is gained from guessing.

Columns are int, float, str, bytes, bool, or a tuple of str; ``| None`` where nothing may stand. Times are seconds
since 1970, keys 32 raw bytes.
"""

from __future__ import annotations

from typing import ClassVar, Final, TypeVar

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row. ``KEY`` names the columns of the primary key, in order. A column ``network`` refers to a row of
    ``networks``.
    """

    TABLE: ClassVar[str]
    KEY: ClassVar[tuple[str, ...]]
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = ()
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = ()


R = TypeVar("R", bound=Row)


class FactRow(Row, frozen=True, kw_only=True):
    """Single values: the coordinator's identity, and what happened once."""

    TABLE = "facts"
    KEY = ("name",)

    name: str
    value: bytes


class UrlRow(Row, frozen=True, kw_only=True):
    """Where this coordinator or one of its replicas answers."""

    TABLE = "urls"
    KEY = ("url",)

    url: str
    seen: float


class TokenRow(Row, frozen=True, kw_only=True):
    TABLE = "tokens"
    KEY = ("id",)
    UNIQUE = (("hash",),)

    id: str
    """The first characters of the secret, so that one that was found somewhere can be told."""
    label: str
    role: str
    network: bytes | None
    hash: bytes
    created: float
    expires: float
    revoked: bool


class NetworkRow(Row, frozen=True, kw_only=True):
    TABLE = "networks"
    KEY = ("key",)
    UNIQUE = (("name",),)

    key: bytes
    name: str
    seed: bytes
    """Of the authority's signing key."""
    prefix6: str
    prefix4: str | None
    suffix: str
    lease_s: int
    version: int
    """Of all that an operator decides; the NetworkSpec bears the one at which it last changed."""
    revision: int
    horizon: int
    """Tombstones up to this revision were forgotten: who stands below it needs the whole map."""
    next_slot: int
    """No place was ever given at or above it."""
    tests: bytes
    """Policy tests of the desired state, in JSON."""
    created: float

    def __repr__(self) -> str:
        return f"NetworkRow(name={self.name!r}, …)"


class DocumentRow(Row, frozen=True, kw_only=True):
    """The newest document about one subject; an empty envelope is a tombstone that keeps the version."""

    TABLE = "documents"
    KEY = ("network", "kind", "subject")
    INDEXES = (("network", "revision"),)

    network: bytes
    kind: str
    subject: bytes
    version: int
    revision: int
    changed: float
    envelope: bytes


class KeyRow(Row, frozen=True, kw_only=True):
    """A WireGuard key that a member uses or has announced: nobody else may name it."""

    TABLE = "wireguard_keys"
    KEY = ("network", "key")
    INDEXES = (("network", "node"),)

    network: bytes
    key: bytes
    node: bytes


class MemberRow(Row, frozen=True, kw_only=True):
    TABLE = "members"
    KEY = ("network", "node")
    UNIQUE = (("network", "name"), ("network", "slot"))
    INDEXES = (("renew_at",),)

    network: bytes
    node: bytes
    name: str
    slot: int
    """Which /64 of the network, and which address of its IPv4 block."""
    address4: str | None
    tags: tuple[str, ...]
    routes: tuple[str, ...]
    ephemeral: bool
    joined: float
    lease_ends: float
    lease_last: float
    """When the last of all its leases ends; a shorter one does not take back a longer one."""
    renew_at: float
    version: int
    invite: str
    last_seen: float
    observed: str


class PlaceRow(Row, frozen=True, kw_only=True):
    """A slot that is held (``free_at`` None) or rests until then, with the name that rests with it."""

    TABLE = "places"
    KEY = ("network", "slot")
    INDEXES = (("network", "node"), ("network", "name"), ("network", "free_at"))

    network: bytes
    slot: int
    node: bytes
    name: str
    free_at: float | None


class RevokedRow(Row, frozen=True, kw_only=True):
    """A key that will never be a member again."""

    TABLE = "revoked"
    KEY = ("network", "node")

    network: bytes
    node: bytes
    name: str
    at: float
    lease_ended: float


class InviteRow(Row, frozen=True, kw_only=True):
    TABLE = "invites"
    KEY = ("id",)
    UNIQUE = (("hash",),)
    INDEXES = (("network",), ("expires",))

    id: str
    network: bytes
    hash: bytes
    uses: int
    used: int
    tags: tuple[str, ...]
    ephemeral: bool
    created: float
    expires: float
    revoked: bool


class RelayRow(Row, frozen=True, kw_only=True):
    """A TURN server for the members of ``network``; None: of all, run by a coordinator itself."""

    TABLE = "relays"
    KEY = ("id",)
    INDEXES = (("network",),)

    id: str
    network: bytes | None
    name: str
    relay: bytes
    """A :class:`~warren.model.documents.Relay` in msgpack."""
    secret: bytes
    """Shared with the relay: names and passwords for it are made from this."""
    created: float
    seen: float
    """When its coordinator was last heard of."""

    def __repr__(self) -> str:
        return f"RelayRow(name={self.name!r}, …)"


class EventRow(Row, frozen=True, kw_only=True):
    TABLE = "events"
    KEY = ("sequence",)
    INDEXES = (("network", "sequence"),)

    sequence: int
    at: float
    actor: str
    action: str
    network: bytes | None
    subject: str
    detail: str


class SessionRow(Row, frozen=True, kw_only=True):
    """A connected node, and at which replica."""

    TABLE = "sessions"
    KEY = ("network", "node")
    INDEXES = (("replica",),)

    network: bytes
    node: bytes
    id: str
    replica: str
    since: float
    observed: str


class ReplicaRow(Row, frozen=True, kw_only=True):
    """A running coordinator process; it is dead when its heart has not beaten for a while."""

    TABLE = "replicas"
    KEY = ("id",)

    id: str
    started: float
    heartbeat: float


class ReportRow(Row, frozen=True, kw_only=True):
    """What a node last said of itself."""

    TABLE = "reports"
    KEY = ("network", "node")

    network: bytes
    node: bytes
    at: float
    report: bytes


ROWS: Final[tuple[type[Row], ...]] = (
    FactRow,
    UrlRow,
    TokenRow,
    NetworkRow,
    DocumentRow,
    KeyRow,
    MemberRow,
    PlaceRow,
    RevokedRow,
    InviteRow,
    RelayRow,
    EventRow,
    SessionRow,
    ReplicaRow,
    ReportRow,
)
