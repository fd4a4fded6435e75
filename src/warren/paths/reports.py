"""How it stands with a peer, as plain values."""

from __future__ import annotations

from typing import Literal

from warren.paths.events import PeerReport
from warren.paths.peer import PeerPaths


def report(peer: PeerPaths, now: float) -> PeerReport:
    selected = peer.selected
    state: Literal["direct", "relayed", "checking", "none", "idle"]
    why = peer.why
    if selected is not None:
        state = "relayed" if selected.relayed else "direct"
    elif now < peer.round_until:
        state, why = "checking", "Nothing has answered yet."
    elif peer.rounds:
        state = "none"
        tried = sum(1 for pair in peer.pairs.values() if pair.sent)
        if not peer.context.bases:
            why = "This host has no address to send from."
        elif not peer.pairs:
            why = "No address that the peer has published can be reached from here."
        else:
            why = f"None of the {tried} ways that were tried was answered."
    else:
        state = "idle"
    return PeerReport(
        node=peer.node,
        state=state,
        path=None if selected is None else selected.path,
        why=why,
        rtt_s=None if selected is None else selected.srtt,
        mtu=None if selected is None or selected.mtu is None else selected.mtu.proven,
        since=None if selected is None else peer.selected_at,
        verdict=peer.hard.oracle(),
        hard=peer.hard.note,
        pairs=tuple(pair.report(now) for pair in peer.reports()),
    )
