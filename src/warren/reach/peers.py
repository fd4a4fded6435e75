"""The members to be reached, and what path selection last said of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from warren.identity.keys import PublicKey
from warren.reach.doors import PeerFacts

_EARLY_MAX: Final = 256
"""Peers that the data plane has packets for before this is told of them."""


class Peers:
    """Single owner."""

    def __init__(self) -> None:
        self._facts: dict[bytes, PeerFacts] = {}
        self._holders: dict[PublicKey, bytes] = {}
        self._early: set[PublicKey] = set()
        self._lost: set[bytes] = set()
        self._mtus: dict[bytes, int] = {}
        self._whys: dict[bytes, str] = {}

    def set(self, peers: Iterable[PeerFacts]) -> tuple[list[bytes], list[PeerFacts]]:
        """These are they. Returns the nodes that are none any more, now forgotten, and those that are new or others."""
        wanted = {peer.node: peer for peer in peers}
        gone = [node for node in self._facts if node not in wanted]
        changed = [peer for node, peer in wanted.items() if self._facts.get(node) != peer]
        self._facts = wanted
        self._holders = {key: peer.node for peer in wanted.values() for key in peer.keys}
        for node in gone:
            self._lost.discard(node)
            self._mtus.pop(node, None)
            self._whys.pop(node, None)
        return gone, changed

    def __contains__(self, node: bytes) -> bool:
        return node in self._facts

    def get(self, node: bytes) -> PeerFacts | None:
        return self._facts.get(node)

    def check_key(self, node: bytes) -> bytes | None:
        """The one to seal with."""
        peer = self._facts.get(node)
        return None if peer is None or not peer.check_keys else peer.check_keys[0]

    def holder(self, key: PublicKey) -> bytes | None:
        """The node that the data plane knows by ``key``."""
        return self._holders.get(key)

    def wanted_early(self, key: PublicKey) -> None:
        """There are packets for who has ``key``, and no such peer yet."""
        if len(self._early) < _EARLY_MAX:
            self._early.add(key)

    def take_early(self) -> list[bytes]:
        """Those for whom there were packets before they were known; what is still unknown is forgotten."""
        early, self._early = self._early, set()
        return list({self._holders[key]: None for key in early if key in self._holders})

    # What was said

    def selected(self, node: bytes, why: str, *, lost: bool) -> None:
        """``lost``: no path is left."""
        self._whys[node] = why
        (self._lost.add if lost else self._lost.discard)(node)

    def measured(self, node: bytes, mtu: int) -> None:
        self._mtus[node] = mtu

    def lost(self, node: bytes) -> bool:
        return node in self._lost

    def mtu(self, node: bytes) -> int | None:
        return self._mtus.get(node)

    def why(self, node: bytes) -> str:
        return self._whys.get(node, "")
