"""Which of a peer's candidates this host can send to, and in which order they are worth trying (RFC 8445 §5.1.2).

The order: the same link before anything else, IPv6 before IPv4, and IPv4 through a NAT64 only where the host has no
IPv4 of its own. Within a class the peer's own order stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from warren.model.tunnel import IPNetwork, TransportAddress

_PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)  # RFC 6052 §2.2
_RESERVED_OCTET = 8  # bits 64 to 71 are zero and carry nothing (RFC 6052 §2.2)


@dataclass(frozen=True, slots=True)
class Underlay:
    """What this host can send to."""

    has4: bool
    """It has an IPv4 address that is not a loopback's, and a route."""
    has6: bool
    """The same for IPv6, link-local addresses not counted."""
    nat64: IPv6Network | None = None
    """The prefix of the network's NAT64 (RFC 7050)."""
    on_link: tuple[IPNetwork, ...] = ()
    """Prefixes of the links that the host is on."""

    def can_send_to(self, address: TransportAddress) -> bool:
        return self.has6 if address.ip.version == 6 else self.has4


def rank(candidates: Iterable[TransportAddress], underlay: Underlay) -> tuple[TransportAddress, ...]:
    """The usable ones as addresses to send to, best first, each once."""
    found: dict[TransportAddress, int] = {}
    for candidate in candidates:
        address: TransportAddress | None = candidate
        if underlay.can_send_to(candidate):
            value = 0 if any(candidate.ip in link for link in underlay.on_link) else 3 - candidate.ip.version // 3
        else:
            address, value = _translated(candidate, underlay), 3
        if address is not None and address not in found:
            found[address] = value
    return tuple(sorted(found, key=found.__getitem__))


def _translated(candidate: TransportAddress, underlay: Underlay) -> TransportAddress | None:
    if not (isinstance(candidate.ip, IPv4Address) and underlay.has6 and underlay.nat64):
        return None
    if not candidate.ip.is_global and underlay.nat64 == WELL_KNOWN_NAT64:
        return None  # RFC 6052 §3.1: the well-known prefix never stands for a private address
    return TransportAddress(embed(candidate.ip, underlay.nat64), candidate.port)


WELL_KNOWN_NAT64 = IPv6Network("64:ff9b::/96")


def embed(address: IPv4Address, prefix: IPv6Network) -> IPv6Address:
    """The IPv6 address that stands for ``address`` behind a NAT64 (RFC 6052 §2.2)."""
    if prefix.prefixlen not in _PREFIX_LENGTHS:
        raise ValueError(f"{prefix} is no NAT64 prefix: its length must be one of {_PREFIX_LENGTHS}")
    octets = bytearray(prefix.network_address.packed)
    place = prefix.prefixlen // 8
    for octet in address.packed:
        place += place == _RESERVED_OCTET
        octets[place] = octet
        place += 1
    return IPv6Address(bytes(octets))


def prefix_of(address: IPv6Address, known: Iterable[IPv4Address]) -> IPv6Network | None:
    """The prefix behind an answer to the question for ``ipv4only.arpa``: where one of the ``known`` addresses stands in
    it (RFC 7050 §3). None when it stands nowhere.
    """
    for length in reversed(_PREFIX_LENGTHS):
        prefix = IPv6Network((address, length), strict=False)
        if any(embed(one, prefix) == address for one in known):
            return prefix
    return None
