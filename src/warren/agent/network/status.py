"""How one network is, as values: for people on this host (proto/control/local.py) and for the coordinator."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from warren import __version__
from warren.agent.candidates import Surroundings, interfaces
from warren.agent.network.coordination import LinkStanding
from warren.agent.network.desired import Wanted
from warren.agent.network.peering import Peering
from warren.identity.keys import PublicKey
from warren.identity.signing import VerifyKey
from warren.model.documents import NetworkSpec
from warren.model.netmap import Member
from warren.model.tunnel import PeerStatus
from warren.proto.control import local, messages
from warren.reach.reach import Reach
from warren.reach.relay_values import RelayStatus

_REPORT_BYTES_MAX: Final = messages.NODE_MESSAGE_BYTES_MAX - 4096
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class View:
    """All that a status is made from, of one moment."""

    network: VerifyKey
    node: VerifyKey
    name: str
    own: Member | None
    spec: NetworkSpec | None
    wanted: Wanted
    degraded: bool
    interface: str
    listen_port: int
    key: PublicKey | None
    revision: int
    reachability: str
    stated: tuple[str, ...]
    candidates: tuple[str, ...]
    standing: LinkStanding
    offset_s: float | None
    tasks: tuple[messages.Task, ...]
    peering: Peering
    warnings: tuple[str, ...]
    surroundings: Surroundings
    engine: str
    uptime_s: float
    wall_s: float
    now: float
    """Of the clock that never goes back."""
    reach: Reach


def membership(view: View) -> local.Membership:
    own = view.own
    return local.Membership(
        network=view.name,
        network_id=str(view.network),
        node_id=str(view.node),
        name="" if own is None else own.name,
        fqdn="" if own is None else _fqdn(own, view),
        interface=view.interface,
        engine=view.engine,
        listen_port=view.listen_port,
        wireguard_key="" if view.key is None else view.key.base64,
        addresses=tuple(str(address.value) for address in view.wanted.addresses),
        tags=() if own is None else own.tags,
        routes=() if own is None else own.membership.routes,
        ephemeral=own is not None and own.membership.ephemeral,
        state="degraded" if view.wanted.state == "up" and view.degraded else view.wanted.state,
        lease_ends=None if own is None else _moment(own.membership.not_after),
        map_version=0 if view.spec is None else view.spec.version,
        revision=view.revision,
        reachability=view.reachability,
        stated=view.stated,
        candidates=view.candidates,
        coordinator=coordinator_link(view),
        tasks=view.tasks,
        peers=tuple(peer_of(member, view) for member in view.wanted.members if member.key != view.node),
        warnings=view.warnings,
        relays=tuple(map(relay_of, view.reach.relays())),
        nat=view.reach.nat(),
        udp_blocked=view.reach.udp_blocked,
    )


def relay_of(relay: RelayStatus) -> local.Relay:
    return local.Relay(
        name=relay.name,
        state=relay.state,
        transport=relay.transport,
        address="" if relay.address is None else str(relay.address),
        relayed=tuple(map(str, relay.relayed)),
        rtt_ms=None if relay.rtt_s is None else round(relay.rtt_s * 1000, 3),
        why=relay.why,
    )


def report(view: View) -> messages.Report:
    """Fits one message: of very many peers those that have a session come first."""
    peerings = sorted(
        (_peering(member.membership.node, view) for member in view.wanted.members if member.key != view.node),
        key=lambda one: one.handshake_age_s if one.handshake_age_s is not None else float("inf"),
    )[:1024]
    while True:
        made = messages.Report(
            uptime_s=view.uptime_s,
            version=__version__,
            system=f"{platform.system()} {platform.release()} {platform.machine()}"[:256],
            revision=view.revision,
            reachability=view.reachability,
            stated=view.stated[:64],
            interfaces=interfaces(view.surroundings),
            tasks=view.tasks[:256],
            peers=tuple(peerings),
        )
        if len(messages.pack(made)) <= _REPORT_BYTES_MAX or not peerings:
            return made
        peerings = peerings[: len(peerings) * 3 // 4]


def coordinator_link(view: View) -> local.CoordinatorLink:
    standing = view.standing
    return local.CoordinatorLink(
        url=standing.url,
        connected=standing.connected,
        since=None if standing.since_s is None else _moment(standing.since_s),
        error=standing.error,
        clock_offset_s=view.offset_s,
        observed=standing.observed,
    )


def peer_of(member: Member, view: View) -> local.Peer:
    state, seen = view.peering.seen(member.membership.node)
    place = view.reach.place(member.membership.node)
    report = view.reach.explain(member.membership.node) if state == "idle" and place.why else None
    if report is not None and report.state == "none":
        state = "unreachable"  # WireGuard has nothing to send to, so nobody has missed an answer
    endpoint = "" if seen is None or seen.endpoint is None else str(seen.endpoint)
    rtt_ms = place.rtt_ms if place.rtt_ms is not None else None if seen is None else _rtt_ms(seen)
    path = place.path if place.path != "none" or not endpoint or state != "connected" else "direct"
    return local.Peer(
        id=str(member.key),
        name=member.name,
        fqdn=_fqdn(member, view),
        addresses=tuple(str(ip) for ip in (member.address6, member.address4) if ip is not None),
        tags=member.tags,
        routes=member.membership.routes,
        lease_ends=_moment(member.membership.not_after),
        state="unknown" if member.record is None else state,
        path=path,
        endpoint=place.endpoint or endpoint,
        rtt_ms=rtt_ms,
        handshake_age_s=None if seen is None else _age_s(seen, view.wall_s),
        tx_bytes=0 if seen is None else seen.tx_bytes,
        rx_bytes=0 if seen is None else seen.rx_bytes,
        candidates=tuple(str(address) for address in member.candidates),
        relay=place.relay,
        mtu=place.mtu,
        why=place.why,
    )


def _peering(node: bytes, view: View) -> messages.Peering:
    _, seen = view.peering.seen(node)
    if seen is None:
        return messages.Peering(node=node)
    return messages.Peering(
        node=node,
        endpoint="" if seen.endpoint is None else str(seen.endpoint),
        handshake_age_s=_age_s(seen, view.wall_s),
        rtt_ms=_rtt_ms(seen),
        tx_bytes=seen.tx_bytes,
        rx_bytes=seen.rx_bytes,
    )


def _rtt_ms(seen: PeerStatus) -> float | None:
    return round(seen.handshake_rtt_ns / 1e6, 3) if seen.handshake_rtt_ns else None


def _age_s(seen: PeerStatus, wall_s: float) -> float | None:
    return max(0.0, round(wall_s - seen.last_handshake_ns / _NS, 1)) if seen.last_handshake_ns else None


def _fqdn(member: Member, view: View) -> str:
    return f"{member.name}.{view.name}.{view.spec.suffix}" if view.spec is not None else member.name


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.max.replace(tzinfo=UTC)
