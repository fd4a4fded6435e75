"""What a WireGuard tunnel is told and what it says of itself: the values every engine understands.

A :class:`TunnelChange` is one atomic request (the ``set`` of the cross-platform UAPI); a :class:`TunnelStatus` is one
consistent answer (its ``get``). ``None`` in a change means "leave as it is".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from warren.identity.keys import PresharedKey, PrivateKey, PublicKey

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class TransportAddress:
    """An IP address and UDP port (RFC 8445's word). ``scope`` is the interface index of a link-local IPv6 address."""

    ip: IPAddress
    port: int
    scope: int = 0

    def __str__(self) -> str:
        if isinstance(self.ip, IPv6Address):
            zone = f"%{self.scope}" if self.scope else ""
            return f"[{self.ip}{zone}]:{self.port}"
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Way:
    """How packets to an endpoint leave this host. The default is what plain WireGuard does: from the tunnel's own port,
    by the kernel's choice of address and interface, to the endpoint itself.
    """

    source: IPAddress | None = None
    """A local address; None: the kernel chooses."""
    interface: int = 0
    """The index of the interface they leave by; 0: by the routes."""
    channel: int = 0
    """The endpoint is a TURN server's, and packets travel as ChannelData of this channel (RFC 8656 §12); 0: none."""
    socket: int = 0
    """The number of a socket that was handed to the data plane, from which they leave; 0: the tunnel's own port."""


PLAIN = Way()


@dataclass(frozen=True, slots=True)
class PeerChange:
    """What to change of one peer, named by its public key; the peer is made if it does not exist."""

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    """Change the peer only if it already exists."""
    preshared_key: PresharedKey | None = None
    """All zero removes the key."""
    endpoint: TransportAddress | None = None
    way: Way | None = None
    """How to get to ``endpoint``, which has to be given with it; None: the plain way."""
    pinned: bool | None = None
    """The endpoint is the controller's business: while one listens (engine/base.py), authenticated packets from
    elsewhere do not change it, and are told to the controller. Without a listener the peer roams as in any WireGuard.
    """
    persistent_keepalive_s: int | None = None
    """0 switches it off."""
    replace_allowed_ips: bool = False
    """Forget all allowed IPs before adding ``allowed_ips``."""
    allowed_ips: tuple[IPNetwork, ...] = ()
    removed_allowed_ips: tuple[IPNetwork, ...] = ()
    renamed_from: PublicKey | None = None
    """The peer known by this key has a new one, ``public_key``, and is otherwise the same: sessions, allowed IPs,
    endpoint, counters, timers and waiting packets stay, and the rest of this change applies to it. From now on only
    handshakes with the new key succeed.

    The whole change is refused when no peer has the old key (with ``update_only`` this part of it is passed over
    instead), when the new key is a peer's already or the tunnel's own, or together with ``remove``. Changes happen in
    order, so keys may move along a chain; ``replace_peers`` leaves nobody to be renamed.
    """


@dataclass(frozen=True, slots=True)
class TunnelChange:
    """One atomic change of a tunnel: everything in it happens, or nothing."""

    private_key: PrivateKey | None = None
    """All zero removes the key: the tunnel then neither sends nor accepts anything."""
    listen_port: int | None = None
    """0 lets the kernel choose."""
    fwmark: int | None = None
    """0 removes the mark."""
    replace_peers: bool = False
    """Forget all peers before applying ``peers``."""
    peers: tuple[PeerChange, ...] = ()
    keep_sessions: bool = False
    """A new ``private_key`` leaves present sessions good until their own time is up (at most 180 s), so that nothing
    is lost until the peers know the new key. Otherwise nothing more is sent under them, as in the kernel.
    """


@dataclass(frozen=True, slots=True)
class PeerStatus:
    public_key: PublicKey
    preshared_key: PresharedKey | None
    endpoint: TransportAddress | None
    allowed_ips: tuple[IPNetwork, ...]
    persistent_keepalive_s: int
    last_handshake_ns: int
    """Wall-clock time of the last completed handshake, ns since 1970; 0: never."""
    tx_bytes: int
    """Bytes of authenticated messages sent, headers included, as the reference implementations count."""
    rx_bytes: int
    handshake_rtt_ns: int = 0
    """From sending the last handshake that we began and the peer answered to the arrival of the answer to that very
    attempt; it includes the work of both sides, about a millisecond. 0: unknown.
    """
    way: Way = PLAIN
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    private_key: PrivateKey | None
    listen_port: int
    fwmark: int
    peers: tuple[PeerStatus, ...] = field(default=())
