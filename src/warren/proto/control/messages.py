"""What a node and a coordinator say to each other: one msgpack message per binary WebSocket frame.

::

    node                                    coordinator
     │ ◀──────────────── Welcome ────────────── │   its time, its nonce
     │ ── Authenticate (or Enrol) ────────────▶ │   signed, bound to the TLS channel
     │ ◀── Accepted (or Refused, and the end) ─ │
     │ ◀── Update, Update … (the map) ───────── │   first what is missing since `since`, then every change
     │ ── Publish, Report, Signal ────────────▶ │
     │ ◀── Published, Signal, Undeliverable ─── │

Documents travel as envelopes; who receives one verifies it. A message that does not parse ends the connection.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.envelope import Envelope
from warren.model.parts import Key, Name, Seconds, Text
from warren.proto.stun.attributes import USERNAME_BYTES_MAX

PROTOCOL_VERSION: Final = 1
SUBPROTOCOL: Final = "warren.node.1"
"""The WebSocket subprotocol (RFC 6455 §1.9)."""
PATH: Final = "/v1/node"

UPDATE_BYTES_MAX: Final = 1 << 20
"""About how much of a map goes into one Update."""
MESSAGE_BYTES_MAX: Final = 4 << 20
"""To a node: an Update with the largest document."""
NODE_MESSAGE_BYTES_MAX: Final = 256 << 10
"""From a node: a full status report of 1,000 peers."""
UNAUTHENTICATED_BYTES_MAX: Final = 4 << 10
SIGNAL_BYTES_MAX: Final = 4 << 10
NONCE_BYTES: Final = 32

_ENROL_DOMAIN: Final = b"warren enrol 1\0"
_AUTHENTICATE_DOMAIN: Final = b"warren authenticate 1\0"

Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A message; ``type`` tells which."""


# From the coordinator


class Welcome(_Message, frozen=True, kw_only=True, tag="welcome"):
    """The first message. ``time`` is the coordinator's clock, by which leases are judged."""

    protocol: int
    nonce: Nonce
    time: float
    version: Text = ""


class Accepted(_Message, frozen=True, kw_only=True, tag="accepted"):
    """The node is a member. ``observed`` is the source address its connection comes from."""

    time: float
    observed: Text
    report_every_s: float = 60.0


class Refused(_Message, frozen=True, kw_only=True, tag="refused"):
    """Why not: a problem as in RFC 9457. The connection ends after it.

    ``kind`` is for programs: ``protocol``, ``unknown-network``, ``not-a-member``, ``revoked``, ``bad-proof``,
    ``ticket-unknown``, ``ticket-expired``, ``ticket-used``, ``name-taken``, ``key-taken``, ``no-address``, ``limit``,
    ``unavailable``.
    """

    kind: Text
    title: Text
    detail: Annotated[str, Meta(max_length=1024)] = ""
    remedy: Annotated[str, Meta(max_length=1024)] = ""
    retry_after_s: float | None = None
    """None: trying again will not help."""


class Update(_Message, frozen=True, kw_only=True, tag="update"):
    """A change of the map: documents to take, and members to forget.

    ``revision`` is where the node stands once it has this and everything before; while ``more`` follows it does not
    count yet. ``whole``: the map begins anew; what was not named when the last part is in, is gone.
    """

    revision: Seconds
    whole: bool = False
    more: bool = False
    put: tuple[Envelope, ...] = ()
    drop: tuple[Key, ...] = ()
    """Nodes whose Membership and NodeRecord are to be forgotten."""


class Published(_Message, frozen=True, kw_only=True, tag="published"):
    """The NodeRecord of that version is stored and on its way to the others."""

    version: int


class Undeliverable(_Message, frozen=True, kw_only=True, tag="undeliverable"):
    """A Signal's destination is not connected."""

    to: Key


# From the node


class Authenticate(_Message, frozen=True, kw_only=True, tag="authenticate"):
    """A member comes back. ``signature`` is over :func:`authentication_bytes`."""

    protocol: int
    network: Key
    node: Key
    signature: Signature
    since: Seconds = 0
    """The revision of the map that the node has; 0: none."""
    version: Text = ""


class Enrol(_Message, frozen=True, kw_only=True, tag="enrol"):
    """A node wants to become a member by a ticket's secret. ``signature`` is over :func:`enrolment_bytes`.

    Once it has succeeded, repeating it with the same node key succeeds again: an answer may get lost.
    """

    protocol: int
    network: Key
    node: Key
    signature: Signature
    secret: Annotated[bytes, Meta(min_length=16, max_length=64)]
    name: Name
    """What the node would like to be called; the coordinator appends a number when that is taken."""
    version: Text = ""

    def __repr__(self) -> str:
        return f"Enrol(name={self.name!r}, …)"


class Publish(_Message, frozen=True, kw_only=True, tag="publish"):
    """The node's new NodeRecord."""

    record: Envelope


class Interface(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network interface of the node's host, for the inventory (R18)."""

    name: Text
    mac: Text = ""
    addresses: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    up: bool = True


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that the documents ask of this node, and whether it is done (R12)."""

    name: Text
    """``address fd00:…::1/64``, ``policy``, ``dns`` …"""
    state: Literal["done", "failed", "pending"]
    reason: Annotated[str, Meta(max_length=1024)] = ""
    """Why it is not done, and what to do; empty when it is."""


class Peering(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A peer as this node sees it."""

    node: Key
    endpoint: Text = ""
    handshake_age_s: float | None = None
    rtt_ms: float | None = None
    tx_bytes: int = 0
    rx_bytes: int = 0


class Report(_Message, frozen=True, kw_only=True, tag="report"):
    """How the node is. Sent when something changed, and every ``report_every_s``."""

    uptime_s: float
    version: Text = ""
    system: Text = ""
    revision: Seconds = 0
    reachability: Text = "unknown"
    stated: Annotated[tuple[Text, ...], Meta(max_length=64)] = ()
    """The operator's word on addresses, gateways and segment (public config, R11)."""
    interfaces: Annotated[tuple[Interface, ...], Meta(max_length=64)] = ()
    tasks: Annotated[tuple[Task, ...], Meta(max_length=1024)] = ()
    peers: Annotated[tuple[Peering, ...], Meta(max_length=1024)] = ()


class Signal(_Message, frozen=True, kw_only=True, tag="signal"):
    """Bytes from one member to another, through the coordinator. ``node`` is who they are for or come from."""

    node: Key
    data: Annotated[bytes, Meta(max_length=SIGNAL_BYTES_MAX)]


class RelayCredential(msgspec.Struct, frozen=True, kw_only=True):
    """A time-limited username and password for one relay of the NetworkSpec (draft-uberti-behave-turn-rest)."""

    relay: Name
    username: Text
    password: Text
    not_after: Seconds

    def __post_init__(self) -> None:
        if len(self.username.encode()) > USERNAME_BYTES_MAX:
            raise ValueError("a user name is too long for a relay")

    def __repr__(self) -> str:
        return f"RelayCredential(relay={self.relay!r}, …)"


class RelayAccess(_Message, frozen=True, kw_only=True, tag="relay-access"):
    """What this node needs to use the relays: sent after Welcome's Accepted, and again well before it runs out. It
    replaces what was sent before.
    """

    credentials: Annotated[tuple[RelayCredential, ...], Meta(max_length=16)] = ()


class Leave(_Message, frozen=True, kw_only=True, tag="leave"):
    """The node gives its membership up; the coordinator forgets it at once and ends the connection."""


ToNode = Welcome | Accepted | Refused | Update | Published | Undeliverable | Signal | RelayAccess
FromNode = Authenticate | Enrol | Publish | Report | Signal | Leave

M = TypeVar("M")

_encoder: Final = msgspec.msgpack.Encoder()
_to_node: Final[msgspec.msgpack.Decoder[ToNode]] = msgspec.msgpack.Decoder(ToNode)
_from_node: Final[msgspec.msgpack.Decoder[FromNode]] = msgspec.msgpack.Decoder(FromNode)


def pack(message: ToNode | FromNode) -> bytes:
    return _encoder.encode(message)


def unpack_to_node_untrusted(data: bytes | memoryview) -> ToNode:
    """Raises MalformedPacket, and nothing else."""
    return _unpack(_to_node, data, MESSAGE_BYTES_MAX)


def unpack_from_node_untrusted(data: bytes | memoryview, *, authenticated: bool) -> FromNode:
    """Raises MalformedPacket, and nothing else."""
    return _unpack(_from_node, data, NODE_MESSAGE_BYTES_MAX if authenticated else UNAUTHENTICATED_BYTES_MAX)


def _unpack(decoder: msgspec.msgpack.Decoder[M], data: bytes | memoryview, limit: int) -> M:
    if len(data) > limit:
        raise MalformedPacket(f"a message of {len(data)} bytes; {limit} are the most")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not a message: {error}") from None


# Proofs


def authentication_bytes(network: VerifyKey, nonce: bytes, certificate_sha256: bytes) -> bytes:
    """What a node signs to prove who it is: on this network, to this nonce, through the TLS channel of exactly this
    certificate (``tls-server-end-point``, RFC 5929 §4), so that nobody in between can pass the proof on.
    """
    return b"%b%b%b%b" % (_AUTHENTICATE_DOMAIN, network.raw, nonce, certificate_sha256)


def enrolment_bytes(network: VerifyKey, nonce: bytes, certificate_sha256: bytes, secret: bytes) -> bytes:
    """What a node signs to enrol: the same, and the secret of its ticket."""
    return b"%b%b%b%b%b" % (_ENROL_DOMAIN, network.raw, nonce, certificate_sha256, secret)


_STATEMENT_DOMAIN: Final = b"warren coordinator certificate 1\0"


def certificate_statement(key: SigningKey, certificate_sha256: bytes) -> bytes:
    """A coordinator's word that this TLS certificate is its own. Replicas sign with one key, each for its own
    certificate; whoever pinned the key then trusts the certificate, whatever issued it.
    """
    return key.sign(_STATEMENT_DOMAIN + certificate_sha256)


def certificate_is_stated(key: VerifyKey, certificate_sha256: bytes, statement: bytes) -> bool:
    return key.verifies(statement, _STATEMENT_DOMAIN + certificate_sha256)
