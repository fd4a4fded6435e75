"""All paths to one peer: rounds of checks, the path in use, the doubt when it falls silent, and keeping it open.

=============  ============================================================  ==========================================
the peer is    when                                                          then
=============  ============================================================  ==========================================
idle           nobody wants a path, and none is selected                     nothing is sent
checking       a path is wanted, and none (or a relayed one) is selected     rounds of checks of all pairs
selected       a pair is in use                                              heartbeats while used, keepalives else
in doubt       the selected one missed an answer, traffic got none, or the   it and all others that work are checked
               network changed                                               every 0.3 s; the first to answer wins
                                                                             once the selected one is given up
=============  ============================================================  ==========================================

What is selected was always validated by an answered check of ours (RFC 8445 §7.2.5.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.paths.checks import Request, label_of
from warren.paths.context import Context, Waiting
from warren.paths.events import Mapped, Mtu, Selected
from warren.paths.freshness import Freshness
from warren.paths.hard import Hard
from warren.paths.mtu import OVERHEAD, MtuSearch
from warren.paths.pacing import Bucket
from warren.paths.pair import ANSWER_S, NEVER, RTO_MAX_S, Pair
from warren.paths.pairing import DIRECT_MAX, RELAYED_MAX, in_order, rank_of, target
from warren.paths.selection import SETTLING_S, best, improves
from warren.paths.signals import Signal
from warren.paths.values import Base, CandidateKind, RemoteCandidate

ROUND_S: Final = 8.0
PAUSE_S: Final = (0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""After each round in which nothing answered; the last one for ever."""
BETTER_S: Final = (2.0, 5.0, 10.0, 20.0, 30.0)
"""The same while a relayed path is in use,"""
BETTER_IDLE_S: Final = 300.0
"""and while it is not used."""
LOOK_S: Final = 300.0
"""A direct path in use: whether there is a shorter one by now."""
WANTED_S: Final = 30.0
ACTIVE_S: Final = 10.0
HEARTBEAT_S: Final = 1.0
HEARTBEAT_BUSY_S: Final = 3.0
"""While packets come in as well as go out: silence shows in the traffic itself."""
WARM_S: Final = 5.0
"""Others that work, while the peer is active."""
WARM_MAX: Final = 4
DOUBT_S: Final = 0.3
GIVEN_UP_S: Final = 1.5
"""In doubt for so long, and not one of so many checks answered: it is dead, if another works."""
GIVEN_UP: Final = 4
MOVED_S: Final = 0.8
"""The same if the peer itself was heard at another place since, and not at this one: it has moved."""
MOVED: Final = 3
LOST_S: Final = 5.0
"""In doubt for so long, and no other works either: there is no path any more."""
STALE_S: Final = 20.0
PEER_REFLEXIVE_MAX: Final = 16
REPLIES_PER_S: Final = 100.0
"""To one peer; a birthday needs a handful, a doubted path 4 for each pair."""
KEEPALIVE_BYTES: Final = 32
"""A WireGuard keepalive (§5.4.6) asks for nothing."""


class PeerPaths:
    """One peer's machine. Verbs as everywhere; transmits and events go to the Context."""

    def __init__(self, context: Context, node: bytes, now: float) -> None:
        self.context = context
        self.node = node
        self.label = label_of(node)
        self.controlling = context.node < node
        self.keys: tuple[bytes, ...] = ()
        self.candidates: tuple[RemoteCandidate, ...] = ()
        self.nat = ""
        self.told: tuple[RemoteCandidate, ...] = ()
        """What its last signal said."""
        self.order = 0
        self.freshness = Freshness(now)
        self.replies = Bucket(REPLIES_PER_S, REPLIES_PER_S, now)
        self.hard = Hard(context, self, now)
        self.pairs: dict[tuple[Base, TransportAddress], Pair] = {}
        self.selected: Pair | None = None
        self.selected_at = now
        self.why = "Nobody asked for a path yet."
        self.wanted_until = self.active_until = -NEVER
        self.round_until = -NEVER
        self.rounds = 0
        self.next_round = NEVER
        self.doubt_since: float | None = None
        self.settled_at = -NEVER
        self.keepalive_s = context.settings.keepalive_s
        self.pacer = Bucket(context.settings.peer_checks_per_s, context.settings.peer_checks_per_s / 2, now)
        self._tx = self._rx = 0
        self._rx_at = -NEVER
        self._unanswered_since: float | None = None
        """Since when packets go out and none come in."""
        self._told_mtu: int | None = None

    # What changes from outside

    def set_candidates(
        self, keys: tuple[bytes, ...], candidates: tuple[RemoteCandidate, ...], nat: str, now: float
    ) -> None:
        changed = candidates != self.candidates
        self.keys, self.candidates, self.nat = keys, candidates, nat or self.nat
        if changed:
            self.rebuild(now)

    def rebuild(self, now: float) -> None:
        """The bases or the candidates are others: pairs that are possible no longer go, unless they work."""
        wanted: dict[tuple[Base, TransportAddress], CandidateKind] = {}
        for base in self.context.bases:
            for candidate in self.all_candidates():
                remote = target(base, candidate.address, self.context.around)
                if remote is not None:
                    wanted.setdefault((base, remote), candidate.kind)
        bases = set(self.context.bases)
        for key, pair in list(self.pairs.items()):
            gone = pair.base not in bases and pair.base.kind != "socket"
            if gone or (key not in wanted and pair.kind != "prflx" and pair.state != "valid"):
                self._forget(pair)
        fresh = []
        room = {False: DIRECT_MAX, True: RELAYED_MAX}
        for pair in self.pairs.values():
            room[pair.relayed] -= 1
        for (base, remote), kind in wanted.items():
            known = self.pairs.get((base, remote))
            if known is not None:
                known.kind, known.rank = kind, rank_of(base, remote, kind, self.context.around)
                continue
            pair = Pair(base, remote, kind, rank_of(base, remote, kind, self.context.around))
            fresh.append(pair)
        for pair in in_order(fresh):
            if room[pair.relayed] > 0:
                room[pair.relayed] -= 1
                self.pairs[pair.base, pair.remote] = pair
                if self.is_wanted(now):
                    pair.begin(now, now + ROUND_S)
        if self.selected is not None and (self.selected.base, self.selected.remote) not in self.pairs:
            self._fail_over(now, "the interface or relay that it used is gone")
        self.decide(now)

    def all_candidates(self) -> tuple[RemoteCandidate, ...]:
        return (*self.told, *self.candidates)

    def is_reached(self) -> bool:
        """Something that is sent now arrives, as far as is known."""
        return self.selected is not None and self.doubt_since is None

    def want(self, now: float) -> None:
        self.wanted_until = now + WANTED_S
        if self.selected is None:
            if now >= self.round_until:
                self.begin_round(now)
                self.signal(asks=True)
        elif self.doubt_since is None and now - self.selected.answered_at > HEARTBEAT_S:
            self._suspect(now)

    def traffic(self, tx_bytes: int, rx_bytes: int, now: float) -> None:
        sent, came = tx_bytes - self._tx, rx_bytes - self._rx
        self._tx, self._rx = tx_bytes, rx_bytes
        if came > 0:
            self._rx_at = now
            self._unanswered_since = None
        if sent > KEEPALIVE_BYTES or came > KEEPALIVE_BYTES:
            self._use(now)
        if sent > KEEPALIVE_BYTES and came <= 0:
            if self._unanswered_since is None:
                self._unanswered_since = now
            elif self.selected is not None and self.doubt_since is None:
                self._suspect(now)

    def network_changed(self, now: float) -> None:
        """Nothing is known to work any more, and everything may."""
        self.rounds = 0
        for pair in self.pairs.values():
            pair.failures, pair.held_until = 0, -NEVER
            if pair.mtu is not None:
                pair.mtu.doubt(now)
        if self.selected is not None:
            self._suspect(now)
        if self.selected is not None or self.is_wanted(now):
            self.begin_round(now)

    def heard(self, base: Base, remote: TransportAddress, now: float) -> None:
        """An authentic WireGuard packet came from elsewhere: perhaps the peer has moved there."""
        pair = self.pairs.get((base, remote)) or self._peer_reflexive(base, remote, relayed=False, now=now)
        if pair is not None and pair is not self.selected:
            pair.heard_at = now
            self._triggered(pair, now)
            if self.selected is not None and self.selected.heard_at < now - DOUBT_S:
                self._suspect(now)

    def signal(self, *, asks: bool, sockets: int = 0) -> None:
        """Have the peer told that it is time to check."""
        before = self.context.signals.get(self.node, (False, 0))
        self.context.signals[self.node] = (asks or before[0], sockets or before[1])

    def signalled(self, signal: Signal, now: float) -> None:
        """An authentic signal of the peer."""
        self.nat = signal.nat or self.nat
        if signal.places and signal.candidates() != self.told:
            self.told = signal.candidates()
            self.rebuild(now)
        if signal.asks:
            self.signal(asks=False)
        if (
            self.selected is None or self.selected.relayed or self.doubt_since is not None
        ) and now >= self.round_until - ROUND_S / 2:
            self.wanted_until = max(self.wanted_until, now + ROUND_S)
            self.begin_round(now)
        if signal.sockets:
            self.hard.peer_opened(now)

    def close(self) -> None:
        """The peer is removed."""
        self.hard.close()
        for pair in list(self.pairs.values()):
            self._forget(pair)

    # Messages

    def requested(self, request: Request, base: Base, remote: TransportAddress, now: float) -> None:
        """A verified request came in and was answered."""
        if not self.freshness.accepts(request.epoch, request.order, now):
            return
        pair = self.pairs.get((base, remote))
        if pair is None:
            pair = self._peer_reflexive(base, remote, relayed=request.relayed, now=now)
            if pair is None:
                return
            if self.selected is not None and self.selected.relayed >= pair.relayed:
                self._suspect(now)
        pair.heard_at = now
        if request.nominates and not self.controlling:
            pair.nominated_at = now
        self._triggered(pair, now)
        if (
            (self.selected is None or self.selected.relayed)
            and now >= self.round_until
            and now >= self.next_round - PAUSE_S[-1]
        ):
            self.wanted_until = max(self.wanted_until, now + ROUND_S)
            self.begin_round(now)
        self.decide(now)

    def answered(self, waiting: Waiting, transaction: bytes, mapped: TransportAddress, epoch: int, now: float) -> None:
        """A check of ours was answered by the way it went."""
        self.freshness.proven(epoch)
        pair = waiting.pair or self.found(waiting.base, waiting.remote)
        if self.pairs.get((pair.base, pair.remote)) is not pair:
            return
        idle_s = now - max(pair.answered_at, self.active_until)
        if (
            pair.mapped is not None
            and pair.mapped != mapped
            and pair is self.selected
            and 0 < idle_s < 10 * self.keepalive_s
        ):
            self._forgotten_sooner()
        if pair.mapped != mapped and pair.base.kind == "host" and mapped.ip != pair.base.address:
            self.context.events.append(Mapped(pair.base, mapped, self.node))
        pair.was_answered(transaction, waiting.sent_at, mapped, now)
        if waiting.size and pair.mtu is not None and pair.mtu.answered(waiting.size, now):
            self._tell_mtu()
        if pair is self.selected and self.doubt_since is not None and waiting.sent_at >= self.doubt_since:
            self.doubt_since = None
        pair.due = now + self._interval(pair, now)
        self.decide(now)

    # Time

    def handle_timeout(self, now: float) -> None:
        for pair in [pair for pair in self.pairs.values() if pair.due <= now]:
            self._check_due(pair, now)
        selected = self.selected
        if selected is not None:
            if self.doubt_since is None and now >= self._doubt_at(selected):
                self._suspect(now)
            self._probe_mtu(selected, now)
        if now >= self.next_round:
            self.begin_round(now)
            if self.selected is None or self.selected.relayed:
                self.signal(asks=True)
        self.hard.handle_timeout(now)
        self.decide(now)
        self._expire(now)

    def next_at(self, now: float) -> float:
        at = min((pair.due for pair in self.pairs.values()), default=NEVER)
        selected = self.selected
        if selected is not None:
            at = min(at, self._doubt_at(selected) if self.doubt_since is None else NEVER)
            if selected.mtu is not None:
                at = min(at, selected.mtu.next_due(used=self.is_active(now)))
            if self.doubt_since is not None:
                at = min(at, max(now + 0.05, self.doubt_since + LOST_S))
        return min(at, self.next_round, self.hard.next_at())

    # Rounds

    def is_active(self, now: float) -> bool:
        return now < self.active_until

    def is_wanted(self, now: float) -> bool:
        return now < self.wanted_until

    def begin_round(self, now: float) -> None:
        """Check all pairs, the best first, and say when the next round is due."""
        self.rounds += 1
        self.round_until = now + ROUND_S
        for place, pair in enumerate(in_order(self.pairs.values())):
            pair.begin(now + place * self.context.settings.pace_s, self.round_until)
        self.next_round = self._after_round(now)
        if self.selected is None or self.selected.relayed:
            self.hard.round_began(now)

    def _after_round(self, now: float) -> float:
        if self.selected is None:
            return now + ROUND_S + PAUSE_S[min(self.rounds, len(PAUSE_S)) - 1] if self.is_wanted(now) else NEVER
        if not self.is_active(now):
            return now + BETTER_IDLE_S if self.selected.relayed else NEVER
        if self.selected.relayed:
            return now + ROUND_S + BETTER_S[min(self.rounds, len(BETTER_S)) - 1]
        return now + LOOK_S

    # Pairs

    def _peer_reflexive(self, base: Base, remote: TransportAddress, *, relayed: bool, now: float) -> Pair | None:
        """A pair for a source that was authentic. None: from such a base, or so many, there are none."""
        if base not in self.context.bases and not self.hard.owns(base):
            return None
        kind: CandidateKind = "prflx"
        if relayed or any(one.kind == "relay" and one.address.ip == remote.ip for one in self.candidates):
            kind = "relay"
        reflexive = [pair for pair in self.pairs.values() if pair.kind == "prflx"]
        if len(reflexive) >= PEER_REFLEXIVE_MAX:
            idle = [pair for pair in reflexive if pair.state != "valid" and now - pair.heard_at > 1.0]
            if not idle:
                return None
            self._forget(min(idle, key=lambda pair: pair.heard_at))
        pair = Pair(base, remote, kind, rank_of(base, remote, kind, self.context.around))
        self.pairs[base, remote] = pair
        return pair

    def found(self, base: Base, remote: TransportAddress) -> Pair:
        """The pair of a probe that was answered."""
        pair = self.pairs.get((base, remote))
        if pair is None:
            pair = self.pairs[base, remote] = Pair(base, remote, "prflx", 1)
        return pair

    def drop_sockets(self) -> None:
        for pair in [pair for pair in self.pairs.values() if pair.base.kind == "socket" and pair is not self.selected]:
            self._forget(pair)

    def _triggered(self, pair: Pair, now: float) -> None:
        """The peer was heard there: check it at once (RFC 8445 §7.3.1.4), unless that is known or under way."""
        if pair.state == "valid" and now - pair.answered_at < STALE_S and self.doubt_since is None:
            return
        pair.begin(max(now, pair.sent_at + 0.1), now + ROUND_S / 2)

    def _forget(self, pair: Pair) -> None:
        self.pairs.pop((pair.base, pair.remote), None)
        for transaction, _ in pair.outstanding:
            self.context.transactions.pop(transaction, None)

    def _check_due(self, pair: Pair, now: float) -> None:
        if pair.state == "valid":
            if pair is not self.selected and pair.unanswered > GIVEN_UP and now - pair.answered_at > LOST_S:
                pair.state, pair.due = "failed", NEVER
                return
            self._send(pair, now)
            pair.due = now + self._interval(pair, now)
            return
        if now >= pair.until:
            pair.state, pair.due = "failed", NEVER
            return
        for bucket in (self.pacer, self.context.pacer):
            if not bucket.take(now):
                pair.due = now + max(bucket.wait(now), 0.005)
                return
        pair.state = "checking"
        self._send(pair, now)
        pair.due = pair.next_try(now)

    def _send(self, pair: Pair, now: float, size: int = 0) -> None:
        transaction = self.context.send_check(
            self,
            pair.base,
            pair.remote,
            now,
            pair=pair,
            nominates=self.controlling and pair is self.selected,
            size=size,
            length=size + OVERHEAD if size else 0,
        )
        if size:
            pair.sent += 1
            return
        dropped = pair.was_sent(transaction, now)
        if dropped is not None:
            self.context.transactions.pop(dropped, None)

    def _interval(self, pair: Pair, now: float) -> float:
        """Until the next check of a pair that works."""
        if self.doubt_since is not None:
            return DOUBT_S
        if pair is self.selected:
            if not self.is_active(now):
                return self.keepalive_s * (1.0 if self.controlling else 1.25)
            return HEARTBEAT_BUSY_S if now - self._rx_at < HEARTBEAT_S * 1.5 else HEARTBEAT_S
        if self.is_active(now) and pair in self._warm():
            return WARM_S
        return NEVER

    def _warm(self) -> list[Pair]:
        """Those that are kept ready for when the selected one fails: the best, and a relayed one among them."""
        usable = sorted(
            (pair for pair in self.pairs.values() if pair.usable and pair is not self.selected),
            key=lambda pair: (pair.relayed, pair.srtt or 0.0),
        )
        relayed = [pair for pair in usable if pair.relayed]
        return usable[: WARM_MAX - 1] + relayed[:1]

    def _expire(self, now: float) -> None:
        for pair in self.pairs.values():
            while pair.outstanding and now - pair.outstanding[0][1] > ANSWER_S:
                self.context.transactions.pop(pair.outstanding.popleft()[0], None)

    # The selected one

    def _use(self, now: float) -> None:
        was = self.is_active(now)
        self.active_until = now + ACTIVE_S
        self.wanted_until = max(self.wanted_until, now + ACTIVE_S)
        if not was:
            for pair in self.pairs.values():
                if pair.state == "valid":
                    pair.due = min(pair.due, now + HEARTBEAT_S)
            if self.selected is None or self.selected.relayed:
                self.rounds = 0
                self.next_round = min(self.next_round, max(now, self.round_until))

    def _doubt_at(self, selected: Pair) -> float:
        """When the newest check of the selected pair should have been answered."""
        return selected.sent_at + selected.rto() if selected.unanswered else NEVER

    def _suspect(self, now: float) -> None:
        """Check the selected pair and all that could take its place, at once and often."""
        if self.doubt_since is not None or self.selected is None:
            return
        self.doubt_since = now
        for pair in [self.selected, *self._warm()]:
            pair.due = min(pair.due, max(now, pair.sent_at + 0.1))
        if self.selected.mtu is not None:
            self.selected.mtu.doubt(now)

    def decide(self, now: float) -> None:
        """Select, move, fail over, give up: whatever the answers so far say."""
        current = self.selected
        if current is None:
            found = best(self.pairs.values(), now)
            if found is not None:
                self._select(found, now, "it was the first to answer")
            return
        if not current.usable:
            self._fail_over(now, "it does not carry packets of 1280 bytes")
            return
        if self.doubt_since is not None:
            self._doubted(current, now)
            return
        found = self._nominated(now) or best(self.pairs.values(), now)
        if found is not None and improves(found, current, now, since=self.selected_at, settled_at=self.settled_at):
            better = "it is direct" if current.relayed and not found.relayed else "it is shorter"
            self._select(found, now, better)

    def _nominated(self, now: float) -> Pair | None:
        """The controlled side goes with the other if it can."""
        named = [pair for pair in self.pairs.values() if pair.usable and now - pair.nominated_at < STALE_S]
        return max(named, key=lambda pair: pair.nominated_at, default=None)

    def _doubted(self, current: Pair, now: float) -> None:
        doubted = now - self.doubt_since if self.doubt_since is not None else 0.0
        since = now - doubted
        others = [pair for pair in self.pairs.values() if pair is not current and pair.answered_sent_at >= since]
        other = best(others, now)
        if other is None:
            if doubted >= LOST_S and current.unanswered >= GIVEN_UP:
                self._fail_over(now, "it does not answer any more")
            return
        slow = current.rto()
        moved = other.heard_at >= since > current.heard_at and other.relayed <= current.relayed
        if moved and current.unanswered >= MOVED and doubted >= max(MOVED_S, min(slow, RTO_MAX_S) + DOUBT_S):
            current.state = "failed"
            self._select(other, now, "the peer has moved")
        elif current.unanswered >= GIVEN_UP and doubted >= max(GIVEN_UP_S, slow + 1.0):
            current.punish(now)
            current.state = "failed"
            self._select(other, now, "the path before does not answer any more")

    def _fail_over(self, now: float, because: str) -> None:
        """The selected pair cannot be used: take the best other at once, whether it still answers or not, and see."""
        current = self.selected
        if current is not None and current.usable:
            current.punish(now)
            current.state = "failed"
        other = best((pair for pair in self.pairs.values() if pair is not current), now)
        if other is not None:
            self._select(other, now, f"of the path before, {because}")
            self._suspect(now)
            return
        self.selected, self.doubt_since = None, None
        self.why = f"Of the path before, {because}."
        self.context.events.append(Selected(self.node, None, self.why))
        self.hard.selected(None)
        self.rounds = 0
        self.begin_round(now)
        self.signal(asks=True)

    def _select(self, pair: Pair, now: float, because: str) -> None:
        before, self.selected = self.selected, pair
        if before is None or before.relayed != pair.relayed:
            self.settled_at = now + SETTLING_S
        self.selected_at = now
        self.doubt_since = None
        kind = ("on one link", "direct", "over a relay", "over two relays")[pair.rank]
        self.why = f"{pair.path} ({kind}): {because}."
        self.context.events.append(Selected(self.node, pair.path, self.why))
        pair.due = min(pair.due, now + self._interval(pair, now))
        if self.controlling:
            pair.due = now  # nominate it
        if pair.mtu is None:
            pair.mtu = MtuSearch(self.context.link_mtu(pair.base), pair.remote.ip.version, now)
        else:
            pair.mtu.doubt(now)
        self._told_mtu = None
        self._tell_mtu()
        self.hard.selected(pair)
        self.rounds = 0
        self.next_round = self._after_round(now)

    def _probe_mtu(self, pair: Pair, now: float) -> None:
        search = pair.mtu
        if search is None:
            return
        if search.overdue(now):
            self._tell_mtu()
        size = search.wanted(now, used=self.is_active(now))
        if size is not None:
            self._send(pair, now, size)
            search.sent(now, pair.srtt or 0.0)

    def _tell_mtu(self) -> None:
        pair = self.selected
        if pair is not None and pair.mtu is not None and pair.mtu.proven not in {None, self._told_mtu}:
            self._told_mtu = pair.mtu.proven
            self.context.events.append(Mtu(self.node, pair.path, pair.mtu.proven or 0))

    def _forgotten_sooner(self) -> None:
        """A NAT on the idle path forgot it: keep it open more often."""
        self.keepalive_s = max(self.context.settings.keepalive_min_s, self.keepalive_s / 2)

    def reports(self) -> Iterator[Pair]:
        """The selected one first, then those that work, then the rest."""
        order = ("valid", "checking", "waiting", "failed")
        yield from sorted(
            self.pairs.values(), key=lambda pair: (pair is not self.selected, order.index(pair.state), pair.rank)
        )
