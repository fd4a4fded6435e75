"""What the agent answers on its control socket: the values behind ``warren status``, complete.

They travel as JSON (Varlink, https://varlink.org); durations are seconds, times RFC 3339 in UTC, keys their text.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from warren.proto.control.messages import Interface, Task

VARLINK_INTERFACE = "org.warren.Agent"


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    pass


class CoordinatorLink(_Value, frozen=True, kw_only=True):
    """How the agent stands with the coordinator of one network."""

    url: str
    connected: bool
    since: datetime | None
    """Of the present state."""
    error: str
    """Why it is not connected, and what to do; empty when it is."""
    clock_offset_s: float | None
    """The coordinator's clock minus this host's; None: not known yet."""
    observed: str
    """The source address the coordinator sees; empty: none yet."""


class Peer(_Value, frozen=True, kw_only=True):
    """Another member."""

    id: str
    name: str
    fqdn: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    routes: tuple[str, ...]
    lease_ends: datetime
    state: Literal["connected", "idle", "unreachable", "unknown"]
    """``connected``: a session is alive. ``idle``: nothing was sent lately. ``unreachable``: handshakes are not
    answered, or no candidate suits this host. ``unknown``: it has not published a NodeRecord yet."""
    path: Literal["direct", "relayed", "none"]
    endpoint: str
    """Where its packets go; empty: nowhere."""
    rtt_ms: float | None
    """Of the path as the last checks found it, else of the last handshake."""
    handshake_age_s: float | None
    tx_bytes: int
    rx_bytes: int
    candidates: tuple[str, ...]
    relay: str = ""
    """Whose relay the path goes through; empty: none."""
    mtu: int | None = None
    """The largest packet that is known to fit the path, in bytes; None: not measured."""
    why: str = ""
    """Why it is on this path, or on none; a sentence, or empty."""


class Relay(_Value, frozen=True, kw_only=True):
    """A relay that this node may use."""

    name: str
    state: Literal["ready", "asking", "standby", "failed"]
    """``standby``: it answers, and better ones are in use."""
    transport: Literal["udp", "tls", "tcp"] | None
    address: str
    """Where it answers; empty: nowhere yet."""
    relayed: tuple[str, ...]
    """Where it takes packets for this node."""
    rtt_ms: float | None
    why: str
    """What is wrong, a sentence; empty: nothing."""


class Stream(_Value, frozen=True, kw_only=True):
    """Something that takes streams, or flows of datagrams, at this node, and how it stands with it."""

    id: str
    """``forward 127.0.0.1:8080``, ``socks 127.0.0.1:1080``, ``gateway *:443``; of a network ``home: service web``,
    ``home: connector shop``."""
    kind: Literal["service", "connector", "gateway", "forward", "socks", "subnets"]
    origin: Literal["network", "config", "kept", "held"]
    """Who asked for it: a network, agent.toml, a command (until it is removed), a command that still runs."""
    target: str
    """Where it goes, as people wrote it."""
    backends: tuple[str, ...]
    """The members that it goes to, the best first."""
    state: Literal["listening", "pending", "unhealthy", "failed"]
    """``unhealthy``: its target does not answer, so it does not listen. ``failed``: it refuses all, or is not there."""
    reason: str
    """Why it is not listening, and what to do."""
    places: tuple[str, ...]
    """Where it really listens."""
    open: int
    """Streams and flows that are open now."""
    opened: int
    refused: dict[str, int]
    """How many were, by reason: ``source``, ``rate``, ``policy`` …"""
    last_refusal: str
    bytes_in: int
    """From clients."""
    bytes_out: int
    """To clients."""


class Membership(_Value, frozen=True, kw_only=True):
    """What the node is in one network."""

    network: str
    network_id: str
    node_id: str
    name: str
    fqdn: str
    interface: str
    engine: str
    listen_port: int
    wireguard_key: str
    addresses: tuple[str, ...]
    tags: tuple[str, ...]
    routes: tuple[str, ...]
    ephemeral: bool
    state: Literal["up", "degraded", "expired", "revoked", "starting"]
    lease_ends: datetime | None
    map_version: int
    revision: int
    reachability: str
    stated: tuple[str, ...]
    candidates: tuple[str, ...]
    coordinator: CoordinatorLink
    tasks: tuple[Task, ...]
    peers: tuple[Peer, ...]
    warnings: tuple[str, ...]
    relays: tuple[Relay, ...] = ()
    nat: str = ""
    """What stands between this node and the Internet, as it tells others; empty: not known."""
    udp_blocked: bool = False


class AgentStatus(_Value, frozen=True, kw_only=True):
    """All there is to know."""

    version: str
    pid: int
    started: datetime
    host: str
    engine: str
    """``userspace`` or ``rootless``."""
    engine_why: str
    interfaces: tuple[Interface, ...]
    networks: tuple[Membership, ...]
    streams: tuple[Stream, ...] = ()
    """Services, connectors, forwards, SOCKS."""


class Joined(_Value, frozen=True, kw_only=True):
    """The answer to ``Join``."""

    network: str
    name: str
    interface: str
    addresses: tuple[str, ...]


class Attempt(_Value, frozen=True, kw_only=True):
    """One way to a peer that was tried: from where packets leave to where they go."""

    source: str
    """An address of this host, or ``relay NAME``."""
    target: str
    kind: Literal["host", "stated", "mapped", "srflx", "prflx", "relay"]
    """What ``target`` is: an address of the peer itself, the operator's word, mapped by its gateway, as servers see it
    (srflx) or as this node does (prflx), at a relay.
    """
    state: Literal["waiting", "checking", "valid", "failed"]
    selected: bool
    sent: int
    """Checks sent."""
    answered: int
    rtt_ms: float | None
    mapped: str
    """This node's own address as the peer sees it this way; empty: not known."""
    mtu: int | None
    note: str


class Explanation(_Value, frozen=True, kw_only=True):
    """How it stands between this node and another member, and why."""

    network: str
    node: str
    """This node's name."""
    peer: str
    state: Literal["connected", "idle", "unreachable", "unknown"]
    path: Literal["direct", "relayed", "none"]
    endpoint: str
    relay: str
    rtt_ms: float | None
    mtu: int | None
    since_s: float | None
    """How long the path has been in use."""
    why: str
    verdict: str
    """What must be possible, judged by both NATs: ``open``, ``lan``, ``punched``, ``predicted``, ``birthday``, ``tcp``,
    ``relay`` or ``none``; empty: not known.
    """
    verdict_direct: bool | None
    verdict_why: str
    hard: str
    """What is done about a NAT that makes it hard; empty: nothing."""
    nat: str
    peer_nat: str
    attempts: tuple[Attempt, ...]
    relays: tuple[Relay, ...]
    coordinator: CoordinatorLink
    handshake_age_s: float | None
    """Of the tunnel itself; None: there never was one."""
