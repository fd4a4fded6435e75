"""How it stands with one peer and why, as values: for people on this host (``warren explain``)."""

from __future__ import annotations

from warren.agent.network.status import View, coordinator_link, peer_of, relay_of
from warren.paths.events import PairReport, PeerReport
from warren.paths.nat import Verdict
from warren.proto.control import local


def explanation(view: View, name: str) -> local.Explanation | None:
    """Of the member called ``name``; None: it is this node, or nobody."""
    member = next((one for one in view.wanted.members if one.name == name and one.key != view.node), None)
    if member is None:
        return None
    peer = peer_of(member, view)
    report = view.reach.explain(member.membership.node)
    nat, peer_nat = view.reach.nat(), "" if member.record is None else member.record.nat
    verdict = None if report is None else judged(report, nat, peer_nat)
    by_tcp = report is not None and peer.path == "direct" and (report.path is None or report.path.relayed)
    return local.Explanation(
        network=view.name,
        node="" if view.own is None else view.own.name,
        peer=member.name,
        state=peer.state,
        path=peer.path,
        endpoint=peer.endpoint,
        relay=peer.relay,
        rtt_ms=peer.rtt_ms,
        mtu=peer.mtu,
        since_s=None if report is None or report.since is None or by_tcp else max(0.0, view.now - report.since),
        why=peer.why if by_tcp else _why(report, peer),
        verdict="" if verdict is None else verdict.by,
        verdict_direct=None if verdict is None else verdict.direct,
        verdict_why="" if verdict is None else verdict.why,
        hard="" if report is None else report.hard,
        nat=nat,
        peer_nat=peer_nat,
        attempts=() if report is None else tuple(_attempt(pair, report, by_tcp=by_tcp) for pair in report.pairs),
        relays=tuple(map(relay_of, view.reach.relays())),
        coordinator=coordinator_link(view),
        handshake_age_s=peer.handshake_age_s,
    )


def judged(report: PeerReport, nat: str, peer_nat: str) -> Verdict | None:
    """What the oracle says of the two NATs, where it can know: None where UDP does not get out of one of them, so that
    nobody has seen what its NAT does. A port that a gateway has given, which it does not know of, counts for more.
    """
    verdict, nats = report.verdict, (nat.split(), peer_nat.split())
    if verdict is None or verdict.direct:
        return verdict
    blocked = [words for words in nats if "no-udp" in words]
    if any(not words[0].startswith(("v4:", "v6:")) for words in blocked):
        return None
    if not blocked and any(pair.kind == "mapped" for pair in report.pairs):
        return Verdict(True, "open", "The gateway of one has given it a port that everybody reaches.")
    return verdict


def _why(report: PeerReport | None, peer: local.Peer) -> str:
    if peer.state == "unknown":
        return "It has not told anybody yet where it is: it has not been up since it joined, or since long ago."
    if report is None:
        return "This node does not know how to reach it yet."
    if report.state == "idle":
        return "Nobody has wanted to send it anything; `warren ping` looks for a path."
    return report.why


def _attempt(pair: PairReport, report: PeerReport, *, by_tcp: bool) -> local.Attempt:
    return local.Attempt(
        source=str(pair.path.base),
        target=str(pair.path.remote),
        kind=pair.kind,
        state=pair.state,
        selected=not by_tcp
        and report.path is not None
        and (pair.path.base, pair.path.remote) == (report.path.base, report.path.remote),
        sent=pair.sent,
        answered=pair.answered,
        rtt_ms=None if pair.rtt_s is None else round(pair.rtt_s * 1000, 3),
        mapped="" if pair.mapped is None else str(pair.mapped),
        mtu=pair.mtu,
        note=pair.note,
    )
