"""Sessions and their three slots: previous, current, next (WireGuard §6.2, §6.3).

The initiator of a handshake may use a session at once. The responder keeps it as *next* until the first data message
under it shows that the initiator has it too; till then it goes on sending under *current*. *previous* still opens
what was under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warren.proto.datapath import OpeningKey, SealingKey
from warren.proto.wireguard.constants import (
    RECEIVER_REKEY_AFTER_S,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_S,
    REKEY_AFTER_S,
)

if TYPE_CHECKING:
    from warren.proto.wireguard.peer import Peer

_NEVER = float("inf")


class Keypair:
    """The two transport keys of one handshake.

    ``send_until`` and ``receive_until`` are when the session may no longer be used that way (180 s);
    ``renew_sending_after`` and ``renew_receiving_after`` when its initiator has to make a new one (120 s and 165 s;
    never for the responder).
    """

    __slots__ = (
        "by_us",
        "opening",
        "own_index",
        "peer",
        "receive_until",
        "renew_receiving_after",
        "renew_sending_after",
        "sealing",
        "send_until",
    )

    def __init__(
        self, peer: Peer, sending: SealingKey, receiving: OpeningKey, own_index: int, by_us: bool, now: float
    ) -> None:
        self.peer = peer
        self.sealing = sending
        self.opening = receiving
        self.own_index = own_index
        self.by_us = by_us
        self.send_until = self.receive_until = now + REJECT_AFTER_S
        self.renew_sending_after = now + REKEY_AFTER_S if by_us else _NEVER
        self.renew_receiving_after = now + RECEIVER_REKEY_AFTER_S if by_us else _NEVER

    def may_send(self, datagrams: int, now: float) -> bool:
        """§6.2: whether so many datagrams may still go out under this session."""
        return now < self.send_until and self.sealing.counter + datagrams <= REJECT_AFTER_MESSAGES

    def wipe(self) -> None:
        self.sealing.wipe()
        self.opening.wipe()


class Keypairs:
    """The slots of one peer. Methods return the sessions that fell out: their indices have to be released."""

    __slots__ = ("current", "next", "previous")

    def __init__(self) -> None:
        self.previous: Keypair | None = None
        self.current: Keypair | None = None
        self.next: Keypair | None = None

    def add_initiated(self, made: Keypair) -> list[Keypair]:
        """We initiated and the response was accepted: send under it at once."""
        if self.next is not None:
            # A handshake of the peer crossed ours: what it sends may already be under that one.
            dropped = [self.previous, self.current]
            self.previous, self.next = self.next, None
        else:
            dropped = [self.previous]
            self.previous = self.current
        self.current = made
        return [pair for pair in dropped if pair is not None]

    def add_responded(self, made: Keypair) -> list[Keypair]:
        """We responded: wait for a data message under it."""
        dropped = [self.previous, self.next]
        self.previous, self.next = None, made
        return [pair for pair in dropped if pair is not None]

    def confirm_next(self) -> list[Keypair]:
        """The first data message under ``next`` was opened: send under it from now on."""
        dropped = [self.previous] if self.previous is not None else []
        self.previous, self.current, self.next = self.current, self.next, None
        return dropped

    def expire(self) -> None:
        """Send nothing more under any of them."""
        for pair in (self.current, self.next):
            if pair is not None:
                pair.send_until = -_NEVER

    def clear(self) -> list[Keypair]:
        dropped = [pair for pair in (self.previous, self.current, self.next) if pair is not None]
        self.previous = self.current = self.next = None
        return dropped
