"""The words of port mapping: gateways, what is held at them, what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final, Literal

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress

ProtocolName = Literal["pcp", "nat-pmp", "upnp"]

LIFETIME_WANTED_S: Final = 7200.0
"""RFC 6886 §3.3 recommends it, and PCP and UPnP gateways take it."""
LIFETIME_LEAST_S: Final = 20.0
"""A gateway that gives less is not worth the packets: it would be asked all the time."""
LIFETIME_MOST_S: Final = 86_400.0
"""Whatever a gateway promises, it is asked again within a day."""

_HIDDEN: Final[tuple[IPNetwork, ...]] = (
    IPv4Network("10.0.0.0/8"),  # RFC 1918
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # RFC 6598: behind a carrier's NAT
    IPv4Network("192.0.0.0/24"),  # RFC 7335: behind DS-Lite or 464XLAT
    IPv6Network("fc00::/7"),  # RFC 4193
)
_NOT_A_HOST: Final[tuple[IPNetwork, ...]] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/3"),  # multicast, reserved and broadcast
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::ffff:0:0:0/96"),
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("100::/64"),
    IPv6Network("2001::/32"),  # Teredo
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A default router of this host, as seen from one of the host's addresses."""

    address: IPAddress
    """The only address that is talked to, and whose answers are believed; an IPv6 one is usually link-local."""
    interface: int
    """The index of the interface it is behind."""
    source: IPAddress
    """The host's own address, for which ways in are asked."""

    def __str__(self) -> str:
        return f"gateway {self.address} (from {self.source})"


@dataclass(frozen=True, slots=True)
class Lease:
    """A way in that a gateway has given: what arrives at ``external`` is passed on to the host's ``internal_port``."""

    protocol: ProtocolName
    internal_port: int
    external: TransportAddress
    lifetime_s: float
    """From the answer on, within the bounds of this module."""
    permanent: bool = False
    """The gateway would keep it for ever (UPnP error 725): it must be released."""
    token: str = field(default="", repr=False)
    """What the protocol needs to find it again."""
    double_nat: bool = False
    """The address is a private one: the gateway is itself behind another NAT."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no way in by this protocol; ``why`` completes the sentence "the gateway …"."""

    why: str
    retry_after_s: float | None = None
    """How long the gateway says that this holds (RFC 6887 §7.2); None: it does not say."""
    silent: bool = False
    """Nobody answered: nothing is known about what the gateway holds."""


@dataclass(frozen=True, slots=True)
class Found:
    """That a gateway speaks a protocol. ``detail`` is the gateway's own word: printable and short, to be shown only."""

    gateway: Gateway
    protocol: ProtocolName
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A way in that is held now."""

    address: TransportAddress
    """Where the outside gets in; never port 0, never a special address. With IPv6 usually the host's own."""
    protocol: ProtocolName
    expires_in_s: float
    """If it were not renewed."""
    verified: bool = False
    """Something came in from outside, or the outside sees this host at that very address. What is not verified is the
    gateway's word only.
    """
    double_nat: bool = False
    """The address is not this site's public one; hosts between the two NATs may reach it."""
    gateway: Gateway | None = None


def external_untrusted(address: IPAddress, port: int) -> tuple[TransportAddress, bool]:
    """A gateway's word for where the outside gets in, and whether that is behind another NAT.

    Raises MalformedPacket for what no host can have: port 0, special addresses.
    """
    if not 1 <= port <= 65_535:
        raise MalformedPacket(f"the external port is {port}")
    if any(address in network for network in _NOT_A_HOST if network.version == address.version):
        raise MalformedPacket(f"the external address is {address}")
    return TransportAddress(address, port), any(address in network for network in _HIDDEN)


def lifetime_untrusted(seconds: float) -> float:
    """A gateway's lifetime within our bounds. Raises MalformedPacket when it is too short to keep."""
    if seconds < LIFETIME_LEAST_S:
        raise MalformedPacket(f"the lifetime is {seconds:g} s")
    return min(float(seconds), LIFETIME_MOST_S)


def is_ipv4(gateway: Gateway) -> bool:
    return isinstance(gateway.address, IPv4Address)
