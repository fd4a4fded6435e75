"""What all parts of one network of this node stand on: who the node is there, what it knows, what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warren.agent.network.apply import Ledger
from warren.agent.network.coordination import Coordination
from warren.agent.network.keyring import Keyring
from warren.agent.network.plane import Plane
from warren.agent.network.saving import Saver
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Coordinator
from warren.proto.control.client import EnrolRequest


@dataclass(frozen=True)
class Enrolment:
    """To become a member first, of the network that is called ``name`` and known by ``coordinators``."""

    name: str
    coordinators: Sequence[Coordinator]
    request: EnrolRequest


@dataclass(frozen=True, eq=False)
class Ground:
    """Made once for each network; its parts share these objects, in one task."""

    network: VerifyKey
    key: SigningKey
    """The node's in this network."""
    shared: Shared
    """With the agent's other networks."""
    state: NetworkState
    coordination: Coordination
    keyring: Keyring
    ledger: Ledger
    saver: Saver
    plane: Plane
    wake: Callable[[], None]
    """Makes the network's next turn come soon."""

    @classmethod
    def of(
        cls,
        network: VerifyKey,
        shared: Shared,
        state: NetworkState,
        enrolment: Enrolment | None,
        wake: Callable[[], None],
    ) -> Ground:
        """From what this host has kept, and what a ticket says of a network that nothing is known of yet."""
        name = enrolment.name if enrolment else state.settings.name or network.short
        coordination = Coordination(network, shared.world, state, name, enrolment.coordinators if enrolment else ())
        ledger = Ledger(coordination.name)
        return cls(
            network,
            shared.keys.node_key(network),
            shared,
            state,
            coordination,
            Keyring(network, shared.keys, lambda: coordination.network_s),
            ledger,
            Saver(state, ledger),
            Plane(coordination.name, shared.world, wake),
            wake,
        )
