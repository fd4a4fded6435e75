"""Where packets of this node can leave from, and at which addresses others may find it (RFC 8445 §5.1.1): pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from warren.model.documents import Candidate
from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress
from warren.paths.values import Base, CandidateKind

BASES_MAX: Final = 12
"""Every one is tried with every candidate of a peer."""
CANDIDATES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class HostAddress:
    """An address of one of this host's interfaces, which is up."""

    address: IPAddress
    interface: int
    """The index of the interface."""
    lasting: bool = True
    """False: temporary or deprecated (RFC 8981, RFC 4862)."""


def host_bases(addresses: Iterable[HostAddress], overlays: Iterable[IPNetwork]) -> tuple[Base, ...]:
    """IPv6 first, global ones first. Temporary and deprecated addresses only where an interface has no other of that
    family; none inside ``overlays``, since there lies the tunnel itself.
    """
    inside = tuple(overlays)
    usable = [
        one
        for one in addresses
        if not (one.address.is_loopback or one.address.is_link_local or one.address.is_multicast)
        and not any(one.address in network for network in inside)
    ]
    lasting = {(one.interface, one.address.version) for one in usable if one.lasting}
    chosen = [one for one in usable if one.lasting or (one.interface, one.address.version) not in lasting]
    chosen.sort(key=lambda one: (one.address.version == 4, not one.address.is_global))
    bases = (Base(kind="host", address=one.address, interface=one.interface) for one in chosen)
    return tuple(dict.fromkeys(bases))[:BASES_MAX]


def all_candidates(
    own: Iterable[Candidate], found: Iterable[tuple[CandidateKind, TransportAddress]]
) -> tuple[Candidate, ...]:
    """``own`` are those that show in the host itself, ``found`` what others see of it, in the order of their worth; an
    address counts once, as what it was named first.
    """
    known = {(one.address, one.port): one for one in own}
    for kind, address in found:
        key = str(address.ip), address.port
        made = _candidate(kind, address)
        if key not in known and made is not None:
            known[key] = made
    return tuple(known.values())[:CANDIDATES_MAX]


def _candidate(kind: CandidateKind, address: TransportAddress) -> Candidate | None:
    """None: it makes no sense to tell somebody of it."""
    if address.ip.is_link_local or not address.port or address.scope:
        return None
    try:
        return Candidate(kind=kind, address=str(address.ip), port=address.port)
    except ValueError:
        return None
