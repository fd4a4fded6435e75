"""Channels of an allocation: numbers that stand for peers in ChannelData (RFC 8656 §12).

Which peers are to have one, which number each has, and when the server has to be asked for it (again). A number that
was bound once means the same peer until the server has forgotten it, and five minutes more, since data may be late
(§12).
"""

from __future__ import annotations

from typing import Final

from warren.model.tunnel import TransportAddress
from warren.proto.turn.channel import CHANNEL_MAX, CHANNEL_MIN

LIFETIME_S: Final = 600.0  # RFC 8656 §12
REFRESH_S: Final = 240.0  # earlier than needed for the channel: the request renews the permission too (§12.2)
QUARANTINE_S: Final = LIFETIME_S + 300.0  # §12
BOUND_MAX: Final = 512  # twice the peers that a node can reach by one relay: each has two families
RETRY_S: Final = 5.0

NEVER = float("inf")


class _Channel:
    """One peer's number; ``bound``: the server has agreed to it, until ``until``."""

    __slots__ = ("asked_at", "asked_for", "bound", "due_at", "number", "until")

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.bound = False
        self.until = -NEVER
        self.due_at = now
        self.asked_for = False
        self.asked_at = now


class Channels:
    """The numbers of one allocation. Owned by the client, which sends what :meth:`take_due` names and says what came of
    it by :meth:`bound` or :meth:`postpone`; nothing here fails. ``now`` is in seconds.
    """

    def __init__(self) -> None:
        self._by_peer: dict[TransportAddress, _Channel] = {}
        self._by_number: dict[int, TransportAddress] = {}
        self._released: dict[TransportAddress, tuple[int, float]] = {}
        self._next = CHANNEL_MIN

    def want(self, peer: TransportAddress, now: float) -> bool:
        """Bind a channel to ``peer`` and keep it bound; False: there are too many."""
        if peer in self._by_peer:
            return True
        released = self._released.pop(peer, None)
        number = released[0] if released is not None else self._free_number(now)
        if number is None or len(self._by_peer) >= BOUND_MAX:
            if released is not None:
                self._released[peer] = released
            return False
        self._by_peer[peer] = _Channel(number, now)
        self._by_number[number] = peer
        return True

    def _free_number(self, now: float) -> int | None:
        for peer in [peer for peer, (_, free_at) in self._released.items() if free_at <= now]:
            del self._by_number[self._released.pop(peer)[0]]
        for _ in range(CHANNEL_MAX - CHANNEL_MIN + 1):
            number, self._next = self._next, self._next + 1 if self._next < CHANNEL_MAX else CHANNEL_MIN
            if number not in self._by_number:
                return number
        return None

    def release(self, peer: TransportAddress) -> None:
        """Keep it no longer. What still comes in by its number is the peer's."""
        channel = self._by_peer.pop(peer, None)
        if channel is not None:
            # The server may have renewed it when it was last asked to, whether or not we heard of it.
            self._released[peer] = channel.number, channel.asked_at + QUARANTINE_S

    def __len__(self) -> int:
        return len(self._by_peer)

    def peers(self) -> tuple[TransportAddress, ...]:
        """Those that are wanted."""
        return tuple(self._by_peer)

    def number_of(self, peer: TransportAddress) -> int | None:
        """The number if it is bound."""
        channel = self._by_peer.get(peer)
        return channel.number if channel is not None and channel.bound else None

    def number_wanted(self, peer: TransportAddress) -> int:
        """The number that is, or will be, bound to a peer that is wanted."""
        return self._by_peer[peer].number

    def peer_of(self, number: int) -> TransportAddress | None:
        return self._by_number.get(number)

    def take_due(self, now: float) -> TransportAddress | None:
        """A peer whose channel is to be asked for now; it counts as asked for until answered."""
        for peer, channel in self._by_peer.items():
            if channel.due_at <= now and not channel.asked_for:
                channel.asked_for = True
                channel.asked_at = now
                return peer
        return None

    def bound(self, peer: TransportAddress, now: float) -> bool:
        """The server agreed; returns whether it was not bound before."""
        channel = self._by_peer.get(peer)
        if channel is None:
            return False
        new = not channel.bound
        channel.bound = True
        channel.asked_for = False
        channel.until = now + LIFETIME_S
        channel.due_at = now + REFRESH_S
        return new

    def postpone(self, peer: TransportAddress, now: float) -> bool:
        """No answer, or one that may pass; returns whether the channel is still good meanwhile."""
        channel = self._by_peer.get(peer)
        if channel is None:
            return True
        channel.asked_for = False
        channel.due_at = now + RETRY_S
        return now + RETRY_S < channel.until

    def forget_answers(self, now: float) -> None:
        """There is a new allocation: all is to be bound anew, with the same numbers; released numbers are free."""
        for peer in self._released:
            del self._by_number[self._released[peer][0]]
        self._released.clear()
        for channel in self._by_peer.values():
            channel.bound, channel.until, channel.due_at, channel.asked_for = False, -NEVER, now, False

    def next_deadline(self) -> float:
        return min((one.due_at for one in self._by_peer.values() if not one.asked_for), default=NEVER)
