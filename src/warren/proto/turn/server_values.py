"""What a TURN server knows of its clients (RFC 8656 §3.2): allocations, permissions, channels.

A driver that moves data reads these objects itself: channel → peer in :attr:`Allocation.channels`, peer → channel in
:attr:`Allocation.channel_of`, and compares the two times of expiry. Only the server changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, NamedTuple, Protocol

from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

SocketAddress = tuple[Any, ...]
"""As Python's socket module gives it: (host, port), or (host, port, flow info, scope) for IPv6."""

UDP: Final = "udp"
TCP: Final = "tcp"
TLS: Final = "tls"

LIFETIME_S: Final = 600
"""Of an allocation, unless the client asks for more (RFC 8656 §3.2)."""
LIFETIME_MAX_S: Final = 3600
PERMISSION_S: Final = 300.0  # RFC 8656 §9
CHANNEL_S: Final = 600.0  # RFC 8656 §12
RESERVATION_S: Final = 30.0  # RFC 8656 §7.2
CHANNELS: Final = range(0x4000, 0x8000)
"""Those of RFC 5766 §11: clients from before RFC 8656, which left a quarter of them, choose among all."""


class Client(NamedTuple):
    """One 5-tuple: how a client reaches the server."""

    transport: str
    """``udp``, ``tcp`` or ``tls``."""
    remote: SocketAddress
    local: bytes | int
    """The server's side of it, as the driver wants it back: the address a datagram was sent to, or the number of a
    connection.
    """
    listener: int = 0
    """Which of the server's ports."""


class RelayedPort:
    """One relayed transport address. ``handle`` is the driver's; ``address`` is what peers send to, as the outside
    sees it.
    """

    __slots__ = ("address", "allocation", "family", "handle", "port")

    def __init__(self, allocation: Allocation, family: int, port: int, address: SocketAddress, handle: object) -> None:
        self.allocation = allocation
        self.family = family
        self.port = port
        self.address = address
        self.handle = handle


class Permission:
    """Peers at one IP address may send to the client, and it to them, until ``expires_at``."""

    __slots__ = ("expires_at",)

    def __init__(self, expires_at: float) -> None:
        self.expires_at = expires_at


class Channel:
    __slots__ = ("expires_at", "number", "peer", "permission", "relayed")

    def __init__(
        self, number: int, peer: SocketAddress, relayed: RelayedPort, permission: Permission, expires_at: float
    ) -> None:
        self.number = number
        self.peer = peer
        self.relayed = relayed
        self.permission = permission
        self.expires_at = expires_at

    def is_open(self, now: float) -> bool:
        """Whether data may pass: a channel is of no use without its permission, which ends earlier (RFC 8656 §12)."""
        return now < self.expires_at and now < self.permission.expires_at


class Allocation:
    __slots__ = (
        "channel_of",
        "channels",
        "client",
        "expires_at",
        "handle",
        "heard_at",
        "identity",
        "permissions",
        "relayed",
        "response",
        "transaction",
        "username",
    )

    def __init__(self, client: Client, username: str, identity: str, now: float) -> None:
        self.client = client
        self.username = username
        self.identity = identity
        """Whose it is, for quotas and shares: the same however often the credentials are renewed."""
        self.expires_at = now
        self.heard_at = now
        """When the client last proved its password here, or sent data (the driver keeps that up roughly)."""
        self.relayed: dict[int, RelayedPort] = {}
        """By family, 4 and 6."""
        self.permissions: dict[str, Permission] = {}
        """By the peer's address, written as the socket module does."""
        self.channels: dict[int, Channel] = {}
        self.channel_of: dict[SocketAddress, Channel] = {}
        self.transaction = b""
        self.response = b""
        self.handle: object = None
        """The driver's."""

    def permits(self, host: str, now: float) -> bool:
        permission = self.permissions.get(host)
        return permission is not None and now < permission.expires_at


class Credentials(Protocol):
    """Who may use the server."""

    def passwords(self, username: str) -> tuple[str, ...]:
        """Those that are good now: several while a secret is being replaced; none for who is unknown or expired."""

    def identity(self, username: str) -> str:
        """Whose name that is."""


class Sockets(Protocol):
    """What the server has its driver do at once, since a port can be taken by somebody else on the host."""

    def open_relayed(self, family: int, port: int) -> object | None:
        """A handle for a fresh UDP socket with this port on the relay's address; None: it cannot be had."""

    def close_relayed(self, handle: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """``addresses``: the relay's addresses as peers reach them, at most one of each family."""

    addresses: tuple[IPAddress, ...]
    realm: str = "warren"
    ports: range = range(49152, 65536)
    """For relayed addresses; RFC 8656 §7.2 recommends the dynamic ones."""
    own_ports: frozenset[int] = frozenset()
    """Ports of the relay's own host that are peers like any other: of a WireGuard tunnel, for instance."""
    allocations_max: int = 4096
    allocations_per_user: int = 16
    allocations_per_prefix: int = 256
    """Of one IPv4 address or IPv6 /64."""
    permissions_max: int = 512
    channels_max: int = 512
    """Of each allocation, as ``permissions_max``."""

    def address_of(self, family: int) -> IPAddress | None:
        return next((address for address in self.addresses if address.version == family), None)


class ToClient(NamedTuple):
    client: Client
    data: bytes


class ToPeer(NamedTuple):
    """A datagram for ``peer``, from the relayed address."""

    relayed: RelayedPort
    peer: SocketAddress
    data: bytes
    dont_fragment: bool


class Opened(NamedTuple):
    allocation: Allocation


class Closed(NamedTuple):
    """Its relayed ports have been given back; the driver forgets the rest."""

    allocation: Allocation
    why: str


Transmit = ToClient | ToPeer
Event = Opened | Closed


def socket_address(address: TransportAddress) -> SocketAddress:
    """As the socket module writes it, so that it compares equal with what comes from there."""
    if isinstance(address.ip, IPv4Address):
        return str(address.ip), address.port
    return str(address.ip), address.port, 0, 0


def transport_address(address: SocketAddress) -> TransportAddress:
    """Of a numeric socket address. An IPv4 one that an IPv6 socket wrote as ``::ffff:…`` becomes IPv4."""
    return TransportAddress(unmapped(ip_address(address[0].partition("%")[0])), address[1])
