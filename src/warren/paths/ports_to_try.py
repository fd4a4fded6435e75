"""Which ports of a hard NAT to probe next: those around the one seen last, or random ones (RFC 5128 §3.4, §3.6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from warren.model.tunnel import TransportAddress

NEAR: Final = (range(1, 33), range(1, 33), range(33, 65), range(1, 33), range(65, 129), range(1, 65), range(129, 257))
"""How far from the port seen last the bursts of a prediction go, on both sides. The nearest are tried more than once:
probes get lost.
"""
DRAW: Final = 64
"""Random ports drawn at once."""
PORT_MIN: Final = 1024


class PortsToTry:
    """Of one attempt. ``random(n)``: n bytes that nobody can foresee; None: it is predicted."""

    def __init__(self, random: Callable[[int], bytes] | None = None) -> None:
        self._random = random
        self._tried: set[int] = set()
        self._next: deque[TransportAddress] = deque()
        self._bursts = 0

    @property
    def begun(self) -> bool:
        return self._bursts > 0

    def any_left(self, seen: Callable[[], Sequence[TransportAddress]]) -> bool:
        """Whether :meth:`take` has one to give. ``seen``: where the peer was seen, the latest first."""
        if not self._next:
            self._bursts += 1
            self._next.extend(self._near(seen()[:2]) if self._random is None else self._drawn(seen()[:1], self._random))
        return bool(self._next)

    def take(self) -> TransportAddress:
        taken = self._next.popleft()
        self._tried.add(taken.port)
        return taken

    def _near(self, seen: Sequence[TransportAddress]) -> list[TransportAddress]:
        if self._bursts > len(NEAR):
            return []
        return [
            TransportAddress(one.ip, port)
            for far in NEAR[self._bursts - 1]
            for one in seen
            for port in (one.port + far, one.port - far)
            if PORT_MIN <= port <= 65_535
        ]

    def _drawn(self, seen: Sequence[TransportAddress], random: Callable[[int], bytes]) -> list[TransportAddress]:
        drawn = random(2 * DRAW)
        ports = [int.from_bytes(drawn[at : at + 2]) for at in range(0, 2 * DRAW, 2)]
        return [
            TransportAddress(one.ip, port)
            for one in seen
            for port in ports
            if port >= PORT_MIN and port not in self._tried
        ]
