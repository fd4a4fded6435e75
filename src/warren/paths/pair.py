"""One candidate pair: a base and where it sends to, what was sent and answered, and when the next check is due."""

from __future__ import annotations

from collections import deque
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.paths.events import PairReport, PairState
from warren.paths.mtu import MtuSearch
from warren.paths.values import Base, CandidateKind, Path

NEVER: Final = float("inf")

OUTSTANDING_MAX: Final = 8
"""Checks without an answer that are still waited for: more than fit into the longest round trip that is of use."""
ANSWER_S: Final = 4.0
"""An answer that takes longer comes too late."""
TRY_S: Final = (0.25, 0.4, 0.6, 0.9, 1.2, 1.5)
"""Between the checks of a pair that has not answered; the last one for ever. Early ones open the NATs, and fall into
the moment in which the other side opens its own.
"""
RTO_MIN_S: Final = 0.35
RTO_MAX_S: Final = 2.0
PENALTY_S: Final = 60.0
PENALTY_MAX_S: Final = 480.0
LOSS_OF: Final = 64
"""Checks: the loss is that of about so many, half a minute of a path in use."""
FORGIVEN_S: Final = 900.0
"""A pair that failed is held back for a minute, each further time for twice as long; after 15 min all is forgotten."""


class Pair:
    """Owned by one PeerPaths. All times are its ``now``."""

    __slots__ = (
        "answered",
        "answered_at",
        "answered_sent_at",
        "base",
        "due",
        "failures",
        "heard_at",
        "held_until",
        "kind",
        "last_failed_at",
        "loss",
        "mapped",
        "mtu",
        "nominated_at",
        "note",
        "outstanding",
        "probes",
        "rank",
        "remote",
        "sent",
        "sent_at",
        "srtt",
        "state",
        "tries",
        "unanswered",
        "until",
        "var",
    )

    def __init__(self, base: Base, remote: TransportAddress, kind: CandidateKind, rank: int) -> None:
        self.base = base
        self.remote = remote
        self.kind: CandidateKind = kind
        self.rank = rank
        """0: LAN, 1: direct, 2: one relay, 3: two relays."""
        self.state: PairState = "waiting"
        self.due = NEVER
        self.until = 0.0
        """While it has not answered, checks go on until then."""
        self.tries = 0
        """Checks in this round."""
        self.unanswered = 0
        """Checks since the last answer."""
        self.outstanding: deque[tuple[bytes, float]] = deque(maxlen=OUTSTANDING_MAX)
        self.probes: deque[tuple[bytes, float]] = deque(maxlen=OUTSTANDING_MAX)
        """The same for probes of the path MTU, which say nothing about whether the path works."""
        self.sent = self.answered = 0
        self.sent_at = self.answered_at = self.heard_at = self.nominated_at = -NEVER
        self.answered_sent_at = -NEVER
        """When the newest check that was answered had been sent."""
        self.srtt: float | None = None
        self.var = 0.0
        self.loss = 0.0
        """The share of the last checks that was not answered; those on the way count as lost."""
        self.mapped: TransportAddress | None = None
        self.mtu: MtuSearch | None = None
        self.failures = 0
        self.held_until = self.last_failed_at = -NEVER
        self.note = ""

    @property
    def path(self) -> Path:
        return Path(self.base, self.remote, self.kind)

    @property
    def relayed(self) -> bool:
        return self.rank >= 2

    @property
    def usable(self) -> bool:
        """It was answered in this round and carries inner packets of 1280 bytes as far as is known."""
        return self.state == "valid" and (self.mtu is None or not self.mtu.too_small)

    def rto(self) -> float:
        """How long an answer may take before the check counts as lost."""
        if self.srtt is None:
            return 0.5
        return min(RTO_MAX_S, max(RTO_MIN_S, self.srtt + 4 * self.var))

    def begin(self, at: float, until: float) -> None:
        """Check it anew: first at ``at``, as long as there is no answer until ``until``."""
        self.until = max(self.until, until)
        if self.state != "valid":
            self.state = "checking"
            self.tries = 0
        self.due = min(self.due, at)

    def was_sent(self, transaction: bytes, now: float, *, probe: bool = False) -> bytes | None:
        """Returns the transaction that is not waited for any more, if there is one."""
        waiting = self.probes if probe else self.outstanding
        dropped = waiting[0][0] if len(waiting) == OUTSTANDING_MAX else None
        waiting.append((transaction, now))
        self.sent += 1
        if probe:
            return dropped
        self.tries += 1
        self.loss += (1 - self.loss) / LOSS_OF
        self.unanswered += 1
        self.sent_at = now
        return dropped

    def was_answered(self, transaction: bytes, sent_at: float, mapped: TransportAddress, now: float) -> None:
        sample = now - sent_at
        if self.srtt is None:  # RFC 6298 §2
            self.srtt, self.var = sample, sample / 2
        else:
            self.var += (abs(sample - self.srtt) - self.var) / 4
            self.srtt += (sample - self.srtt) / 8
        self.answered += 1
        self.answered_at = now
        self.answered_sent_at = max(self.answered_sent_at, sent_at)
        self.mapped = mapped
        self.state = "valid"
        self.unanswered = sum(1 for _, sent in self.outstanding if sent > self.answered_sent_at)
        for waiting in (self.outstanding, self.probes):
            if (transaction, sent_at) in waiting:
                waiting.remove((transaction, sent_at))
                if waiting is self.outstanding:
                    self.loss = max(0.0, self.loss - 1 / LOSS_OF)

    def next_try(self, now: float) -> float:
        """When to check again a pair that has not answered."""
        return now + TRY_S[min(self.tries, len(TRY_S)) - 1]

    def punish(self, now: float) -> None:
        """It was in use and failed: it has to wait before it is chosen over another that works."""
        if now - self.last_failed_at > FORGIVEN_S:
            self.failures = 0
        self.held_until = now + min(PENALTY_S * 2**self.failures, PENALTY_MAX_S)
        self.failures = min(self.failures + 1, 8)
        self.last_failed_at = now

    def report(self, now: float) -> PairReport:
        note = self.note
        if self.mtu is not None and self.mtu.too_small:
            note = "does not carry packets of 1280 bytes"
        elif self.held_until > now:
            note = f"failed a while ago, has to prove itself for {self.held_until - now:.0f} s"
        mtu = None if self.mtu is None else self.mtu.proven
        return PairReport(self.path, self.kind, self.state, self.sent, self.answered, self.srtt, self.mapped, mtu, note)
