"""Two nodes somewhere behind something look for each other: what they find is what the oracle says.

`WARREN_SEEDS=1000` plays four times as many pairs; `WARREN_SEED=7` plays that one. `python -m tests.sim.paths_table
3000` writes how long a direct path takes.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import lru_cache

import pytest

from tests.support.nat_cases import Played, play
from tests.support.nat_nodes import PathNode, RelayServer
from tests.support.nat_world import Link, World
from warren.model.tunnel import IPAddress
from warren.paths.nat import (
    ADDRESS_RESTRICTED,
    FIREWALLED,
    FULL_CONE,
    OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
    Situation,
    verdict,
)

SEEDS = int(os.environ.get("WARREN_SEEDS", "25")) * 4
played_once = lru_cache(play)


def test_every_pair_finds_what_the_oracle_says() -> None:
    one = os.environ.get("WARREN_SEED")
    played = [played_once(seed) for seed in ([int(one)] if one else range(SEEDS))]
    assert [str(pair) for pair in played if pair.wrong] == []
    if one is None:
        assert {pair.verdict.by for pair in played} >= {"open", "lan", "punched", "predicted", "birthday", "relay"}
        assert _median(played, "open", "punched") < 1.0
        assert _median(played, "predicted") < 4.0
        assert _median(played, "birthday") < 15.0


def test_every_pair_can_send_within_a_second_whatever_it_finds_later() -> None:
    played = [played_once(seed) for seed in range(0, SEEDS, 5)]
    slow = [pair for pair in played if pair.verdict.by != "none" and (pair.first_s is None or pair.first_s > 1.0)]
    assert len(slow) <= len(played) // 20, [str(pair) for pair in slow]  # those that lost the first packets


def _median(played: list[Played], *means: str) -> float:
    times = sorted(pair.direct_s for pair in played if pair.verdict.by in means and pair.direct_s is not None)
    return times[len(times) // 2]


KINDS = {
    "open": OPEN,
    "firewalled": FIREWALLED,
    "full-cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
    "symmetric-sequential": SYMMETRIC_SEQUENTIAL,
}


@pytest.mark.parametrize("one", KINDS)
def test_the_matrix_of_the_usual_kinds_is_as_the_oracle_says(one: str) -> None:
    found = Counter()
    for other, behind_other in KINDS.items():
        world = World(5)
        relay = RelayServer(world, "relay")
        a, b = (_node(world, name, kind, relay, last) for name, kind, last in (("a", one, 5), ("b", other, 6)))
        a.meet(b)
        world.run(world.now + 1.0)
        expected = verdict(Situation(v4=KINDS[one]), Situation(v4=behind_other))
        a.talk(b)
        counts = a.count[b.key], b.count[a.key]
        direct = world.run(
            world.now + (200 if expected.direct else 30), lambda counts=counts: all(one.direct_at for one in counts)
        )
        found[expected.by] += 1
        assert direct == expected.direct, other
        if not direct:
            path = a.selected[b.key]
            assert path is not None
            assert path.relayed
    assert sum(found.values()) == len(KINDS)


def _node(world: World, name: str, kind: str, relay: RelayServer, last: int) -> PathNode:
    behaviour = KINDS[kind]
    site = world.site(v4=behaviour, link=Link(latency_s=0.02))
    address: IPAddress = world.private4(last) if behaviour.translated else world.address4()
    return PathNode(world, name, [(site, address)], situation=Situation(v4=behaviour), relays=(relay,))
