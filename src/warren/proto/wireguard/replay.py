"""The sliding window that lets each message counter through once (RFC 6479, WireGuard §5.4.6)."""

from __future__ import annotations

from array import array
from typing import Final

REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
"""Counters from here on are never used nor accepted (WireGuard §6.1)."""

BLOCK_BITS: Final = 64
BLOCKS: Final = 128
WINDOW: Final = (BLOCKS - 1) * BLOCK_BITS
"""How far, 8,128, a counter may lie behind the greatest one marked and still be accepted."""

_NO_BITS: Final = array("Q", bytes(8 * BLOCKS))


class ReplayWindow:
    """Remembers which of the latest counters were seen: a ring of bit blocks that is cleared a whole block at a time.

    ``accepts`` and ``mark`` are apart because a counter is only marked once its message proved authentic.
    """

    __slots__ = ("_greatest", "_ring")

    def __init__(self) -> None:
        self._greatest = 0
        self._ring = _NO_BITS[:]

    def accepts(self, counter: int) -> bool:
        """Whether ``counter``, below REJECT_AFTER_MESSAGES, is neither too old nor marked. Changes nothing."""
        if counter > self._greatest:
            return True
        if self._greatest - counter > WINDOW:
            return False
        return not self._ring[counter // BLOCK_BITS % BLOCKS] >> counter % BLOCK_BITS & 1

    def mark(self, counter: int) -> None:
        """Record a counter that :meth:`accepts` let through, and slide the window up to it."""
        block = counter // BLOCK_BITS
        if counter > self._greatest:
            newest = self._greatest // BLOCK_BITS
            if block - newest >= BLOCKS:
                self._ring[:] = _NO_BITS
            else:
                for stale in range(newest + 1, block + 1):
                    self._ring[stale % BLOCKS] = 0
            self._greatest = counter
        self._ring[block % BLOCKS] |= 1 << counter % BLOCK_BITS
