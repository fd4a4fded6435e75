"""A member that stays, and another that joins anew for each measurement: new keys, new port, nothing remembered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.paths.contact import Contact, contact
from tests.support.reach_lab import World
from warren.lab import Host, Lab
from warren.lab.network import forget_state
from warren.lab.remote import Call
from warren.lab.site import Site

_PATIENCE_S = 60.0
IDLE_S = 2.0
"""How long nodes that are to be idle are left alone once everything is there."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """A pair of sites, and what is to become of it."""

    newcomer: str
    member: str
    path: str
    """``direct`` or ``relayed``."""
    direct_within_s: float = 30.0


class Pair:
    """Bob, who stays, and Alice, who joins again and again. The first packets are hers."""

    def __init__(self, lab: Lab, kinds: Kinds, *, relays: int = 1) -> None:
        self.kinds = kinds
        self.world = World(lab, relays=relays)
        self.world.start()
        self.home: Site = self.world.site("homea", kinds.newcomer)
        self.alice: Host = self.home.host("alice")
        self.bob: Host = self.world.site("homeb", kinds.member).host("bob")
        self.world.join(self.bob)
        self.bob.wait_for(partial(self._relay_is_ready, self.bob), _PATIENCE_S)

    def join(self) -> None:
        """Alice joins, and both know each other and have their relays; nothing has been sent to Bob."""
        self._up()
        world = self.world
        world.network.wait_up(self.alice)
        self.alice.wait_for(partial(world.network.knows, self.alice, [self.bob]), _PATIENCE_S)
        self.bob.wait_for(self._bob_knows_the_newcomer, _PATIENCE_S)
        self.alice.wait_for(partial(self._relay_is_ready, self.alice), _PATIENCE_S)

    def leave(self) -> None:
        """Alice gives up her membership, ends, and forgets everything."""
        self.world.network.warren(self.alice, "down", self.world.network.name, "--leave", check=False)
        self.world.network.nodes.pop(self.alice.name).process.stop(20.0)
        forget_state(self.alice)

    def joining(self) -> tuple[float, Contact]:
        """From the start of ``warren up TICKET`` on: when it was, and what came."""
        ticket = self.world.network.ticket()
        watching = self._watch()
        began = time.monotonic()
        self.world.network.up(self.alice, ticket, wait=False)
        return began, watching.result(2 * _PATIENCE_S)

    def calling(self) -> tuple[float, Contact]:
        """From Alice's first packet on; she and Bob have been up for a while, and idle."""
        self.join()
        time.sleep(IDLE_S)
        found = self._watch().result(2 * _PATIENCE_S)
        return found.sent_at or 0.0, found

    def _watch(self) -> Call[Contact]:
        settle_s = self.kinds.direct_within_s if self.kinds.path == "direct" else 1.0
        arguments = (self.world.network.name, self.bob.name, self.world.address(self.bob), _PATIENCE_S / 2, settle_s)
        return self.alice.begin(contact, *arguments)

    def _up(self) -> None:
        self.world.network.up(self.alice, self.world.network.ticket(), wait=False)

    def seen_by_bob(self) -> dict[str, Any] | None:
        """What Bob's agent says of Alice, if it knows of her; members who left may linger for a moment."""
        peers = {peer["id"]: peer for peer in self.world.network.status(self.bob)["peers"]}
        return peers.get(self.world.network.status(self.alice)["node_id"])

    def _bob_knows_the_newcomer(self) -> bool:
        """By whichever name she got: those of who left are not given again at once."""
        peer = self.seen_by_bob()
        return peer is not None and peer["state"] != "unknown"

    def _relay_is_ready(self, host: Host) -> bool:
        """All that the network has, as far as a node keeps more than one."""
        relays = self.world.network.status(host)["relays"]
        ready = [relay for relay in relays if relay["state"] == "ready"]
        return len(ready) >= min(2, len(self.world.relays))
