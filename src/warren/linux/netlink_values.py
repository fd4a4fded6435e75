"""What rtnetlink speaks of, as values: links, addresses, routes, policy rules, and what its refusals mean."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from warren.model.tunnel import IPAddress, IPNetwork

TABLE_MAIN, TABLE_LOCAL = 254, 255
PROTOCOL_KERNEL, PROTOCOL_STATIC = 2, 4  # rtnetlink(7), rtm_protocol


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    name: str
    index: int
    up: bool
    """Set up by an administrator (IFF_UP); says nothing of a carrier."""
    mtu: int
    gso_max_segs: int
    """The most packets the kernel puts into one super-packet for this interface."""
    kind: str = ""
    """``tun``, ``veth``, ``wireguard`` …; empty for hardware."""
    mac: str = field(default="", compare=False)
    """The hardware address; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface, with the prefix it was set with."""

    interface: str
    value: IPv4Interface | IPv6Interface
    lasting: bool = field(default=True, compare=False)
    """False: temporary, deprecated or not usable (yet), as the kernel says (RFC 4862, RFC 8981); not to be told to
    others.
    """

    def __str__(self) -> str:
        return f"address {self.value} on {self.interface}"


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route out of ``interface``. ``local``: packets for those addresses end here, though it has them not."""

    network: IPNetwork
    interface: str
    table: int = TABLE_MAIN
    gateway: IPAddress | None = None
    mtu: int = field(default=0, compare=False)
    """The route's own MTU; 0: that of the interface."""
    protocol: int = field(default=PROTOCOL_STATIC, compare=False)
    local: bool = False

    def __str__(self) -> str:
        table = "" if self.table == TABLE_MAIN else f" table {self.table}"
        via = "" if self.gateway is None else f" via {self.gateway}"
        local = "local " if self.local else ""
        return f"{local}route {self.network}{via} dev {self.interface}{table}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy rule: packets that match are looked up in ``table`` (ip-rule(8))."""

    version: int
    """4 or 6."""
    priority: int
    table: int
    fwmark: int = 0
    """Match packets with this mark; 0: all."""
    inverted: bool = False
    """Match the packets that otherwise do not."""
    suppress_prefixlength: int | None = None
    """Pass over what the table says if its prefix is no longer than this."""
    foreign: bool = False
    """The rule has selectors that are not listed here; read only."""

    def __str__(self) -> str:
        match = ("not " if self.inverted else "") + (f"fwmark {self.fwmark:#x} " if self.fwmark else "")
        suppress = "" if self.suppress_prefixlength is None else f" suppress_prefixlength {self.suppress_prefixlength}"
        return f"IPv{self.version} rule {match}table {self.table}{suppress} (priority {self.priority})"


@dataclass(frozen=True, slots=True)
class Path:
    """How a packet would leave: by which interface, and how large it may be (bytes, IP header included)."""

    interface: str
    mtu: int


def explain(code: int, what: str) -> str:
    """One sentence on a refusal ``code`` (errno) of ``what`` ("adding the address …"), with the remedy where there is
    one.
    """
    match code:
        case errno.EPERM:
            return f"{what} is not permitted; run as root or with CAP_NET_ADMIN"
        case errno.EACCES if ":" in what:
            remedy = "set sysctl net.ipv6.conf.all.disable_ipv6=0 or use IPv4 only"
            return f"{what} is refused: IPv6 is switched off here; {remedy}"
        case errno.EEXIST:
            return f"{what} fails: there is one already; remove it or choose another"
        case errno.ENODEV:
            return f"{what} fails: the interface is gone"
    return f"{what} fails: {os.strerror(code)}"
