"""Whether data gets through to one peer and back: by what is counted here, and by what the peer counts (receipts.py).

================  =========================================================  =======================
what is seen      is                                                         follows (peer.py)
================  =========================================================  =======================
flows             more than keepalives went out or came in                   the peer is in use
silent            data went out, and for the first time in 3 s nothing came  the path is doubted
mute              data goes out and nothing comes in, for 12.5 s, and the    another path is taken
                  peer does not say what came
damning           the peer says what came, and it is less than was sent      another path is taken
================  =========================================================  =======================
"""

from __future__ import annotations

from typing import Final, NamedTuple

from warren.paths.checks import Receipt
from warren.paths.pair import NEVER, Pair
from warren.paths.receipts import Receipts

SILENCE_S: Final = 3.0
"""Packets go out, and for the first time in so long none came in: that makes doubts before the next heartbeat."""
MUTE_S: Final = 12.5
"""Data that arrives is answered within ten seconds, if only by a keepalive (WireGuard, §6.5). Who carries checks and no
data, as a hostile relay may, is left after that where the peer does not say what came (receipts.py).
"""
KEEPALIVE_BYTES: Final = 32
"""A WireGuard keepalive (§5.4.6) asks for nothing."""


class Traffic(NamedTuple):
    """What the counters say since they were told the last time; see the module."""

    flows: bool
    silent: bool
    mute: bool


class Delivery:
    """Owned by one PeerPaths."""

    def __init__(self) -> None:
        self._tx = self._rx = 0
        self._rx_at = -NEVER
        self._counted_at: float | None = None
        """When ``_tx`` and ``_rx`` were told last."""
        self._mute_since: float | None = None
        """Since then data went out, and nothing came in."""
        self._receipts = Receipts()

    def counted(self, tx_bytes: int, rx_bytes: int, pair: Pair | None, now: float) -> Traffic:
        """The counters, ever growing; ``pair`` is in use."""
        sent, came = tx_bytes - self._tx, rx_bytes - self._rx
        looked_at, self._counted_at = self._counted_at, now
        self._tx, self._rx = tx_bytes, rx_bytes
        sends = sent > KEEPALIVE_BYTES
        if came > 0:
            self._rx_at = now
            self._mute_since = None
        elif sends and self._mute_since is None:
            self._mute_since = now
        if sends:
            self._receipts.sent(looked_at, now, pair)
        return Traffic(
            flows=sends or came > KEEPALIVE_BYTES,
            silent=sends and came <= 0 and now - self._rx_at < SILENCE_S,
            mute=sends and self._take_mute(now),
        )

    def _take_mute(self, now: float) -> bool:
        """Said once in MUTE_S."""
        if self._mute_since is None or self._receipts.known(now) or now - self._mute_since < MUTE_S:
            return False
        self._mute_since = now
        return True

    def receipt(self, now: float) -> Receipt | None:
        """What an answer tells the peer of its data; None: it is not known."""
        return None if self._counted_at is None else Receipt(self._rx, now - self._counted_at)

    def received(self, receipt: Receipt, asked_at: float, pair: Pair, now: float) -> bool:
        """What the peer says of our data in its answer to a check sent at ``asked_at``; ``pair`` is in use. Returns
        whether that is damning.
        """
        self._receipts.received(receipt, asked_at, pair, now)
        if self._receipts.take_doubt() and pair.mtu is not None:
            pair.mtu.doubt(now)  # perhaps only the large ones vanish
        if not self._receipts.damning(pair) or (pair.mtu is not None and pair.mtu.loses):
            return False
        self._receipts.forget()
        return True

    def peer_began(self, now: float) -> None:
        """The peer was started again."""
        self._receipts.peer_began(now)

    def path_changed(self) -> None:
        """Another path is in use, or none: nothing speaks against it yet."""
        self._mute_since = None
        self._receipts.forget()
