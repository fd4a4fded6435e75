"""How the NATs before a host behave, as far as it can be told from outer addresses (RFC 5780 §4.3, RFC 4787)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

from warren.model.tunnel import TransportAddress

SEQUENTIAL_STEP_MAX: Final = 16
"""Ports given out one after another differ by less than this, even if others behind the NAT get some in between."""

Mapping = Literal["eim", "adm", "apdm"]
Filtering = Literal["eif", "adf", "apdf"]
Allocation = Literal["preserving", "sequential", "random"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What was found out. None: it could not be."""

    local: TransportAddress
    mapped: TransportAddress | None
    """The first socket's address as a server sees it; None: no server answered."""
    translated: bool | None
    """``mapped`` is not ``local``: there is a NAT."""
    mapping: Mapping | None
    """Endpoint-independent, address-dependent, address- and port-dependent (RFC 4787 §4.1)."""
    filtering: Filtering | None
    """The same (RFC 4787 §5): that of a firewall, where nothing is translated."""
    allocation: Allocation | None
    """How outer ports are chosen (RFC 4787 §4.2)."""
    hairpin: bool | None
    """Hosts behind the NAT reach each other at their outer addresses (RFC 4787 §6)."""
    answered: tuple[TransportAddress, ...] = ()
    """The servers that did."""
    rtt_s: float | None = None
    """To the nearest of them."""
    discovery: TransportAddress | None = None
    """The server that helped with RFC 5780; None: none can, so that filtering is unknown."""


def mapping_of(mapped: dict[TransportAddress, TransportAddress], local: TransportAddress) -> Mapping | None:
    """``mapped``: where a socket that sends from ``local`` appears to each place that it sent to."""
    if mapped and all(outer == local for outer in mapped.values()):
        return "eim"  # no NAT, §4.3
    if len({remote.ip for remote in mapped}) < 2:
        return None
    if len(set(mapped.values())) == 1:
        return "eim"
    by_ip: dict[object, set[TransportAddress]] = {}
    for remote, outer in mapped.items():
        by_ip.setdefault(remote.ip, set()).add(outer)
    if any(len(outers) > 1 for outers in by_ip.values()):
        return "apdm"
    compared = len(mapped) > len(by_ip)  # some address was asked at two ports
    return "adm" if compared else "apdm"


def allocation_of(
    mapped: Iterable[TransportAddress], second: TransportAddress | None, local: TransportAddress
) -> Allocation | None:
    """``mapped``: where a socket that sends from ``local`` appears; ``second``: where another does."""
    outer = list(mapped)
    if not outer:
        return None
    if all(one.port == local.port for one in outer):
        return "preserving"
    ports = list(dict.fromkeys(one.port for one in outer))
    if len(ports) < 2 and second is not None:
        ports.append(second.port)
    if len(ports) < 2:
        return None
    ports.sort()
    steps = [after - before for before, after in pairwise(ports)]
    return "sequential" if max(steps) <= SEQUENTIAL_STEP_MAX else "random"
