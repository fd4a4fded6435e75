"""Which of a peer's addresses its packets go to: one machine per peer, for an underlay without NATs.

The engine is given one candidate after the other until one of them answers a handshake; an address that works is kept
as long as it works, also one that the peer roamed to and that was never announced.

========================  ======================================================  ===========================
state                     is when                                                 leads to
========================  ======================================================  ===========================
``unknown``               the peer has published no candidate                     nothing
``idle``                  no session lives, nothing is sent                       nothing
``connected``             the last handshake is younger than a session may be     nothing
``unreachable``           no candidate suits this host, or all were tried         all are tried again, slower
========================  ======================================================  ===========================
"""

from __future__ import annotations

from typing import Final, Literal

from warren.model.tunnel import PeerStatus, TransportAddress

State = Literal["connected", "idle", "unreachable", "unknown"]

TRY_S: Final = 2.0
"""How long a candidate has to answer before the next gets its turn."""
SILENCE_S: Final = 15.0
"""How long a peer with a living session may say nothing while we send: WireGuard itself then doubts the session
(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, §6.2), since a peer that only receives answers after 10 s.
"""
ROUNDS_QUICK: Final = 3
"""So many times all candidates are tried in quick succession."""
TRY_SLOW_S: Final = 15.0
"""After that a candidate has this long: the peer may be switched off."""
SESSION_S: Final = 180.0
"""A session is not used beyond this (WireGuard §6.1, REJECT_AFTER_TIME)."""
KEEPALIVE_S: Final = 25
"""Keeps the state of NATs and firewalls open (WireGuard's usual interval)."""

KEEPALIVE_BYTES: Final = 32
"""A transport message without a packet in it (WireGuard §5.4.6)."""

_NS: Final = 1_000_000_000


class EndpointChooser:
    """Never fails. ``now`` is seconds of a clock that does not go back; single owner."""

    def __init__(self) -> None:
        self._ranked: tuple[TransportAddress, ...] = ()
        self._announced = False
        self._seen: PeerStatus | None = None
        self._alive = False
        self._silent_since: float | None = None
        """Since when something was sent, or a candidate tried, without an answer."""
        self._tries = 0
        self._wanted: TransportAddress | None = None
        self.state: State = "unknown"
        self.must_initiate = False
        """The other side has no way to us: the path is to be opened and kept open from here."""

    def offer(
        self, ranked: tuple[TransportAddress, ...], *, announced: bool = True, must_initiate: bool = False
    ) -> None:
        """The peer's candidates as :func:`~warren.paths.candidates.rank` gives them. Call it again when they or the
        underlay changed: an address that was among them and no longer is gets left at once.
        """
        before, self._ranked = self._ranked, ranked
        self._announced = announced
        self.must_initiate = must_initiate
        current = self._endpoint
        if ranked != before:
            self._tries = 0
            if ranked and (current is None or (current in before and current not in ranked)):
                self._wanted = ranked[0]
                self._silent_since = None
        self.state = self._judge()

    def observe(self, status: PeerStatus, now_wall_ns: int, now: float) -> None:
        """What the engine says of the peer; at :meth:`next_deadline`, and every few seconds."""
        before, self._seen = self._seen, status
        self._alive = bool(status.last_handshake_ns) and now_wall_ns - status.last_handshake_ns < SESSION_S * _NS
        if before is not None and status.rx_bytes > before.rx_bytes:
            self._silent_since, self._tries, self._wanted = None, 0, None
        elif self._silent_since is None and (self._sends(before, status) or (self.must_initiate and not self._alive)):
            self._silent_since = now
        elif self._silent_since is not None and now - self._silent_since >= self._patience():
            self._try_next(now)
        self.state = self._judge()

    def wanted(self) -> TransportAddress | None:
        """The endpoint to set in the engine; None: leave what is there."""
        return self._wanted if self._wanted != self._endpoint else None

    def next_deadline(self) -> float | None:
        """When :meth:`observe` is due at the latest."""
        return None if self._silent_since is None else self._silent_since + self._patience()

    @property
    def _endpoint(self) -> TransportAddress | None:
        return None if self._seen is None else self._seen.endpoint

    def _sends(self, before: PeerStatus | None, status: PeerStatus) -> bool:
        """Whether something was sent that asks for an answer: a lone keepalive (§6.5) does not."""
        if before is None:
            return status.tx_bytes > 0 and not self._alive  # of a session that lives it is not known when
        return status.tx_bytes - before.tx_bytes > KEEPALIVE_BYTES

    def _patience(self) -> float:
        if self._alive and not self._tries:
            return SILENCE_S
        return TRY_S if self._tries < ROUNDS_QUICK * max(1, len(self._ranked)) else TRY_SLOW_S

    def _try_next(self, now: float) -> None:
        self._tries += 1
        self._silent_since = now
        if self._ranked:
            current = self._wanted or self._endpoint
            place = self._ranked.index(current) + 1 if current in self._ranked else 0
            self._wanted = self._ranked[place % len(self._ranked)]

    def _judge(self) -> State:
        if self._tries >= max(1, len(self._ranked)):
            return "unreachable"
        if self._alive:
            return "connected"
        if not self._ranked and self._endpoint is None:
            return "unreachable" if self._announced else "unknown"
        return "idle"
