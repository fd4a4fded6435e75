"""The pairs with one peer: which there are, and the ceilings on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.paths.context import Context
from warren.paths.pair import ANSWER_S, Pair
from warren.paths.pairing import DIRECT_MAX, RELAYED_MAX, in_order, rank_of, target
from warren.paths.values import Base, CandidateKind, RemoteCandidate

PEER_REFLEXIVE_MAX: Final = 16
"""Sources of authentic requests that nobody had announced; the one heard longest ago makes room."""
YOUNG_S: Final = 1.0
"""A source that was heard within this time makes no room: a flood of them is not to displace each other's checks."""


class PairTable:
    """Owned by one PeerPaths."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pairs: dict[tuple[Base, TransportAddress], Pair] = {}

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, pair: Pair) -> bool:
        return self._pairs.get((pair.base, pair.remote)) is pair

    def get(self, base: Base, remote: TransportAddress) -> Pair | None:
        return self._pairs.get((base, remote))

    def others(self, but: Pair | None) -> list[Pair]:
        return [pair for pair in self._pairs.values() if pair is not but]

    def rebuild(self, candidates: tuple[RemoteCandidate, ...]) -> list[Pair]:
        """The bases or the peer's candidates are others: pairs that are possible no longer go, unless they work.
        Returns the new ones, in the order in which they are to be tried.
        """
        around = self._context.around
        wanted: dict[tuple[Base, TransportAddress], CandidateKind] = {}
        for base in self._context.bases:
            for candidate in candidates:
                remote = target(base, candidate.address, around)
                if remote is not None:
                    wanted.setdefault((base, remote), candidate.kind)
        bases = set(self._context.bases)
        for key, pair in list(self._pairs.items()):
            gone = pair.base not in bases and pair.base.kind != "socket"
            if gone or (key not in wanted and pair.kind != "prflx" and pair.state != "valid"):
                self.forget(pair)
        room = {False: DIRECT_MAX, True: RELAYED_MAX}
        for pair in self._pairs.values():
            room[pair.relayed] -= 1
        fresh = []
        for (base, remote), kind in wanted.items():
            rank = rank_of(base, remote, kind, around)
            known = self._pairs.get((base, remote))
            if known is None:
                fresh.append(Pair(base, remote, kind, rank))
            else:
                known.kind, known.rank = kind, rank
        added = []
        for pair in in_order(fresh):
            if room[pair.relayed] > 0:
                room[pair.relayed] -= 1
                self._pairs[pair.base, pair.remote] = pair
                added.append(pair)
        return added

    def add_reflexive(self, base: Base, remote: TransportAddress, *, relayed: bool, now: float) -> Pair | None:
        """A pair for the source of an authentic request. None: there are too many."""
        reflexive = [pair for pair in self._pairs.values() if pair.kind == "prflx"]
        if len(reflexive) >= PEER_REFLEXIVE_MAX:
            idle = [pair for pair in reflexive if pair.state != "valid" and now - pair.heard_at > YOUNG_S]
            if not idle:
                return None
            self.forget(min(idle, key=lambda pair: pair.heard_at))
        kind: CandidateKind = "relay" if relayed else "prflx"
        if relayed and sum(1 for pair in self._pairs.values() if pair.relayed) >= RELAYED_MAX:
            return None
        pair = self._pairs[base, remote] = Pair(base, remote, kind, rank_of(base, remote, kind, self._context.around))
        return pair

    def forget(self, pair: Pair) -> None:
        self._pairs.pop((pair.base, pair.remote), None)
        for transaction in (*(one for one, _ in pair.outstanding), *(one for one, _ in pair.probes)):
            self._context.transactions.pop(transaction, None)

    def forget_sockets(self, but: Pair | None) -> None:
        """Those of the sockets that were opened for a hard NAT."""
        for pair in self.others(but):
            if pair.base.kind == "socket":
                self.forget(pair)

    def clear(self) -> None:
        for pair in list(self._pairs.values()):
            self.forget(pair)

    def expire(self, now: float) -> None:
        """Checks that nobody waits for any more."""
        for pair in self._pairs.values():
            for sent in (pair.outstanding, pair.probes):
                while sent and now - sent[0][1] > ANSWER_S:
                    self._context.transactions.pop(sent.popleft()[0], None)
