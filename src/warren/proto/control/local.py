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
    interfaces: tuple[Interface, ...]
    networks: tuple[Membership, ...]


class Joined(_Value, frozen=True, kw_only=True):
    """The answer to ``Join``."""

    network: str
    name: str
    interface: str
    addresses: tuple[str, ...]
