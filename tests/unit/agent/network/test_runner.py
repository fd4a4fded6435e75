"""One network of a node, over doors in memory: joining and leaving."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.packets import udp_packet
from tests.unit.agent.fakes import (
    pass_time,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress
from warren.proto.control import messages


def test_two_nodes_join_and_reach_each_other(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        joined = pair.a.runner.joined.result()
        assert (joined.network, joined.name, joined.interface) == ("home", "a", "w-home")
        assert await pair.passes(pair.a, pair.b)
        assert await pair.passes(pair.b, pair.a)
        await pair.time(4)
        status = pair.a.runner.situation.status()
        assert status.state == "up"
        assert [(peer.name, peer.state) for peer in status.peers] == [("b", "connected")]
        assert {task.state for task in status.tasks} == {"done"}
        assert pair.a.host.names.served == {"w-home": ["a", "b"]}

    scenario(work, tmp_path)


def test_what_was_made_is_gone_afterwards(tmp_path: Path) -> None:
    async def main() -> None:
        pair = await Pair(tmp_path).start()
        await pair.end()
        host = pair.a.host
        assert [link.name for link in await host.netlink.links()] == ["eth0"]
        assert host.nft.tables() == frozenset()
        assert host.names.served == {}

    asyncio.run(main())


def test_a_refused_enrolment_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        pair.coordinator.refusal = messages.Refused(
            kind="ticket-used", title="used up", detail="the ticket was used", remedy="ask for another"
        )
        node = await pair.node("a", "192.0.2.10")
        await node.turn()
        with pytest.raises(OperationFailed, match="the ticket was used; ask for another"):
            node.runner.joined.result()
        assert node.host.planes == {}
        assert not (tmp_path / "a" / "networks").exists()
        await node.end()

    asyncio.run(main())


@pytest.mark.parametrize("echo", [True, False])
def test_a_node_that_has_just_joined_calls_nobody_before_it_is_known(tmp_path: Path, echo: bool) -> None:
    """Its checks would not be answered, and the next one is a while away."""

    async def work(pair: Pair) -> None:
        fresh = await pair.node("c", "192.0.2.12")
        called: list[TransportAddress] = []
        pair.underlay.carries = lambda source, destination: called.append(destination) is None
        await fresh.turn()
        mine, theirs = fresh.runner.situation.own, pair.a.runner.situation.own
        assert mine is not None
        assert theirs is not None
        if not echo:
            fresh.link.take()
        fresh.plane.inject(udp_packet(str(mine.address6), str(theirs.address6), b"hello"))
        assert called == []
        await pass_time(pair.underlay, 0.2, fresh, step=0.1)
        assert bool(called) == echo
        await pass_time(pair.underlay, 1.0, fresh, step=0.1)
        assert called
        await fresh.end()

    scenario(work, tmp_path)
