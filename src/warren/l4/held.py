"""What flows hold: datagrams kept until the backend is connected to, and until it has answered where there is another
one that could have them. Those that do not fit are lost, as anywhere when queues are full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from warren.l4.trains import Train

HELD_BYTES_MAX: Final = 8 << 20
"""Of all flows of an entry together."""
HELD_MAX: Final = 32
"""Of one flow, in trains."""


class Room:
    """An entry's, for what its flows hold; ``used`` is in bytes."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0


class Held:
    """The trains of one flow, in the order in which they came. They take ``room`` until :meth:`release`."""

    __slots__ = ("_bytes", "_room", "_trains")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._trains: list[Train] = []
        self._bytes = 0

    def __iter__(self) -> Iterator[Train]:
        """Of what is there now, whatever is released meanwhile."""
        return iter([*self._trains])

    def keep(self, train: Train) -> None:
        if len(self._trains) < HELD_MAX and self._room.used + train.length <= HELD_BYTES_MAX:
            self._trains.append(train.held())
            self._bytes += train.length
            self._room.used += train.length

    def release(self) -> None:
        """Forget them all."""
        self._room.used -= self._bytes
        self._bytes = 0
        self._trains.clear()
