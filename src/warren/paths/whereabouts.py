"""Where one peer says it is, or was seen to be: its record, its last signal, what relays saw; and its NAT.

What is newer comes first: a signal is newer than the record until the record changes.
"""

from __future__ import annotations

from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.paths.nat import Situation
from warren.paths.values import RemoteCandidate

SEEN_MAX: Final = 4


class Whereabouts:
    """Owned by one PeerPaths."""

    def __init__(self) -> None:
        self.nat = ""
        self._record: tuple[RemoteCandidate, ...] = ()
        self._told: tuple[RemoteCandidate, ...] = ()
        """What its last signal said."""
        self._seen: tuple[RemoteCandidate, ...] = ()
        """Where relays saw its requests come from, the last first: with most NATs everybody gets there."""

    def candidates(self) -> tuple[RemoteCandidate, ...]:
        return (*self._seen, *self._told, *self._record)

    def has_relay(self, address: TransportAddress) -> bool:
        """Its record names a relay of that IP address."""
        return any(one.kind == "relay" and one.address.ip == address.ip for one in self._record)

    def situation(self) -> Situation | None:
        """What the peer says of its NAT; None: nothing that can be read."""
        try:
            return Situation.from_text_untrusted(self.nat) if self.nat else None
        except MalformedPacket:
            return None

    # Each returns whether something is new

    def recorded(self, candidates: tuple[RemoteCandidate, ...]) -> bool:
        if candidates == self._record:
            return False
        self._record = candidates
        self._told = ()  # the record is newer, or soon to be
        return True

    def told(self, candidates: tuple[RemoteCandidate, ...]) -> bool:
        if candidates == self._told:
            return False
        self._told = candidates
        return True

    def saw(self, candidate: RemoteCandidate) -> bool:
        if candidate in self._seen or candidate.address in {one.address for one in self.candidates()}:
            return False
        self._seen = (candidate, *self._seen[: SEEN_MAX - 1])
        return True

    def described(self, nat: str) -> bool:
        """``nat`` empty: it says nothing, and what it said before holds."""
        if not nat or nat == self.nat:
            return False
        self.nat = nat
        return True
