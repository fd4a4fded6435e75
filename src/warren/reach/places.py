"""Where a peer is, in words for people: directly at an address, or through somebody's relay."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from warren.paths.events import PeerReport
from warren.paths.values import Path
from warren.reach.relay_values import RelayStatus


@dataclass(frozen=True, slots=True)
class Place:
    """How packets to a peer travel now. ``endpoint`` is where they go last, as far as is known from here."""

    path: Literal["direct", "relayed", "none"] = "none"
    endpoint: str = ""
    relay: str = ""
    rtt_ms: float | None = None
    mtu: int | None = None
    why: str = ""


NOWHERE = Place()


def place_of(report: PeerReport | None, relays: Collection[RelayStatus]) -> Place:
    """``report``: what path selection says of the peer."""
    if report is None:
        return NOWHERE
    why = "" if report.state == "idle" else report.why
    if report.path is None:
        return Place(why=why)
    return Place(
        path="relayed" if report.path.relayed else "direct",
        endpoint=str(report.path.remote),
        relay=relay_of(report.path, relays),
        rtt_ms=None if report.rtt_s is None else round(report.rtt_s * 1000, 3),
        mtu=report.mtu,
        why=why,
    )


def relay_of(path: Path, relays: Collection[RelayStatus]) -> str:
    """Whose relay ``path`` goes through, ours first; empty: nobody's."""
    if path.base.kind == "relay":
        return path.base.relay
    if not path.relayed:
        return ""
    ip = path.remote.ip
    at = {one.address.ip: one.name for one in relays if one.address is not None}
    by = {address.ip: one.name for one in relays for address in one.relayed}
    return at.get(ip) or by.get(ip) or str(ip)
