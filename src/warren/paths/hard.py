"""Getting through NATs that use another outside port for every destination, within a budget (RFC 5128 §3.4, §3.6).

One side, the *hard* one, has such a NAT; the other, the *easy* one, keeps its outside port but only lets in whom it
sent to. The oracle (paths/nat.py) says from what both tell of their NATs whether one of two ways applies:

==========  ======================================================  =================================================
by          the easy side                                           the hard side
==========  ======================================================  =================================================
predicted   probes the ports around the one from which the hard     goes on with its usual checks: its NAT gave them
            side was last seen, near ones and then further away     a port close to that one
birthday    probes random ports of the hard side's address; with    opens many sockets and sends from each: so many
            1,024 probes against 256 sockets 98 % of attempts hit   ports lead in
==========  ======================================================  =================================================

A probe is a check like any other: only the peer can answer it, and an answer makes a pair. An attempt that fails is not
repeated for 30 s, then for twice as long, up to an hour.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths.context import Context
from warren.paths.events import SocketsDone, SocketsWanted
from warren.paths.nat import Situation, Verdict, verdict
from warren.paths.pacing import Bucket
from warren.paths.pair import ANSWER_S, NEVER, Pair
from warren.paths.pairing import target
from warren.paths.ports_to_try import PortsToTry
from warren.paths.values import Base

if TYPE_CHECKING:
    from warren.paths.peer import PeerPaths

AFTER_S: Final = 1.5
"""Into a round: by then the usual checks have found what they can find."""
OPENERS_PER_S: Final = 200.0
REFRESH_S: Final = 8.0
"""The sockets of a birthday send again, so that no NAT forgets them."""
ATTEMPT_S: Final = 25.0
"""Of the hard side, from asking for sockets; the easy side needs ten seconds."""
UNTOLD_S: Final = 4.0
"""The easy side does not wait longer to be told that the sockets are open."""
AGAIN_MAX_S: Final = 3600.0
BUSY_MAX: Final = 2
"""Peers with which a node does this at the same time."""

Role = Literal["", "predict", "probe", "open"]


class Hard:
    """One peer's. Owned by its PeerPaths, which says when a round has begun and what was selected."""

    def __init__(self, context: Context, peer: PeerPaths, now: float) -> None:
        self.context = context
        self.peer = peer
        self.role: Role = ""
        self.note = ""
        self.failures = 0
        self.again_at = -NEVER
        self._wake = NEVER
        self._ends = NEVER
        self._bucket = Bucket(context.settings.hard_probes_per_s, 4, now)
        self._opener = Bucket(OPENERS_PER_S, 8, now)
        self._sent: deque[tuple[bytes, float]] = deque()
        self._ports = PortsToTry()
        self._probes = 0
        self._sockets: tuple[Base, ...] = ()
        self._next_socket = 0
        self._asked = False
        self._kept: int | None = None

    @property
    def busy(self) -> bool:
        return bool(self.role)

    def oracle(self) -> Verdict | None:
        """None: one side has not said how its NAT behaves."""
        sides = self._situations()
        return None if sides is None else verdict(*sides)

    def _situations(self) -> tuple[Situation, Situation] | None:
        ours, theirs = self.context.situation(), self.peer.whereabouts.situation()
        return None if ours is None or theirs is None else (ours, theirs)

    def round_began(self, now: float) -> None:
        if not self.busy and self.context.settings.hard and self._wake == NEVER:
            self._wake = max(now + AFTER_S, self.again_at)

    def handle_timeout(self, now: float) -> None:
        while self._sent and now - self._sent[0][1] > ANSWER_S:
            self.context.transactions.pop(self._sent.popleft()[0], None)
        if now < min(self._wake, self._ends):
            return
        if not self.busy:
            self._begin(now)
        elif now >= self._ends or self.peer.choice.is_direct():
            self._end(now)
        elif self.role == "open":
            self._open_next(now)
        else:
            self._probe_next(now)

    def next_at(self) -> float:
        return min(self._wake, self._ends)

    def _begin(self, now: float) -> None:
        self._wake = NEVER
        sides = self._situations()
        if sides is None or self.peer.choice.is_direct() or not self.peer.demand.is_wanted(now):
            return
        by = verdict(*sides).by
        mine = sides[0].v4
        if by not in {"predicted", "birthday"} or mine is None:
            return
        if sum(1 for one in self.context.hard_busy if one is not self) >= BUSY_MAX:
            self._wake = now + AFTER_S
            return
        self.context.hard_busy.add(self)
        self._probes = 0
        if not mine.known:
            if by == "birthday":
                self._ask_for_sockets(now)
            else:
                self._done()  # the usual checks are all that is needed
            return
        self.role = "predict" if by == "predicted" else "probe"
        self._ports = PortsToTry(None if by == "predicted" else self.context.random)
        self.note = (
            "Ports near the last one seen of the peer are tried."
            if by == "predicted"
            else "Random ports of the peer's address are tried."
        )
        self._ends = now + ATTEMPT_S
        self._wake = now if by == "predicted" else now + UNTOLD_S

    # The hard side of a birthday

    def _ask_for_sockets(self, now: float) -> None:
        remote = self._easy_address()
        base = None if remote is None else self._base_towards(remote)[0]
        if base is None:
            self._done()
            return
        self.role = "open"
        self.note = f"{self.context.settings.hard_sockets} sockets are opened towards the peer."
        self._asked = True
        self._ends = now + ATTEMPT_S
        self._wake = NEVER
        self.context.events.append(SocketsWanted(self.peer.node, self.context.settings.hard_sockets, base))

    def sockets_opened(self, bases: tuple[Base, ...], now: float) -> None:
        if self.role != "open" or self._sockets:
            return
        self._sockets = bases[: self.context.settings.hard_sockets]
        self._next_socket = 0
        if not self._sockets:
            self._ends = now
            self.note = "No sockets could be opened."
            return
        self._wake = now
        self.peer.signal(asks=False, sockets=len(self._sockets))

    def owns(self, base: Base) -> bool:
        """Whether it is a socket of ours: only then messages that come to it count."""
        return base in self._sockets

    def _open_next(self, now: float) -> None:
        remote = self._easy_address()
        if remote is None or not self._sockets:
            self._wake = NEVER
            return
        translated = self._base_towards(remote)[1]
        while self._next_socket < len(self._sockets):
            if not self._opener.take(now):
                self._wake = now + max(self._opener.wait(now), 0.005)
                return
            self._send(self._sockets[self._next_socket], translated, now)
            self._next_socket += 1
        self._next_socket = 0
        self._wake = now + REFRESH_S

    def _easy_address(self) -> TransportAddress | None:
        """Where the easy side's NAT lets its port be seen."""
        for kind in ("mapped", "srflx", "stated", "host"):
            for one in self.peer.whereabouts.candidates():
                if one.kind == kind and _is4(one.address.ip):
                    return one.address
        return None

    def _base_towards(self, remote: TransportAddress) -> tuple[Base | None, TransportAddress]:
        """The first of our addresses from which ``remote`` can be sent to, and how it is written there (NAT64)."""
        for base in self.context.bases:
            if base.kind == "host":
                translated = target(base, remote, self.context.around)
                if translated is not None:
                    return base, translated
        return None, remote

    # The easy side

    def peer_opened(self, now: float) -> None:
        """The hard side says that its sockets are open."""
        if self.role == "probe" and not self._ports.begun:
            self._wake = now
        elif not self.busy and now >= self.again_at:
            self._begin(now)
            if self.role == "probe":
                self._wake = now

    def _probe_next(self, now: float) -> None:
        while self._probes < self.context.settings.hard_probes:
            if not self._ports.any_left(self._seen_addresses):
                break
            if not self._bucket.take(now):
                self._wake = now + max(self._bucket.wait(now), 0.005)
                return
            remote = self._ports.take()
            self._probes += 1
            base, translated = self._base_towards(remote)
            if base is not None:
                self._send(base, translated, now)
        self._wake = NEVER
        self._ends = min(self._ends, now + ANSWER_S)

    def _seen_addresses(self) -> list[TransportAddress]:
        """Where the hard side was seen, the latest first: sources of its authentic requests, as our relays name them or
        in person, and only without any of those what its record says.
        """
        pairs = [pair for pair in self.peer.pairs if _is4(pair.remote.ip) and pair.kind != "relay"]
        heard = sorted((pair for pair in pairs if pair.heard_at > -NEVER), key=lambda pair: -pair.heard_at)
        if heard:
            return [pair.remote for pair in heard]
        candidates = self.peer.whereabouts.candidates()
        return [one.address for one in candidates if one.kind == "srflx" and _is4(one.address.ip)]

    # Both

    def selected(self, pair: Pair | None) -> None:
        """What is in use now; sockets that are not are given back."""
        keep = pair.base.socket if pair is not None and pair.base.kind == "socket" else None
        if self._asked:
            if pair is None or pair.relayed:
                return
            self._asked = False
            self._kept = keep
            self._sockets = tuple(one for one in self._sockets if one.socket == keep)
            self.context.events.append(SocketsDone(self.peer.node, keep))
            self._done()
        elif self._kept is not None and self._kept != keep:
            self._kept, self._sockets = None, ()
            self.context.events.append(SocketsDone(self.peer.node, None))

    def close(self) -> None:
        if self._asked or self._kept is not None:
            self.context.events.append(SocketsDone(self.peer.node, None))
        self._asked, self._kept, self._sockets = False, None, ()
        self._done()

    def _send(self, base: Base, remote: TransportAddress, now: float) -> None:
        self._sent.append((self.context.send_check(self.peer, base, remote, now), now))

    def _end(self, now: float) -> None:
        if self.peer.choice.is_direct():
            self.failures = 0
        else:
            self.again_at = now + min(AGAIN_MAX_S, self.context.settings.hard_again_s * 2**self.failures)
            self.failures = min(self.failures + 1, 16)
            self.note = f"{self.failures} attempt{'' if self.failures == 1 else 's'} at a hard NAT failed."
        if self._asked:
            self._asked, self._sockets = False, ()
            self.peer.pairs.forget_sockets(self.peer.choice.pair)
            self.context.events.append(SocketsDone(self.peer.node, None))
        self._done()
        if not self.peer.choice.is_direct():
            self._wake = self.again_at

    def _done(self) -> None:
        self.role = ""
        self._wake = self._ends = NEVER
        self.context.hard_busy.discard(self)


def _is4(ip: IPAddress | None) -> bool:
    return ip is not None and ip.version == 4
