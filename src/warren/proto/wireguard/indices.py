"""The 32-bit indices by which messages to us name their session or handshake (WireGuard §5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warren.proto.wireguard.keypairs import Keypair
    from warren.proto.wireguard.peer import Peer


class IndexTable:
    """Random, unique indices. At most one handshake and three sessions per peer, so the table is as bounded as the
    peers are.

    ``sessions`` is read by the data path directly. An index is of a handshake first and of the session that comes of
    it afterwards.
    """

    __slots__ = ("_handshakes", "_random", "sessions")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._handshakes: dict[int, Peer] = {}
        self.sessions: dict[int, Keypair] = {}

    def allocate(self, peer: Peer) -> int:
        """An unused index for a handshake with ``peer``."""
        while True:
            index = int.from_bytes(self._random(4), "little")
            if index not in self._handshakes and index not in self.sessions:
                self._handshakes[index] = peer
                return index

    def begin_session(self, keypair: Keypair) -> None:
        """The handshake behind ``keypair.own_index`` is over; from now on the index is of its session."""
        self._handshakes.pop(keypair.own_index, None)
        self.sessions[keypair.own_index] = keypair

    def release_handshake(self, index: int) -> None:
        self._handshakes.pop(index, None)

    def release_session(self, index: int) -> None:
        self.sessions.pop(index, None)

    def handshaking(self, index: int) -> Peer | None:
        """Whose unfinished handshake has this index."""
        return self._handshakes.get(index)

    def peer_of(self, index: int) -> Peer | None:
        """Whose handshake or session has this index."""
        keypair = self.sessions.get(index)
        return keypair.peer if keypair is not None else self._handshakes.get(index)
