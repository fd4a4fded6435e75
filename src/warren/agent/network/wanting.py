"""Works out what a network wants of this node, afresh when anything that it follows from is another."""

from __future__ import annotations

from collections.abc import Collection

from warren.agent.candidates import Surroundings
from warren.agent.network.desired import Wanted, wanted
from warren.agent.network.ground import Ground
from warren.agent.network.peering import Peering


class Wanting:
    """Single owner."""

    def __init__(self, ground: Ground, peering: Peering) -> None:
        self.now = Wanted("starting")
        """What is wanted, as of the last time that it was worked out."""
        self.until: float | None = None
        """When, by the network's clock, it is to be worked out again at the latest; None: it does not expire."""
        self._network = ground.network
        self._node = ground.key.verify_key
        self._shared = ground.shared
        self._coordination = ground.coordination
        self._keyring = ground.keyring
        self._peering = peering
        self._facts: object = None
        self._at = 0.0
        self._documents_count = 0

    def documents_changed(self) -> None:
        self._documents_count += 1

    def work_out(self, interface: str, surroundings: Surroundings) -> Wanted | None:
        """Have :attr:`now` be of now; returns what was wanted before if that was something else."""
        network_s = self._coordination.network_s
        revoked = self._coordination.standing.refused == "revoked"
        own_keys: Collection[object] = tuple(self._keyring.own())
        facts = (self._documents_count, surroundings, self._shared.others(self._network), own_keys, revoked)
        if facts == self._facts and (self.until is None or network_s < self.until) and network_s >= self._at:
            return None
        before = self.now
        found = wanted(
            self._coordination.documents,
            self._node.raw,
            network_s,
            interface,
            taken=self._shared.taken(self._network, surroundings),
            holders=self._peering.holders,
            own_keys=self._keyring.own(),
            refused=revoked,
        )
        self._facts, self._at = facts, network_s
        self.until = self._coordination.documents.next_lease_change(network_s)
        if found == before:
            return None
        self.now = found
        return before
