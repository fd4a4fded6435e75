"""The path to one peer that is in use: choosing it, doubting it, leaving it, and what it carries.

=============  ==============================================  ======================================================
state          ends when                                       with
=============  ==============================================  ======================================================
none           a pair answers                                  selected
selected       a heartbeat misses its answer, packets go out   in doubt
               and none come in, the network changed, the
               peer was heard at a new place
               a better pair answers (selection.py)            selected, another
               its base is gone, or it turns out too small     selected (the best other), in doubt; or none
in doubt: it   it answers a check sent since                   selected
and others     4 checks over 1.9 s were not answered, and      selected, the other; the old one has to prove itself
are checked    another pair was
every 0.3 s    nothing was answered for 5 s                    none
=============  ==============================================  ======================================================

What is selected was always validated by an answered check of ours (RFC 8445 §7.2.5.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from warren.paths import standby
from warren.paths.context import Context
from warren.paths.events import Mtu, Selected
from warren.paths.mtu import MtuSearch
from warren.paths.pair import NEVER, Pair
from warren.paths.selection import SETTLING_S, best, improves

if TYPE_CHECKING:
    from warren.paths.peer import PeerPaths

DOUBT_S: Final = 0.3
GIVEN_UP_S: Final = 1.55
"""Beyond the time that an answer may take (0.35 s at the least): longer than a hole of 2 s, in all."""
GIVEN_UP: Final = 4
MOVED_S: Final = 0.8
"""The same if the peer itself was heard at another place since, and not at this one: it has moved."""
MOVED: Final = 3
LOST_S: Final = 5.0
NOMINATED_S: Final = 25.0
"""A nomination holds for longer than a keepalive's interval."""
FOLLOWED_S: Final = 5.0
"""Within this the other side follows a nomination, if it can and wants to."""
KINDS: Final = ("on one link", "direct", "over a relay", "over two relays")


class Choice:
    """Owned by one PeerPaths."""

    def __init__(self, context: Context, peer: PeerPaths, now: float) -> None:
        self.context = context
        self.peer = peer
        self.pair: Pair | None = None
        self.since = now
        """When ``pair`` was selected."""
        self.why = "Nobody asked for a path yet."
        self.doubt_since: float | None = None
        self._broke_at = -NEVER
        """Since when the path before did not answer: what others answered earlier says nothing any more."""
        self._settled_at = -NEVER
        self._told_mtu: int | None = None

    def is_direct(self) -> bool:
        return self.pair is not None and not self.pair.relayed

    def is_sound(self) -> bool:
        """There is one, and nothing speaks against it."""
        return self.pair is not None and self.doubt_since is None

    def suspect(self, now: float) -> None:
        """Check the selected pair and all that could take its place, at once and often."""
        if self.doubt_since is not None or self.pair is None:
            return
        self.doubt_since = now
        for pair in standby.doubted(self.pair, self.peer.pairs.others(self.pair), self.context.uplink_of):
            pair.due = min(pair.due, max(now, pair.sent_at + 0.1))
        if self.pair.mtu is not None:
            self.pair.mtu.doubt(now)

    def warm(self) -> list[Pair]:
        """Those that are kept ready for when the selected one fails."""
        return standby.warm(self.pair, self.peer.pairs.others(self.pair), self.context.uplink_of)

    def was_answered(self, pair: Pair, sent_at: float) -> None:
        if pair is self.pair and self.doubt_since is not None and sent_at >= self.doubt_since:
            self.doubt_since = None

    def next_at(self, now: float, *, active: bool) -> float:
        pair = self.pair
        if pair is None:
            return NEVER
        at = NEVER
        if self.doubt_since is not None:
            at = max(now + DOUBT_S, self.doubt_since + LOST_S)
        elif pair.unanswered:
            at = pair.sent_at + pair.rto()
        return at if pair.mtu is None else min(at, pair.mtu.next_due(used=active))

    def handle_timeout(self, now: float) -> None:
        """Doubt the pair when the newest check should have been answered."""
        pair = self.pair
        if pair is not None and self.doubt_since is None and pair.unanswered and now >= pair.sent_at + pair.rto():
            self.suspect(now)

    def decide(self, now: float) -> None:
        """Select, move, fail over, give up: whatever the answers so far say."""
        current = self.pair
        if current is None:
            found = best(self.peer.pairs, now)
            if found is not None:
                self._select(found, now, "it was the first to answer")
        elif current not in self.peer.pairs:
            self.leave(now, "the interface or relay that it used is gone")
        elif current.state != "valid":
            self.leave(now, "it does not answer any more")
        elif not current.usable and any(
            pair.usable and pair.held_until <= now for pair in self.peer.pairs.others(current)
        ):
            self.leave(now, "it does not carry packets of 1280 bytes")
        elif self.doubt_since is not None:
            self._doubted(current, self.doubt_since, now)
        else:
            self._improve(current, now)

    def _improve(self, current: Pair, now: float) -> None:
        found = best([pair for pair in self.peer.pairs if pair is current or self._answers(pair)], now)
        if found is not None and improves(found, current, now, since=self.since, settled_at=self._settled_at):
            better = "it is direct" if current.relayed and not found.relayed else "it is shorter"
            if current.relayed != found.relayed or now - current.nominated_at > NOMINATED_S:
                self._select(found, now, better)
                return
        named = max(self.peer.pairs, key=lambda pair: pair.nominated_at)
        if named is current or not named.usable or named.held_until > now or named.relayed > current.relayed:
            return
        if not self._answers(named):
            return
        if now - named.nominated_at < NOMINATED_S:  # the controlled side goes with the other if it can
            self._select(named, now, "the peer uses it")

    def _answers(self, pair: Pair) -> bool:
        """It did so since the path before broke, along with which it may have broken."""
        return pair.answered_sent_at >= self._broke_at

    def _doubted(self, current: Pair, since: float, now: float) -> None:
        doubted = now - since
        others = [pair for pair in self.peer.pairs.others(current) if pair.answered_sent_at >= since]
        other = best(others, now)
        if other is None:
            if doubted >= LOST_S and current.unanswered >= GIVEN_UP:
                self.leave(now, "it does not answer any more")
            return
        moved = other.heard_at >= since > current.heard_at and other.relayed <= current.relayed
        if moved and current.unanswered >= MOVED and doubted >= max(MOVED_S, current.rto() + DOUBT_S):
            current.state = "failed"
            self._broke_at = since
            self._select(other, now, "the peer has moved")
        elif current.unanswered >= GIVEN_UP and doubted >= current.rto() + GIVEN_UP_S:
            current.punish(now)
            current.state = "failed"
            self._broke_at = since
            self._select(other, now, "the path before does not answer any more")

    def mute(self, now: float) -> None:
        """Checks are answered by the selected pair, and data is not: try another, best by other relays. Where only
        small packets get through, that is why.
        """
        current = self.pair
        others = [pair for pair in self.peer.pairs.others(current) if pair.held_until <= now]
        if current is None or self.doubt_since is not None or not current.usable:
            return
        suspects = self._relays_of(current)
        other = best([pair for pair in others if suspects.isdisjoint(self._relays_of(pair))], now) or best(others, now)
        if other is not None:
            current.punish(now)
            self._select(other, now, "the path before carries checks and no data")
            self.suspect(now)

    def follow(self, pair: Pair, now: float) -> None:
        """The peer's packets come by ``pair``, although another was nominated long ago: it has its reasons."""
        current = self.pair
        if current is None or pair.relayed != current.relayed or not pair.usable or pair.held_until > now:
            return
        if self.doubt_since is None and now - self.since > FOLLOWED_S:
            self._select(pair, now, "the peer keeps to it")

    def _relays_of(self, pair: Pair) -> set[str]:
        """By name where they are ours, else by address."""
        names = {address.ip: name.partition("/")[0] for name, address in self.context.around.relayed}
        found = {pair.base.relay.partition("/")[0]} if pair.base.kind == "relay" else set()
        return found | ({names.get(pair.remote.ip, str(pair.remote.ip))} if pair.kind == "relay" else set())

    def leave(self, now: float, because: str) -> None:
        """The selected pair cannot be used: take the best other at once, whether it still answers or not, and see."""
        current = self.pair
        if current is not None and current.usable:
            current.state = "failed"
        others = self.peer.pairs.others(current)
        other = best([pair for pair in others if not self._is_cut(pair)], now) or best(others, now)
        if other is not None:
            self._select(other, now, f"of the path before, {because}")
            self.suspect(now)
            return
        self.pair, self.doubt_since = None, None
        self.why = f"Of the path before, {because}."
        self.context.events.append(Selected(self.peer.node, None, self.why))
        self.peer.was_selected(None, now, was_direct=current is not None and not current.relayed)

    def _is_cut(self, pair: Pair) -> bool:
        """The interface by which this host gets to the relay is gone, whatever the relay answered by it."""
        uplink = self.context.uplink_of(pair.base)
        return uplink not in {0, *(base.interface for base in self.context.bases if base.kind != "relay")}

    def _select(self, pair: Pair, now: float, because: str) -> None:
        before, self.pair = self.pair, pair
        if before is None or before.relayed != pair.relayed:
            self._settled_at = now + SETTLING_S
        self.since = now
        self.doubt_since = None
        self.why = f"{pair.path} ({KINDS[pair.rank]}): {because}."
        self.context.events.append(Selected(self.peer.node, pair.path, self.why))
        if pair.mtu is None:
            pair.mtu = MtuSearch(self.context.link_mtu(pair.base), pair.remote.ip.version, now)
        else:
            pair.mtu.doubt(now)
        self._told_mtu = None
        self.tell_mtu()
        self.peer.was_selected(pair, now, was_direct=before is not None and not before.relayed)

    def tell_mtu(self) -> None:
        """If something else is proven than was told."""
        pair = self.pair
        if pair is not None and pair.mtu is not None and pair.mtu.proven not in {None, self._told_mtu}:
            self._told_mtu = pair.mtu.proven
            self.context.events.append(Mtu(self.peer.node, pair.path, pair.mtu.proven or 0))
