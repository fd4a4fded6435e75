"""Tells a node that roams from a key that is in two hands.

A node that moved is seen at its new address from then on. Two holders of one key throw each other out by turns, so the
address goes back and forth while the other's session still lives.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

WINDOW_S: Final = 600.0
RETURNS: Final = 2
"""Times that an address came back in the window; a laptop between two networks does that once in a while."""
NODES_MAX: Final = 8192
MOVES_MAX: Final = 8


@dataclass(slots=True)
class _Moves:
    last: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=MOVES_MAX))
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RETURNS))
    told_at: float | None = None


class KeyAlarms:
    """Single owner. Of the nodes that moved least lately it forgets."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[tuple[bytes, bytes], _Moves] = OrderedDict()

    def moved(self, peer: tuple[bytes, bytes], before: str, after: str, now: float) -> bool:
        """``peer``, alive at ``before``, connected from ``after``. Whether to raise the alarm: at most once in the
        window.
        """
        before, after = _host(before), _host(after)
        if before == after:
            return False
        moves = self._nodes.setdefault(peer, _Moves())
        self._nodes.move_to_end(peer)
        while len(self._nodes) > NODES_MAX:
            self._nodes.popitem(last=False)
        if any(place == after and at > now - WINDOW_S for at, place in moves.last):
            moves.returns.append(now)
        moves.last.append((now, before))
        many = len(moves.returns) == RETURNS and moves.returns[0] > now - WINDOW_S
        if not many or (moves.told_at is not None and moves.told_at > now - WINDOW_S):
            return False
        moves.told_at = now
        return True


def _host(observed: str) -> str:
    """The address in ``192.0.2.1:4711`` or ``[2001:db8::1]:4711``; ports change with every connection."""
    for text in (observed, observed.rpartition(":")[0].strip("[]")):
        try:
            return str(ip_address(text))
        except ValueError:
            continue
    return observed
