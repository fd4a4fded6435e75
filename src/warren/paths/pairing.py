"""Which bases of ours go with which candidates of a peer, as what, and in which order (RFC 8445 §6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import zip_longest
from typing import Final

from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.candidates import WELL_KNOWN_NAT64, embed
from warren.paths.pair import Pair
from warren.paths.values import Base, CandidateKind, Surroundings

DIRECT_MAX: Final = 64
"""Direct pairs with one peer: four bases of each family with eight candidates each; of more the best are tried."""
RELAYED_MAX: Final = 32
_LOCAL: Final = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("169.254.0.0/16"),
    IPv6Network("fe80::/10"),
)


def target(base: Base, remote: TransportAddress, around: Surroundings) -> TransportAddress | None:
    """Where to send from ``base`` in order to get to ``remote``; None: it cannot get there."""
    ip = remote.ip
    if in_overlay(ip, around):
        return None
    if base.kind == "relay":
        relayed = [address for name, address in around.relayed if name == base.relay]
        if relayed and ip.version not in {address.ip.version for address in relayed}:
            return None
        if remote in relayed or any(ip in net for net in _LOCAL if net.version == ip.version):
            return None  # a relay is not on anybody's LAN
        return remote
    if base.address is None or base.address.version == ip.version:
        if ip.is_link_local and ip.version == 6:
            return TransportAddress(ip, remote.port, base.interface)
        return remote
    if isinstance(ip, IPv4Address) and around.nat64 is not None:
        if around.nat64 == WELL_KNOWN_NAT64 and any(ip in net for net in _LOCAL if net.version == 4):
            return None  # RFC 6052 §3.1
        return TransportAddress(embed(ip, around.nat64), remote.port)
    return None


def in_overlay(ip: IPAddress, around: Surroundings) -> bool:
    """Whether packets for ``ip`` would go into a tunnel again."""
    return any(ip in net for net in around.overlays if net.version == ip.version)


def rank_of(base: Base, remote: TransportAddress, kind: CandidateKind, around: Surroundings) -> int:
    """0: on one link, 1: direct, 2: over one relay, 3: over two."""
    if base.kind == "relay":
        return 3 if kind == "relay" else 2
    if kind == "relay":
        return 2
    return 0 if on_link(remote.ip, around) else 1


def on_link(ip: IPAddress, around: Surroundings) -> bool:
    return ip.is_link_local or any(ip in link for link in around.on_link if link.version == ip.version)


def in_order(pairs: Iterable[Pair]) -> list[Pair]:
    """Direct and relayed ones by turns, each the best first: packets shall flow at once, and soon the short way."""

    def worth(pair: Pair) -> tuple[int, bool, bool]:
        return pair.rank, pair.remote.ip.version == 4, pair.kind == "host"

    ordered = sorted(pairs, key=worth)
    direct = [pair for pair in ordered if not pair.relayed]
    relayed = [pair for pair in ordered if pair.relayed]
    return [pair for couple in zip_longest(direct, relayed) for pair in couple if pair is not None]
