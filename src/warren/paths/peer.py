"""All paths to one peer: what happens from outside, and which of its parts that concerns.

Where the peer may be is in whereabouts.py, whether a path is wanted in demand.py, when a pair is checked in
checking.py, when all are in rounds.py, the path in use in choice.py, whether data gets through in delivery.py, and
whether large packets do in mtu_probes.py.

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

from warren.model.tunnel import TransportAddress
from warren.paths.checking import HEARTBEAT_S, Checking
from warren.paths.checks import Answer, Request, label_of
from warren.paths.choice import DOUBT_S, Choice
from warren.paths.context import Context, Waiting
from warren.paths.delivery import Delivery
from warren.paths.demand import LOST_WANTED_S, Demand
from warren.paths.events import Mapped
from warren.paths.freshness import Freshness, SignalOrder
from warren.paths.hard import Hard
from warren.paths.mtu_probes import MtuProbes
from warren.paths.pacing import Bucket
from warren.paths.pair import NEVER, Pair
from warren.paths.pairing import in_overlay
from warren.paths.rounds import ROUND_S, Rounds
from warren.paths.signals import Signal
from warren.paths.table import PairTable
from warren.paths.values import Base, RemoteCandidate
from warren.paths.whereabouts import Whereabouts

REPLIES_PER_S: Final = 100.0
"""To one peer; a birthday needs a handful, a path in doubt 4 for each pair."""


class PeerPaths:
    """One peer's machine. Transmits and events go to the Context."""

    def __init__(self, context: Context, node: bytes, now: float) -> None:
        self.context = context
        self.node = node
        self.label = label_of(node)
        self.controlling = context.node < node
        self.keys: tuple[bytes, ...] = ()
        self.order = 0
        """The number of our last request."""
        self.whereabouts = Whereabouts()
        self.demand = Demand()
        self.delivery = Delivery()
        self.pairs = PairTable(context)
        self.choice = Choice(context, self, now)
        self.checking = Checking(context, self, now)
        self.rounds = Rounds(context, self)
        self.mtu_probes = MtuProbes(self)
        self.hard = Hard(context, self, now)
        self.freshness = Freshness(now)
        self.signal_order = SignalOrder()
        self.replies = Bucket(REPLIES_PER_S, REPLIES_PER_S, now)

    # What changes from outside

    def set_candidates(
        self, keys: tuple[bytes, ...], candidates: tuple[RemoteCandidate, ...], nat: str, now: float
    ) -> None:
        self.keys = keys
        self._set_nat(nat)
        if self.whereabouts.recorded(candidates):
            self.rebuild(now)

    def _set_nat(self, nat: str) -> None:
        if self.whereabouts.described(nat):
            self.checking.keepalive.learn(self.whereabouts.situation(), self.context.situation())

    def rebuild(self, now: float) -> None:
        """The bases or the candidates are others."""
        for place, pair in enumerate(self.pairs.rebuild(self.whereabouts.candidates())):
            if self.demand.is_wanted(now) or self.demand.is_active(now):
                pair.begin(now + place * self.context.settings.pace_s, now + ROUND_S)
        self.choice.decide(now)

    def want(self, now: float) -> None:
        self.demand.want(now)
        pair = self.choice.pair
        if pair is None:
            if now >= self.rounds.until:
                self.rounds.search(now)
        elif now - pair.answered_at > 2 * HEARTBEAT_S:
            self.choice.suspect(now)

    def traffic(self, tx_bytes: int, rx_bytes: int, now: float) -> None:
        seen = self.delivery.counted(tx_bytes, rx_bytes, self.choice.pair, now)
        if seen.flows:
            self._use(now)
        if seen.silent:
            self.choice.suspect(now)  # who only sends is watched by heartbeats
        if seen.mute:
            self.choice.mute(now)

    def _use(self, now: float) -> None:
        was = self.demand.is_active(now)
        self.context.keep(self.node)
        self.demand.use(now)
        if was:
            return
        self.checking.hasten(now)
        if not self.choice.is_direct():
            self.rounds.hope(now)

    def network_changed(self, now: float) -> None:
        """Nothing is known to work any more, and everything may."""
        self.rounds.hope()
        self.checking.keepalive.renew(now)
        for pair in self.pairs:
            pair.failures, pair.held_until = 0, -NEVER
        self.choice.suspect(now)
        if self.choice.pair is not None or self.demand.is_wanted(now):
            self.demand.want(now)
            self.rounds.search(now)

    def heard(self, base: Base, remote: TransportAddress, now: float) -> None:
        """An authentic WireGuard packet came from elsewhere: perhaps the peer has moved there."""
        pair = self._pair(base, remote, now)
        if pair is None or pair is self.choice.pair:
            return
        pair.heard_at = now
        self.checking.trigger(pair, now)
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
        if signal.places and self.whereabouts.told(signal.candidates()):
            self.rebuild(now)
        if signal.asks:
            self.signal(asks=False)
        if not (self.choice.is_direct() and self.choice.is_sound()) and now >= self.rounds.until - ROUND_S / 2:
            self.demand.want(now, ROUND_S)
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
        if base.kind == "relay" and not request.relayed and self.whereabouts.saw(RemoteCandidate("srflx", remote)):
            self.rebuild(now)
        pair.heard_at = now
        if request.nominates and not self.controlling:
            pair.nominated_at = now
        self.checking.trigger(pair, now)
        self.checking.spare(pair, now)
        if not self.choice.is_direct() and now >= self.rounds.until:
            self.demand.want(now, ROUND_S)
            self.rounds.begin(now)
        self.choice.decide(now)

    def answered(self, waiting: Waiting, transaction: bytes, answer: Answer, now: float) -> None:
        """A check of ours was answered by the way it went."""
        mapped = answer.mapped
        before = self.freshness.epoch
        if self.freshness.proven(answer.epoch) and before is not None:
            self.delivery.peer_began(now)
            self.signal_order.over(before)
        pair = waiting.pair or self._pair(waiting.base, waiting.remote, now)
        if pair is None or pair not in self.pairs:
            return
        self.checking.was_answered(pair, mapped, now)
        if pair.mapped != mapped:
            pair.failures, pair.held_until = 0, -NEVER  # what it failed from is over
            if pair.base.kind == "host" and mapped.ip != pair.base.address:
                self.context.was_mapped(pair.base, mapped, pair.remote, now)
                self.context.events.append(Mapped(pair.base, mapped, self.node))
        pair.was_answered(transaction, waiting.sent_at, mapped, now)
        if waiting.size and pair.mtu is not None and pair.mtu.answered(waiting.size, now):
            self.choice.tell_mtu()
        self.choice.was_answered(pair, waiting.sent_at)
        pair.due = now + self.checking.interval(pair, now)
        self.choice.decide(now)
        selected = self.choice.pair
        if answer.receipt is None or selected is None:
            return
        if self.delivery.received(answer.receipt, waiting.sent_at, selected, now):
            self.choice.mute(now)

    # Time

    def handle_timeout(self, now: float) -> None:
        self.checking.handle_timeout(now)
        self.choice.handle_timeout(now)
        self.mtu_probes.handle_timeout(now)
        self.rounds.handle_timeout(now)
        self.hard.handle_timeout(now)
        self.choice.decide(now)
        self.pairs.expire(now)

    def next_at(self, now: float) -> float:
        choice = self.choice.next_at(now, active=self.demand.is_active(now))
        parts = (self.checking.next_at(), self.mtu_probes.next_at(now), self.rounds.next_at, self.hard.next_at())
        return min(choice, *parts)

    def was_selected(self, pair: Pair | None, now: float, *, was_direct: bool) -> None:
        """The choice fell; None: on nothing. ``was_direct``: the one before was, and that is to be found again."""
        self.delivery.path_changed()
        self.hard.selected(pair)
        self.rounds.hope()
        if pair is None and not self.demand.is_active(now):
            self.checking.keepalive.forgotten(now)
        if pair is None or (pair.relayed and was_direct):
            self.demand.want(now, LOST_WANTED_S)
            self.rounds.search(now)
        if pair is None:
            return
        self.context.keep(self.node)
        later = min(pair.due, now + self.checking.interval(pair, now))
        pair.due = now if self.controlling else later  # nominate it at once
        self.rounds.plan(now)

    def _pair(self, base: Base, remote: TransportAddress, now: float) -> Pair | None:
        """The pair of a way by which something authentic came, as an answer to the probe of a port did."""
        return self.pairs.get(base, remote) or self._reflexive(base, remote, relayed=False, now=now)

    def _reflexive(self, base: Base, remote: TransportAddress, *, relayed: bool, now: float) -> Pair | None:
        """A pair for a source that was authentic. None: from such a base, or so many, there are none."""
        if base not in self.context.bases and not self.hard.owns(base):
            return None
        if in_overlay(remote.ip, self.context.around):
            return None
        relayed = relayed or self.whereabouts.has_relay(remote)
        return self.pairs.add_reflexive(base, remote, relayed=relayed, now=now)
