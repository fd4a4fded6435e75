"""When each pair with one peer is checked, and that it is.

=====================================  ==================================================================
a pair                                 is checked
=====================================  ==================================================================
that has not answered                  at growing intervals until its round ends (pair.py), within limits
in use, while data flows               every 0.6 s
in use, idle                           as often as keeps it open (keepalive.py)
that works and could take over (warm)  every 10 s while data flows
any that works, while one is in doubt  every 0.3 s
any other that works                   when something happens to it
=====================================  ==================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from warren.model.tunnel import TransportAddress
from warren.paths.choice import DOUBT_S, GIVEN_UP, LOST_S
from warren.paths.context import Context
from warren.paths.keepalive import Keepalive
from warren.paths.mtu import OVERHEAD
from warren.paths.pacing import Bucket
from warren.paths.pair import NEVER, Pair
from warren.paths.rounds import ROUND_S

if TYPE_CHECKING:
    from warren.paths.peer import PeerPaths

HEARTBEAT_S: Final = 0.6
"""With the patience of choice.py a dead path is left within 3 s, and a hole of 2 s survived."""
WARM_S: Final = 10.0
"""Others that work, so that they can take over (Choice.warm)."""
CHECKED_S: Final = 60.0
"""An idle path that the other side keeps open is checked from here at least this often."""
STALE_S: Final = 20.0


class Checking:
    """Owned by one PeerPaths."""

    def __init__(self, context: Context, peer: PeerPaths, now: float) -> None:
        settings = context.settings
        self._context = context
        self._peer = peer
        self._pacer = Bucket(settings.peer_checks_per_s, settings.peer_checks_per_s / 2, now)
        self.keepalive = Keepalive(settings.keepalive_s, settings.keepalive_min_s, now)

    def handle_timeout(self, now: float) -> None:
        for pair in [pair for pair in self._peer.pairs if pair.due <= now]:
            self._check_due(pair, now)

    def next_at(self) -> float:
        return min((pair.due for pair in self._peer.pairs), default=NEVER)

    def _check_due(self, pair: Pair, now: float) -> None:
        if pair.state == "valid":
            if pair is not self._peer.choice.pair and pair.unanswered > GIVEN_UP and now - pair.answered_at > LOST_S:
                pair.state, pair.due = "failed", NEVER
                return
            self.send(pair, now)
            pair.due = now + self.interval(pair, now)
            return
        if now >= pair.until:
            pair.state, pair.due = "failed", NEVER
            return
        for bucket in (self._pacer, self._context.pacer):
            if not bucket.take(now):
                pair.due = now + max(bucket.wait(now), 0.005)
                return
        pair.state = "checking"
        self.send(pair, now)
        pair.due = pair.next_try(now)

    def send(self, pair: Pair, now: float, size: int = 0, *, whole: bool = True) -> None:
        """A check, or with a ``size`` a probe of the path MTU, which may be fragmented unless it is ``whole``."""
        transaction = self._context.send_check(
            self._peer,
            pair.base,
            pair.remote,
            now,
            pair=pair,
            nominates=self._peer.controlling and pair is self._peer.choice.pair,
            size=size,
            length=size + OVERHEAD if size else 0,
            whole=whole,
        )
        dropped = pair.was_sent(transaction, now, probe=bool(size))
        if dropped is not None:
            self._context.transactions.pop(dropped, None)

    def interval(self, pair: Pair, now: float) -> float:
        """Until the next check of a pair that works."""
        choice, active = self._peer.choice, self._peer.demand.is_active(now)
        if choice.doubt_since is not None:
            return DOUBT_S
        if pair is choice.pair:
            if active:
                return HEARTBEAT_S
            if self._peer.node not in self._context.kept:
                return NEVER
            return self.keepalive.interval_s * (1.0 if self._peer.controlling else 1.25)
        return WARM_S if active and pair in choice.warm() else NEVER

    # What makes a check due sooner, or later

    def trigger(self, pair: Pair, now: float) -> None:
        """The peer was heard there: check it at once (RFC 8445 §7.3.1.4), unless that is known or under way."""
        known = pair.state == "valid" and now - pair.answered_at < STALE_S
        if not known or self._peer.choice.doubt_since is not None:
            pair.begin(max(now, pair.sent_at + 0.1), now + ROUND_S / 2)

    def hasten(self, now: float) -> None:
        """Data begins to flow: soon it is known whether what worked still does."""
        for pair in self._peer.pairs:
            if pair.state == "valid":
                pair.due = min(pair.due, now + HEARTBEAT_S)

    def spare(self, pair: Pair, now: float) -> None:
        """A check of the peer's came by ``pair``: on an idle path our answer has kept it open."""
        choice = self._peer.choice
        idle = pair is choice.pair and choice.is_sound() and not self._peer.demand.is_active(now)
        if idle and now - pair.answered_at < CHECKED_S:
            pair.due = max(pair.due, now + self.interval(pair, now))

    def was_answered(self, pair: Pair, mapped: TransportAddress, now: float) -> None:
        """What that says of the NATs on an idle path; before the pair notes it."""
        if pair is self._peer.choice.pair and not self._peer.demand.is_active(now) and pair.mapped is not None:
            if pair.mapped != mapped:
                self.keepalive.forgotten(now)
            else:
                self.keepalive.kept(now)
