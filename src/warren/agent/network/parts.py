"""What one network of this node is made of: the parts that its turns (:mod:`warren.agent.network.turns`) work with and
its situation (:mod:`warren.agent.network.situation`) is read from.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from warren.agent.candidates import Surroundings
from warren.agent.network.connecting import Connecting
from warren.agent.network.due import Due
from warren.agent.network.ground import Enrolment, Ground
from warren.agent.network.reaching import Reaching
from warren.agent.network.telling import Telling
from warren.agent.network.wanting import Wanting
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.identity.signing import VerifyKey
from warren.proto.control.client import EnrolRequest


class Parts:
    """Made once for each network by its :mod:`~warren.agent.network.runner`, which owns it; used in its one task."""

    def __init__(
        self,
        network: VerifyKey,
        shared: Shared,
        state: NetworkState,
        enrolment: Enrolment | None,
        wake: Callable[[], None],
    ) -> None:
        """Until the first turn says more, the network claims of this host what it did the last time."""
        self.ground = Ground.of(network, shared, state, enrolment, wake)
        self.connecting = Connecting(self.ground, returns=enrolment is None)
        self.reaching = Reaching(self.ground, self.connecting)
        self.telling = Telling(self.ground, self.reaching)
        self.wanting = Wanting(self.ground, self.connecting.peering)
        self.due = Due()
        self.surroundings = Surroundings()
        """What the last look at the host found."""
        self.enrol: EnrolRequest | None = None if enrolment is None else enrolment.request
        """To become a member first; None: it is one already."""
        shared.claim(network, self.ground.coordination.name, [ip_network(text) for text in state.settings.claims])
        if state.settings.interface:
            shared.interfaces[network] = state.settings.interface
