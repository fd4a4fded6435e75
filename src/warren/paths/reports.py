"""How it stands with a peer, as plain values."""

from __future__ import annotations

from typing import Final, Literal

from warren.paths.events import PeerReport
from warren.paths.pair import Pair
from warren.paths.peer import PeerPaths

ORDER: Final = ("valid", "checking", "waiting", "failed")


def report(peer: PeerPaths, now: float) -> PeerReport:
    selected = peer.choice.pair

    def place(pair: Pair) -> tuple[bool, int, int]:
        return pair is not selected, ORDER.index(pair.state), pair.rank

    state: Literal["direct", "relayed", "checking", "none", "idle"]
    why = peer.choice.why
    if selected is not None:
        state = "relayed" if selected.relayed else "direct"
    elif now < peer.rounds.until and peer.rounds.number <= 1 and len(peer.pairs):
        state, why = "checking", "Nothing has answered yet."
    elif peer.rounds.number:
        state = "none"
        tried = sum(1 for pair in peer.pairs if pair.sent)
        if not peer.context.bases:
            why = "This host has no address to send from."
        elif not len(peer.pairs):
            why = "No address that the peer has published can be reached from here."
        else:
            ways = "The one way that was" if tried == 1 else f"None of the {tried} ways that were"
            why = f"{ways} tried was {'not ' if tried == 1 else ''}answered."
    else:
        state = "idle"
    return PeerReport(
        node=peer.node,
        state=state,
        path=None if selected is None else selected.path,
        why=why,
        rtt_s=None if selected is None else selected.srtt,
        mtu=None if selected is None or selected.mtu is None else selected.mtu.proven,
        since=None if selected is None else peer.choice.since,
        verdict=peer.hard.oracle(),
        hard=peer.hard.note,
        pairs=tuple(pair.report(now) for pair in sorted(peer.pairs, key=place)),
    )
