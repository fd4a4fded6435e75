"""All paths to one peer: checks and their answers, and keeping open what was found. When all pairs are checked is in
rounds.py, the path in use in choice.py.

=============  ==========================================================  ===========================================
the peer is    when                                                        then
=============  ==========================================================  ===========================================
idle           nobody wants a path, and none is selected                   nothing is sent
checking       a path is wanted, and none (or a relayed one) is selected   rounds of checks of all pairs, with signals;
                                                                           pauses grow while they find nothing
active         data flows by the selected pair                             heartbeats there, and checks of others that
                                                                           work, so that they can take over
kept           a pair is selected, and no data flows                       keepalives
=============  ==========================================================  ===========================================
"""

from __future__ import annotations

from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.paths.checks import Answer, Receipt, Request, label_of
from warren.paths.choice import DOUBT_S, GIVEN_UP, LOST_S, Choice
from warren.paths.context import Context, Waiting
from warren.paths.events import Mapped
from warren.paths.freshness import Freshness, SignalOrder
from warren.paths.hard import Hard
from warren.paths.keepalive import Keepalive
from warren.paths.mtu import OVERHEAD, MtuSearch
from warren.paths.nat import Situation
from warren.paths.pacing import Bucket
from warren.paths.pair import NEVER, Pair
from warren.paths.pairing import in_overlay
from warren.paths.receipts import Receipts
from warren.paths.rounds import ROUND_S, Rounds
from warren.paths.signals import Signal
from warren.paths.table import PairTable
from warren.paths.values import Base, RemoteCandidate

WANTED_S: Final = 30.0
LOST_WANTED_S: Final = 120.0
"""A path that was lost is looked for so long even if no data flows: the peer may want to send."""
ACTIVE_S: Final = 10.0
HEARTBEAT_S: Final = 0.6
"""With the patience of choice.py a dead path is left within 3 s, and a hole of 2 s survived."""
SILENCE_S: Final = 3.0
"""Packets go out, and for the first time in so long none came in: that makes doubts before the next heartbeat."""
MUTE_S: Final = 12.5
"""Data that arrives is answered within ten seconds, if only by a keepalive (WireGuard, §6.5). Who carries checks and no
data, as a hostile relay may, is left after that where the peer does not say what came (receipts.py).
"""
WARM_S: Final = 10.0
"""Others that work, so that they can take over (Choice.warm)."""
CHECKED_S: Final = 60.0
"""An idle path that the other side keeps open is checked from here at least this often."""
STALE_S: Final = 20.0
SEEN_MAX: Final = 4
REPLIES_PER_S: Final = 100.0
"""To one peer; a birthday needs a handful, a path in doubt 4 for each pair."""
KEEPALIVE_BYTES: Final = 32
"""A WireGuard keepalive (§5.4.6) asks for nothing."""


class PeerPaths:
    """One peer's machine. Transmits and events go to the Context."""

    def __init__(self, context: Context, node: bytes, now: float) -> None:
        self.context = context
        self.node = node
        self.label = label_of(node)
        self.controlling = context.node < node
        self.keys: tuple[bytes, ...] = ()
        self.nat = ""
        self.order = 0
        """The number of our last request."""
        self.pairs = PairTable(context)
        self.choice = Choice(context, self, now)
        self.hard = Hard(context, self, now)
        self.freshness = Freshness(now)
        self.signal_order = SignalOrder()
        self.replies = Bucket(REPLIES_PER_S, REPLIES_PER_S, now)
        self.rounds = Rounds(context, self)
        self.active_until = -NEVER
        self._candidates: tuple[RemoteCandidate, ...] = ()
        self._told: tuple[RemoteCandidate, ...] = ()
        """What its last signal said."""
        self._seen: tuple[RemoteCandidate, ...] = ()
        """Where relays saw its requests come from, the last first: with most NATs everybody gets there."""
        self._wanted_until = -NEVER
        settings = context.settings
        self._keepalive = Keepalive(settings.keepalive_s, settings.keepalive_min_s, now)
        self._pacer = Bucket(settings.peer_checks_per_s, settings.peer_checks_per_s / 2, now)
        self._tx = self._rx = 0
        self._rx_at = -NEVER
        self._counted_at: float | None = None
        """When ``_tx`` and ``_rx`` were told last."""
        self._mute_since: float | None = None
        """Since then data went out, and nothing came in."""
        self._receipts = Receipts()

    # What is known

    def candidates(self) -> tuple[RemoteCandidate, ...]:
        return (*self._seen, *self._told, *self._candidates)

    def is_wanted(self, now: float) -> bool:
        return now < self._wanted_until

    def is_active(self, now: float) -> bool:
        return now < self.active_until

    def is_narrow(self) -> bool:
        selected = self.choice.pair
        if selected is None or selected.mtu is None:
            return False
        since = [pair.mtu.too_small_since for pair in self.pairs if pair.mtu is not None and pair.mtu.too_small]
        return selected.mtu.answered_at < max(since, default=-NEVER)

    def is_wide(self, since: float) -> bool:
        search = None if self.choice.pair is None else self.choice.pair.mtu
        return search is not None and not search.too_small and search.answered_at >= since

    def situation(self) -> Situation | None:
        """What the peer says of its NAT; None: nothing that can be read."""
        try:
            return Situation.from_text_untrusted(self.nat) if self.nat else None
        except MalformedPacket:
            return None

    # What changes from outside

    def set_candidates(
        self, keys: tuple[bytes, ...], candidates: tuple[RemoteCandidate, ...], nat: str, now: float
    ) -> None:
        changed = candidates != self._candidates
        self.keys, self._candidates = keys, candidates
        self._set_nat(nat)
        if changed:
            self._told = ()  # the record is newer, or soon to be
            self.rebuild(now)

    def _set_nat(self, nat: str) -> None:
        if nat and nat != self.nat:
            self.nat = nat
            self._keepalive.learn(self.situation(), self.context.situation())

    def rebuild(self, now: float) -> None:
        """The bases or the candidates are others."""
        for place, pair in enumerate(self.pairs.rebuild(self.candidates())):
            if self.is_wanted(now) or self.is_active(now):
                pair.begin(now + place * self.context.settings.pace_s, now + ROUND_S)
        self.choice.decide(now)

    def want(self, now: float) -> None:
        self._wanted_until = max(self._wanted_until, now + WANTED_S)
        pair = self.choice.pair
        if pair is None:
            if now >= self.rounds.until:
                self.rounds.search(now)
        elif now - pair.answered_at > 2 * HEARTBEAT_S:
            self.choice.suspect(now)

    def traffic(self, tx_bytes: int, rx_bytes: int, now: float) -> None:
        sent, came = tx_bytes - self._tx, rx_bytes - self._rx
        looked_at, self._counted_at = self._counted_at, now
        self._tx, self._rx = tx_bytes, rx_bytes
        if came > 0:
            self._rx_at = now
            self._mute_since = None
        elif sent > KEEPALIVE_BYTES and self._mute_since is None:
            self._mute_since = now
        if sent > KEEPALIVE_BYTES or came > KEEPALIVE_BYTES:
            self._use(now)
        if sent > KEEPALIVE_BYTES and came <= 0 and now - self._rx_at < SILENCE_S:
            self.choice.suspect(now)  # who only sends is watched by heartbeats
        if sent > KEEPALIVE_BYTES:
            self._receipts.sent(looked_at, now, self.choice.pair)
        mute_since = None if self._receipts.known(now) else self._mute_since
        if sent > KEEPALIVE_BYTES and mute_since is not None and now - mute_since >= MUTE_S:
            self._mute_since = now
            self.choice.mute(now)

    def receipt(self, now: float) -> Receipt | None:
        """What an answer tells the peer of its data; None: it is not known."""
        return None if self._counted_at is None else Receipt(self._rx, now - self._counted_at)

    def _use(self, now: float) -> None:
        was = self.is_active(now)
        self.context.keep(self.node)
        self.active_until = now + ACTIVE_S
        self._wanted_until = max(self._wanted_until, now + ACTIVE_S)
        if was:
            return
        for pair in self.pairs:
            if pair.state == "valid":
                pair.due = min(pair.due, now + HEARTBEAT_S)
        if not self.choice.is_direct():
            self.rounds.hope(now)

    def network_changed(self, now: float) -> None:
        """Nothing is known to work any more, and everything may."""
        self.rounds.hope()
        self._keepalive.renew(now)
        for pair in self.pairs:
            pair.failures, pair.held_until = 0, -NEVER
        self.choice.suspect(now)
        if self.choice.pair is not None or self.is_wanted(now):
            self._wanted_until = max(self._wanted_until, now + WANTED_S)
            self.rounds.search(now)

    def heard(self, base: Base, remote: TransportAddress, now: float) -> None:
        """An authentic WireGuard packet came from elsewhere: perhaps the peer has moved there."""
        pair = self.pairs.get(base, remote) or self._reflexive(base, remote, relayed=False, now=now)
        if pair is None or pair is self.choice.pair:
            return
        pair.heard_at = now
        self._trigger(pair, now)
        if self.controlling:
            self.choice.follow(pair, now)
        if self.choice.pair is not None and self.choice.pair.heard_at < now - DOUBT_S:
            self.choice.suspect(now)

    def signal(self, *, asks: bool, sockets: int = 0) -> None:
        """Have the peer told that it is time to check."""
        before = self.context.signals.get(self.node, (False, 0))
        self.context.signals[self.node] = (asks or before[0], sockets or before[1])

    def signalled(self, signal: Signal, now: float) -> None:
        """An authentic signal of the peer."""
        self._set_nat(signal.nat)
        if signal.places and signal.candidates() != self._told:
            self._told = signal.candidates()
            self.rebuild(now)
        if signal.asks:
            self.signal(asks=False)
        if not (self.choice.is_direct() and self.choice.is_sound()) and now >= self.rounds.until - ROUND_S / 2:
            self._wanted_until = max(self._wanted_until, now + ROUND_S)
            self.rounds.begin(now)
        if signal.sockets:
            self.hard.peer_opened(now)

    def close(self) -> None:
        """The peer is removed."""
        self.hard.close()
        self.pairs.clear()
        self.context.kept.pop(self.node, None)

    # Messages

    def requested(self, request: Request, base: Base, remote: TransportAddress, now: float) -> None:
        """A verified request came in and was answered. It never selects anything: at most it makes us check."""
        if not self.freshness.accepts(request.epoch, request.order, now):
            return
        pair = self.pairs.get(base, remote)
        if pair is None:
            pair = self._reflexive(base, remote, relayed=request.relayed, now=now)
            if pair is None:
                return
            selected = self.choice.pair
            if selected is not None and selected.relayed >= pair.relayed:
                self.choice.suspect(now)
        if base.kind == "relay" and not request.relayed:
            self._saw(RemoteCandidate("srflx", remote), now)
        pair.heard_at = now
        if request.nominates and not self.controlling:
            pair.nominated_at = now
        self._trigger(pair, now)
        idle = pair is self.choice.pair and self.choice.is_sound() and not self.is_active(now)
        if idle and now - pair.answered_at < CHECKED_S:  # our answer has kept it open
            pair.due = max(pair.due, now + self._interval(pair, now))
        if not self.choice.is_direct() and now >= self.rounds.until:
            self._wanted_until = max(self._wanted_until, now + ROUND_S)
            self.rounds.begin(now)
        self.choice.decide(now)

    def _saw(self, candidate: RemoteCandidate, now: float) -> None:
        if candidate not in self._seen and candidate.address not in {one.address for one in self.candidates()}:
            self._seen = (candidate, *self._seen[: SEEN_MAX - 1])
            self.rebuild(now)

    def answered(self, waiting: Waiting, transaction: bytes, answer: Answer, now: float) -> None:
        """A check of ours was answered by the way it went."""
        mapped = answer.mapped
        before = self.freshness.epoch
        if self.freshness.proven(answer.epoch) and before is not None:
            self._receipts.peer_began(now)
            self.signal_order.over(before)
        pair = waiting.pair or self._probed(waiting.base, waiting.remote, now)
        if pair is None or pair not in self.pairs:
            return
        if pair is self.choice.pair and not self.is_active(now) and pair.mapped is not None:
            if pair.mapped != mapped:
                self._keepalive.forgotten(now)
            else:
                self._keepalive.kept(now)
        if pair.mapped != mapped:
            pair.failures, pair.held_until = 0, -NEVER  # what it failed from is over
            if pair.base.kind == "host" and mapped.ip != pair.base.address:
                self.context.was_mapped(pair.base, mapped, pair.remote, now)
                self.context.events.append(Mapped(pair.base, mapped, self.node))
        pair.was_answered(transaction, waiting.sent_at, mapped, now)
        if waiting.size and pair.mtu is not None and pair.mtu.answered(waiting.size, now):
            self.choice.tell_mtu()
        self.choice.was_answered(pair, waiting.sent_at)
        pair.due = now + self._interval(pair, now)
        self.choice.decide(now)
        self._receive(answer.receipt, waiting.sent_at, now)

    def _receive(self, receipt: Receipt | None, asked_at: float, now: float) -> None:
        """Leave the path if what the peer says of our data speaks against it."""
        pair = self.choice.pair
        if receipt is None or pair is None:
            return
        self._receipts.received(receipt, asked_at, pair, now)
        if self._receipts.take_doubt() and pair.mtu is not None:
            pair.mtu.doubt(now)  # perhaps only the large ones vanish
        if self._receipts.damning(pair) and (pair.mtu is None or not pair.mtu.loses):
            self._receipts.forget()
            self.choice.mute(now)

    # Time

    def handle_timeout(self, now: float) -> None:
        for pair in [pair for pair in self.pairs if pair.due <= now]:
            self._check_due(pair, now)
        self.choice.handle_timeout(now)
        self._probe_mtu(now)
        self.rounds.handle_timeout(now)
        self.hard.handle_timeout(now)
        self.choice.decide(now)
        self.pairs.expire(now)

    def next_at(self, now: float) -> float:
        at = min((pair.due for pair in self.pairs), default=NEVER)
        again = min((search.next_due(used=True) for _, search in self._too_small(now)), default=NEVER)
        choice = self.choice.next_at(now, active=self.is_active(now))
        return min(at, again, choice, self.rounds.next_at, self.hard.next_at())

    def was_selected(self, pair: Pair | None, now: float, *, was_direct: bool) -> None:
        """The choice fell; None: on nothing. ``was_direct``: the one before was, and that is to be found again."""
        self._mute_since = None
        self._receipts.forget()
        self.hard.selected(pair)
        self.rounds.hope()
        if pair is None and not self.is_active(now):
            self._keepalive.forgotten(now)
        if pair is None or (pair.relayed and was_direct):
            self._wanted_until = max(self._wanted_until, now + LOST_WANTED_S)
            self.rounds.search(now)
        if pair is None:
            return
        self.context.keep(self.node)
        pair.due = now if self.controlling else min(pair.due, now + self._interval(pair, now))  # nominate it at once
        self.rounds.plan(now)

    # Checks

    def _reflexive(self, base: Base, remote: TransportAddress, *, relayed: bool, now: float) -> Pair | None:
        """A pair for a source that was authentic. None: from such a base, or so many, there are none."""
        if base not in self.context.bases and not self.hard.owns(base):
            return None
        if in_overlay(remote.ip, self.context.around):
            return None
        known = any(one.kind == "relay" and one.address.ip == remote.ip for one in self._candidates)
        return self.pairs.add_reflexive(base, remote, relayed=relayed or known, now=now)

    def _probed(self, base: Base, remote: TransportAddress, now: float) -> Pair | None:
        """The pair of a probe of a port that was answered."""
        return self.pairs.get(base, remote) or self._reflexive(base, remote, relayed=False, now=now)

    def drop_sockets(self) -> None:
        for pair in [pair for pair in self.pairs.others(self.choice.pair) if pair.base.kind == "socket"]:
            self.pairs.forget(pair)

    def _trigger(self, pair: Pair, now: float) -> None:
        """The peer was heard there: check it at once (RFC 8445 §7.3.1.4), unless that is known or under way."""
        if pair.state == "valid" and now - pair.answered_at < STALE_S and self.choice.doubt_since is None:
            return
        pair.begin(max(now, pair.sent_at + 0.1), now + ROUND_S / 2)

    def _check_due(self, pair: Pair, now: float) -> None:
        if pair.state == "valid":
            if pair is not self.choice.pair and pair.unanswered > GIVEN_UP and now - pair.answered_at > LOST_S:
                pair.state, pair.due = "failed", NEVER
                return
            self._send(pair, now)
            pair.due = now + self._interval(pair, now)
            return
        if now >= pair.until:
            pair.state, pair.due = "failed", NEVER
            return
        for bucket in (self._pacer, self.context.pacer):
            if not bucket.take(now):
                pair.due = now + max(bucket.wait(now), 0.005)
                return
        pair.state = "checking"
        self._send(pair, now)
        pair.due = pair.next_try(now)

    def _send(self, pair: Pair, now: float, size: int = 0, *, whole: bool = True) -> None:
        """A check, or with a ``size`` a probe of the path MTU, which may be fragmented unless it is ``whole``."""
        transaction = self.context.send_check(
            self,
            pair.base,
            pair.remote,
            now,
            pair=pair,
            nominates=self.controlling and pair is self.choice.pair,
            size=size,
            length=size + OVERHEAD if size else 0,
            whole=whole,
        )
        dropped = pair.was_sent(transaction, now, probe=bool(size))
        if dropped is not None:
            self.context.transactions.pop(dropped, None)

    def _interval(self, pair: Pair, now: float) -> float:
        """Until the next check of a pair that works."""
        if self.choice.doubt_since is not None:
            return DOUBT_S
        if pair is self.choice.pair:
            if not self.is_active(now):
                if self.node not in self.context.kept:
                    return NEVER
                return self._keepalive.interval_s * (1.0 if self.controlling else 1.25)
            return HEARTBEAT_S
        if self.is_active(now) and pair in self.choice.warm():
            return WARM_S
        return NEVER

    def _too_small(self, now: float) -> list[tuple[Pair, MtuSearch]]:
        """Pairs that work, but not for large packets: that may change."""
        if not self.is_active(now):
            return []
        found = [(pair, pair.mtu) for pair in self.pairs if pair.state == "valid"]
        return [(pair, search) for pair, search in found if search is not None and search.too_small]

    def _probe_mtu(self, now: float) -> None:
        selected = self.choice.pair
        due = self._too_small(now)
        if selected is not None and selected.mtu is not None and not selected.mtu.too_small:
            due.append((selected, selected.mtu))
        for pair, search in due:
            alive = pair.answered_sent_at >= search.sent_at
            if search.overdue(now, alive=alive, loss=pair.loss) and pair is selected:
                self.choice.tell_mtu()
            size = search.wanted(now, used=self.is_active(now))
            if size is not None:
                self._send(pair, now, size, whole=search.whole)
                search.sent(now, pair.srtt or 0.0)
                pair.due = min(pair.due, now)  # whether a small one gets through at this moment
