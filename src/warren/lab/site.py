"""A small Internet: a core that knows every public address, servers on it, and sites behind NATs and firewalls.

internet = Internet(lab)
server = internet.server("server")
home = internet.site("home", "port-restricted")
alice = home.host("alice")

Public addresses are of ranges that really are public (45.80.0.0/16, 2a0c:d000::/32), so that programs take them for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import Final, Literal

from warren.errors import UsageError
from warren.lab.bridge import Bridge
from warren.lab.firewall import PROXY_PORT
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.lab import Lab
from warren.lab.link import Link
from warren.lab.nat import NatKind
from warren.lab.nat64 import start_nat64
from warren.lab.proxy import start_proxy
from warren.lab.router import Router
from warren.lab.site_kinds import OPEN, SiteKind, site_kind

OUTSIDE: Final = "wan"
INSIDE: Final = "lan"
FIRST_HOST: Final = 10
"""The number of a site's first host in its prefixes."""
LAN: Final = "192.168.1.0/24"
NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1
ATTACHMENTS_MAX: Final = 200

Version = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses of one attachment to the core: a /24 and a /48, .1 of the core and .2 and so on of the customer."""

    number: int

    @property
    def prefix4(self) -> IPv4Network:
        return IPv4Network(f"45.80.{self.number}.0/24")

    @property
    def prefix6(self) -> IPv6Network:
        return IPv6Network(f"2a0c:d000:{self.number:x}::/48")

    @property
    def public_lan4(self) -> IPv4Network:
        """Routed to the customer: for a site whose hosts have public addresses."""
        return IPv4Network(f"45.81.{self.number}.0/24")

    @property
    def lan6(self) -> IPv6Network:
        return IPv6Network(f"2a0c:d000:{self.number:x}:1::/64")

    def inside(self, kind: SiteKind, lan: IPv4Network) -> tuple[IPv4Network | None, IPv6Network | None]:
        """The prefixes of the LAN; ``lan`` is the private one."""
        prefix4 = lan if kind.nat else self.public_lan4
        return (prefix4 if "4" in kind.families else None), (self.lan6 if "6" in kind.families else None)

    def core(self, version: Version) -> str:
        return str((self.prefix4 if version == 4 else self.prefix6)[1])

    def customer(self, version: Version, number: int = 0) -> str:
        """The address at the customer's end; with a ``number`` another one, for a change of address."""
        return str((self.prefix4 if version == 4 else self.prefix6)[2 + number])

    def at(self, version: Version, address: str) -> str:
        """``address`` with the length of the prefix on the link to the core."""
        return f"{address}/{24 if version == 4 else 64}"


def outside_families(kind: SiteKind) -> str:
    """Of a site's outermost router: a NAT64 has IPv4 outside."""
    return "46" if kind.families == "6" else kind.families


class Internet:
    """The core, a router named ``name``, in a lab."""

    def __init__(self, lab: Lab, name: str = "internet") -> None:
        self.lab = lab
        self.core: Router = lab.router(name)
        self.sites: dict[str, Site] = {}
        self.links: dict[str, Link] = {}
        """Of servers and sites to the core, by name."""
        self._numbers: Iterator[int] = itertools.count(1)
        self._accesses: dict[str, Access] = {}

    def server(self, name: str, *, families: str = "46", impairment: Impairment | None = None) -> Host:
        """A public host with an address of each of ``families``."""
        host = self.lab.host(name)
        self._attach(host, "eth0", families, impairment)
        return host

    def site(
        self,
        name: str,
        kind: SiteKind | NatKind | str = "port-restricted",
        *,
        lan: str = LAN,
        impairment: Impairment | None = None,
    ) -> Site:
        """A site with a LAN ``NAME-lan``, a router ``NAME-router`` and, with a carrier's NAT, ``NAME-carrier``.

        ``kind`` is a value or a name of ``site_kinds.SITE_KINDS``; ``lan`` is the private prefix of a site with a NAT.
        Raises UsageError for an unknown kind, OperationFailed when a program that the kind needs is missing.
        """
        made = Site(self, name, site_kind(kind), IPv4Network(lan), impairment)
        self.sites[name] = made
        return made

    def address(self, name: str, version: Version = 4, number: int = 0) -> str:
        """The public address of a server, or of a site's outermost router (its ``number``-th one)."""
        return self._accesses[name].customer(version, number)

    def access(self, name: str) -> Access:
        return self._accesses[name]

    def _attach(
        self, host: Host, interface: str, families: str, impairment: Impairment | None, name: str | None = None
    ) -> Access:
        number = next(self._numbers)
        if number > ATTACHMENTS_MAX:
            raise UsageError(f"the Internet of a lab has room for {ATTACHMENTS_MAX} servers and sites")
        access = Access(number)
        versions: list[Version] = [version for version in (4, 6) if str(version) in families]
        ours = [access.at(version, access.core(version)) for version in versions]
        theirs = [access.at(version, access.customer(version)) for version in versions]
        ends = (f"to{number}", interface)
        if impairment is None:
            link = self.lab.link(self.core, host, ours, theirs, interfaces=ends)
        else:
            link = self.lab.link(self.core, host, ours, theirs, interfaces=ends, impairment=impairment)
        for version in versions:
            host.route("default", via=access.core(version))
        self.links[name or host.name] = link
        self._accesses[name or host.name] = access
        return access


class Site:
    """Made by :meth:`Internet.site`."""

    def __init__(
        self, internet: Internet, name: str, kind: SiteKind, lan: IPv4Network, impairment: Impairment | None
    ) -> None:
        self.internet = internet
        self.name = name
        self.kind = kind
        lab = internet.lab
        self.lan: Bridge = lab.bridge(f"{name}-lan")
        self.router: Router = lab.router(f"{name}-router")
        self.carrier: Router | None = lab.router(f"{name}-carrier") if kind.carrier else None
        self.access = internet._attach(self.outer, OUTSIDE, outside_families(kind), impairment, name)  # noqa: SLF001
        self.prefix4, self.prefix6 = self.access.inside(kind, lan)
        self._numbers = itertools.count(FIRST_HOST)
        self._set_up()

    @property
    def outer(self) -> Router:
        """The router with the public address."""
        return self.carrier or self.router

    @property
    def link(self) -> Link:
        """The one to the core."""
        return self.internet.links[self.name]

    @property
    def proxy(self) -> str | None:
        """Of a site with a proxy its URL."""
        return f"http://{self.gateway(4)}:{PROXY_PORT}" if self.kind.proxy else None

    def gateway(self, version: Version) -> str:
        """The router's address inside. Raises UsageError for a family that the site does not have."""
        prefix = self.prefix4 if version == 4 else self.prefix6
        if prefix is None:
            raise UsageError(f"site {self.name} has no IPv{version}")
        return str(prefix[1])

    def host(self, name: str) -> Host:
        """A new host of the LAN."""
        host = self.internet.lab.host(name)
        self.attach(host)
        return host

    def attach(self, host: Host, *, interface: str = "eth0", metric: int | None = None) -> Link:
        """Put a host on the LAN by one (more) interface, with default routes of this metric (``None``: the best)."""
        prefixes = [prefix for prefix in (self.prefix4, self.prefix6) if prefix is not None]
        number = next(self._numbers)
        addresses = [f"{prefix[number]}/{prefix.prefixlen}" for prefix in prefixes]
        link = self.internet.lab.attach(host, self.lan, *addresses, interface=interface)
        for prefix in prefixes:
            host.route("default", via=str(prefix[1]), interface=interface, metric=metric)
        if self.kind.families == "6":
            host.route(str(NAT64), via=self.gateway(6))
            host.run(["sh", "-c", f"echo nameserver {self.gateway(6)} > /etc/resolv.conf"])
        return link

    def change_address(self, number: int) -> str:
        """Give the outermost router another IPv4 address of its provider's, and return it; flows of the old one end."""
        new = self.access.customer(4, number)
        self.outer.change_address(OUTSIDE, self.access.at(4, new))
        return new

    def _set_up(self) -> None:
        inside = [f"{prefix[1]}/{prefix.prefixlen}" for prefix in (self.prefix4, self.prefix6) if prefix is not None]
        self.internet.lab.attach(self.router, self.lan, *inside, interface=INSIDE)
        if self.carrier:
            self._set_up_carrier(self.carrier)
        for prefix, version in ((self.prefix4, 4), (self.prefix6, 6)):
            if prefix is not None and not (version == 4 and self.kind.nat):
                self.internet.core.route(str(prefix), via=self.access.customer(version))  # type: ignore[arg-type]
        if self.kind.nat:
            self.router.nat(OUTSIDE, self.kind.nat)
        if self.kind.firewall != OPEN:
            self.router.firewall(OUTSIDE, self.kind.firewall)
        if self.kind.families == "6":
            start_nat64(self.router, NAT64, interface=OUTSIDE)
        if self.kind.proxy:
            start_proxy(self.router, self.gateway(4), port=PROXY_PORT)

    def _set_up_carrier(self, carrier: Router) -> None:
        ours, theirs = ["100.64.0.1/24"], ["100.64.0.2/24"]
        if self.prefix6 is not None:
            transfer = self.access.prefix6[2 << 64 | 1], self.access.prefix6[2 << 64 | 2]
            ours, theirs = [*ours, f"{transfer[0]}/64"], [*theirs, f"{transfer[1]}/64"]
        self.internet.lab.link(carrier, self.router, ours, theirs, interfaces=("home", OUTSIDE))
        if self.prefix6 is not None:
            carrier.route(str(self.prefix6), via=str(self.access.prefix6[2 << 64 | 2]))
        for address in ours:
            self.router.route("default", via=str(ip_interface(address).ip))
        assert self.kind.carrier  # noqa: S101
        carrier.nat(OUTSIDE, self.kind.carrier)
