"""The sliding window that lets each message counter through once (RFC 6479, WireGuard §5.4.6)."""

from __future__ import annotations

from typing import Final

_BLOCK_SHIFT: Final = 6
_BIT_MASK: Final = 63
_BLOCKS: Final = 128
_BLOCK_MASK: Final = _BLOCKS - 1

WINDOW: Final = (_BLOCKS - 1) << _BLOCK_SHIFT
"""How far, 8,128, a counter may lie behind the greatest one marked and still be accepted."""


class ReplayWindow:
    """Remembers which of the latest counters were seen: a ring of bit blocks that is cleared a whole block at a time.

    ``accepts`` and ``mark`` are apart because a counter is only marked once its message proved authentic.
    """

    __slots__ = ("_ring", "greatest")

    def __init__(self) -> None:
        self.greatest = 0
        """The greatest counter marked; whatever is beyond is accepted."""
        self._ring = [0] * _BLOCKS

    def accepts(self, counter: int) -> bool:
        """Whether ``counter``, below REJECT_AFTER_MESSAGES, is neither too old nor marked. Changes nothing."""
        if counter > self.greatest:
            return True
        if self.greatest - counter > WINDOW:
            return False
        return not self._ring[counter >> _BLOCK_SHIFT & _BLOCK_MASK] >> (counter & _BIT_MASK) & 1

    def mark(self, counter: int) -> None:
        """Record a counter that :meth:`accepts` let through, and slide the window up to it."""
        block = counter >> _BLOCK_SHIFT
        if counter > self.greatest:
            newest = self.greatest >> _BLOCK_SHIFT
            if block != newest:
                self._clear(newest + 1, block + 1)
            self.greatest = counter
        self._ring[block & _BLOCK_MASK] |= 1 << (counter & _BIT_MASK)

    def _clear(self, start: int, stop: int) -> None:
        """Forget what the ring holds where the blocks from ``start`` up to ``stop`` belong."""
        for block in range(start, min(stop, start + _BLOCKS)):
            self._ring[block & _BLOCK_MASK] = 0
