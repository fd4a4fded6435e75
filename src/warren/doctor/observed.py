"""What was seen of a host and its surroundings, as plain values: what :mod:`warren.doctor.judge` judges by.

Addresses are texts as a person writes them. Everything here goes into ``warren doctor --json``.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Nic(_Value, frozen=True, kw_only=True):
    """A network interface that is up, the overlays' own and loopback left out."""

    name: str
    mtu: int
    addresses: tuple[str, ...] = ()
    """Without link-local ones."""
    gateways: tuple[str, ...] = ()
    """Of its default routes."""
    advertisements: int | None = None
    """IPv6 router advertisements that came in since it is up; None: not known."""
    accepts_advertisements: bool | None = None
    """Whether the kernel heeds them; None: not known."""


class NatSeen(_Value, frozen=True, kw_only=True):
    """RFC 4787 behaviour, in the words of proto/stun/behaviour.py; None: could not be found out."""

    local: str
    mapped: str | None
    translated: bool | None
    mapping: str | None
    filtering: str | None
    allocation: str | None
    hairpin: bool | None
    answered: tuple[str, ...] = ()
    rtt_ms: float | None = None
    discovery: str | None = None
    """The server that helped with RFC 5780."""


class LifetimeSeen(_Value, frozen=True, kw_only=True):
    """An unused mapping lives ``at_least_s``, and less than ``below_s`` (None: longer than was waited)."""

    at_least_s: float
    below_s: float | None


class Family(_Value, frozen=True, kw_only=True):
    """UDP in one address family."""

    version: Literal[4, 6]
    asked: tuple[str, ...] = ()
    """STUN servers of this family."""
    nat: NatSeen | None = None
    """None: nobody was asked, or there is no way to anybody."""
    path_mtu: int | None = None
    """The longest IP packet that was answered; None: not measured."""
    lifetime: LifetimeSeen | None = None
    refused: str = ""
    """Why this host itself refused to send, if it did."""


class GatewaySeen(_Value, frozen=True, kw_only=True):
    """A gateway that speaks a port mapping protocol."""

    address: str
    protocol: str
    detail: str = ""


class TcpSeen(_Value, frozen=True, kw_only=True):
    """A coordinator, or a relay with TLS."""

    role: Literal["coordinator", "relay"]
    name: str
    place: str
    outcome: Literal["good", "silent", "wrong"]
    """``wrong``: somebody else answers in its place."""
    detail: str = ""
    """A sentence; empty when it is good."""
    clock_offset_s: float | None = None
    """A coordinator's clock minus this host's."""
    portal: str = ""
    """Where a captive portal sends browsers to; empty: there is none, or it was not looked."""


class Kernel(_Value, frozen=True, kw_only=True):
    """What the kernel has and this user may; a text is why not, empty where it is there."""

    release: str = ""
    tun: str = ""
    nftables: str = ""
    admin: bool = True
    """This process may configure networks (CAP_NET_ADMIN)."""
    gso: bool = True
    gro: bool = True
    user_namespaces: str = ""
    """For the lab."""
    rootless: str = ""
    """Whether an ordinary user can be a member, tried as one."""
    ipv6_disabled: bool = False
    strict_reverse_path: tuple[str, ...] = ()
    """Interfaces that drop what arrives by another way than answers would take."""
    receive_buffer_bytes: int | None = None
    """The largest a socket may ask for without privilege."""
    clock_synchronised: bool | None = None


class Observed(_Value, frozen=True, kw_only=True):
    """All of it."""

    nics: tuple[Nic, ...] = ()
    ipv4: Family = Family(version=4)
    ipv6: Family = Family(version=6)
    hops: tuple[str, ...] = ()
    """The first routers on the way by IPv4; an empty text: it did not say."""
    nat64: str = ""
    """The prefix of the network's NAT64; empty: there is none."""
    gateways: tuple[GatewaySeen, ...] | None = None
    """None: not looked at."""
    tcp: tuple[TcpSeen, ...] = ()
    proxy: str = ""
    """The HTTPS proxy of the environment, without its password."""
    kernel: Kernel = Kernel()
    passed_over: tuple[str, ...] = ()
    """What could not be looked at, and why: one sentence each."""
