"""What relay selection speaks of: relays as this node may use them, and what has become of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from warren.model.tunnel import TransportAddress
from warren.paths.values import Base

Transport = Literal["udp", "tls", "tcp"]
STREAMS: tuple[Transport, ...] = ("tls", "tcp")


@dataclass(frozen=True, slots=True)
class RelayPlace:
    """A relay, and how this node may use it. ``name`` is unique among those of the network."""

    name: str
    hosts: tuple[str, ...]
    """IP addresses or DNS names, all of one server."""
    udp_port: int | None = None
    tcp_port: int | None = None
    tls_port: int | None = None
    certificate_sha256: bytes | None = None
    username: str = ""
    """Empty: there are no credentials (yet); it is then asked for addresses only."""
    password: str = field(default="", repr=False)

    def port(self, transport: Transport) -> int | None:
        return {"udp": self.udp_port, "tls": self.tls_port, "tcp": self.tcp_port}[transport]

    def streams(self) -> tuple[Transport, ...]:
        """The ways to it that need no UDP, the better first."""
        return tuple(transport for transport in STREAMS if self.port(transport) is not None)


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """How this node stands with a relay, for people."""

    name: str
    state: Literal["ready", "asking", "standby", "failed"]
    """``standby``: it answers, and better ones are in use."""
    transport: Transport | None
    address: TransportAddress | None
    relayed: tuple[TransportAddress, ...]
    rtt_s: float | None
    why: str
    """What is wrong, in one sentence; empty: nothing."""


# What Relays wants done


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find the addresses of ``hosts``, and call ``resolved``."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a stream to the relay, and call ``connected`` or ``not_connected``."""

    place: RelayPlace
    transport: Transport


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the stream that was opened."""

    name: str
    transport: Transport


Wish = Resolve | Connect | Disconnect


# What Relays tells


@dataclass(frozen=True, slots=True)
class Came:
    """``data`` came from ``peer`` through the allocation of ``base``."""

    base: Base
    peer: TransportAddress
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelBound:
    """Packets to ``peer`` can take the channel now."""

    base: Base
    peer: TransportAddress


@dataclass(frozen=True, slots=True)
class BasesChanged:
    """There are other allocations than before."""


@dataclass(frozen=True, slots=True)
class Reflected:
    """A relay sees what leaves by the plain way from this address."""

    relay: str
    mapped: TransportAddress


@dataclass(frozen=True, slots=True)
class UdpBlocked:
    """Whether it looks as if this node's network lets no UDP out."""

    blocked: bool


Event = Came | ChannelBound | BasesChanged | Reflected | UdpBlocked
