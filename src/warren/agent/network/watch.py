"""How a peer is, from what the engine counts: one machine per peer.

================  ===================================================================  ====================
state             is when                                                              leads to
================  ===================================================================  ====================
``unknown``       the peer has published no way to it                                  nothing
``idle``          no session lives, nothing is sent                                    nothing
``connected``     the last handshake is younger than a session may be                  nothing
``unreachable``   a path is wanted and there is none, or what is sent goes unanswered  its other key is tried
================  ===================================================================  ====================
"""

from __future__ import annotations

from typing import Final, Literal

from warren.model.tunnel import PeerStatus

State = Literal["connected", "idle", "unreachable", "unknown"]

SESSION_S: Final = 180.0
"""A session is not used beyond this (WireGuard §6.1, REJECT_AFTER_TIME)."""
SILENCE_S: Final = 20.0
"""How long a peer with a living session may say nothing while we send: WireGuard itself then doubts the session
(KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, §6.2) after 15 s.
"""
HANDSHAKE_S: Final = 6.0
"""The same without one: the second handshake was not answered either (REKEY_TIMEOUT, §6.1)."""
KEEPALIVE_BYTES: Final = 32
"""A transport message without a packet in it (WireGuard §5.4.6)."""

_NS: Final = 1_000_000_000


class PeerWatch:
    """Never fails. ``now`` is seconds of a clock that does not go back, ``now_wall_ns`` dates handshakes."""

    def __init__(self) -> None:
        self.seen: PeerStatus | None = None
        self.alive = False
        """A session lives."""
        self._silent_since: float | None = None
        """Since when something was sent without an answer."""

    def observe(self, status: PeerStatus, now_wall_ns: int, now: float) -> None:
        """What the engine says of the peer."""
        before, self.seen = self.seen, status
        self.alive = bool(status.last_handshake_ns) and now_wall_ns - status.last_handshake_ns < SESSION_S * _NS
        if before is not None and (
            status.rx_bytes > before.rx_bytes or status.last_handshake_ns > before.last_handshake_ns
        ):
            self._silent_since = None
        elif self._silent_since is None and before is not None and status.tx_bytes - before.tx_bytes > KEEPALIVE_BYTES:
            self._silent_since = now

    def state(self, now: float, *, announced: bool, lost: bool) -> State:
        """``announced``: the peer has published where it is. ``lost``: a path is wanted and none was found."""
        silent = now - self._silent_since if self._silent_since is not None else 0.0
        if lost or silent >= (SILENCE_S if self.alive else HANDSHAKE_S):
            return "unreachable"
        if self.alive:
            return "connected"
        return "idle" if announced or (self.seen is not None and self.seen.endpoint is not None) else "unknown"
