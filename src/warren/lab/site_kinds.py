"""The kinds of sites that have a name: what stands between a host and the Internet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from warren.errors import UsageError
from warren.lab.firewall import Firewall
from warren.lab.nat import KINDS, NatKind

Families = Literal["4", "6", "46"]


OPEN: Final = Firewall()


@dataclass(frozen=True, slots=True)
class SiteKind:
    """What a site has. Its hosts have private IPv4 addresses with a NAT, public ones without."""

    nat: NatKind | None = None
    carrier: NatKind | None = None
    """A second NAT, that of the provider: between the two are addresses of 100.64.0.0/10 (RFC 6598)."""
    firewall: Firewall = OPEN
    families: Families = "4"
    """With IPv6 alone the router is a NAT64 with its DNS (RFC 6146, RFC 7050)."""
    proxy: bool = False
    """The router has an HTTP proxy."""

    def __post_init__(self) -> None:
        if self.carrier and not self.nat:
            raise UsageError("a site with a carrier's NAT has one of its own, too: say which nat")
        if self.families == "6" and self.nat:
            raise UsageError("a site with IPv6 alone has no NAT for IPv4 but its NAT64: leave nat out")

    def __str__(self) -> str:
        words = [f"NAT {self.nat}"] if self.nat else []
        words += [f"behind NAT {self.carrier}"] if self.carrier else []
        words += [str(self.firewall)] if self.firewall != OPEN else []
        words += ["HTTP proxy"] if self.proxy else []
        words += {"4": [], "6": ["IPv6 with NAT64"], "46": ["IPv4 and IPv6"]}[self.families]
        return "; ".join(words) or "open"


_HOME: Final = KINDS["port-restricted"]
_CARRIER: Final = NatKind("eim", "apdf", "random", hairpin=True)
"""As RFC 6888 wants it, but that it filters."""

SITE_KINDS: Final[Mapping[str, SiteKind]] = {
    "open": SiteKind(),
    **{name: SiteKind(kind) for name, kind in KINDS.items()},
    "cgn": SiteKind(_HOME, carrier=_CARRIER),
    "cgn-symmetric": SiteKind(_HOME, carrier=KINDS["symmetric"]),
    "udp-blocked": SiteKind(_HOME, firewall=Firewall(udp="dropped")),
    "udp-rejected": SiteKind(_HOME, firewall=Firewall(udp="rejected")),
    "only-443": SiteKind(_HOME, firewall=Firewall(udp="dropped", tcp_ports=(443,))),
    "http-proxy": SiteKind(_HOME, firewall=Firewall(udp="dropped", tcp_ports=()), proxy=True),
    "ipv6-open": SiteKind(_HOME, families="46"),
    "ipv6-firewalled": SiteKind(_HOME, firewall=Firewall(stateful=True), families="46"),
    "ipv6-only": SiteKind(firewall=Firewall(stateful=True), families="6"),
}


def site_kind(kind: SiteKind | NatKind | str) -> SiteKind:
    """A kind by its name, one with this NAT, or itself. Raises UsageError for a name that is none."""
    if isinstance(kind, SiteKind):
        return kind
    if isinstance(kind, NatKind):
        return SiteKind(kind)
    if kind not in SITE_KINDS:
        raise UsageError(f"kind of site {kind!r}: say {', '.join(SITE_KINDS)}")
    return SITE_KINDS[kind]
