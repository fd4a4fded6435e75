"""The WireGuard keys of a node: rotated, replaced, found by who did not hear of them."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.fakes import (
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.agent.config import AgentConfig
from warren.api.node_events import Disconnected, Refused
from warren.proto.control import messages


def test_a_key_is_rotated_without_losing_a_packet(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        first = (await pair.b.plane.status()).peers[0].public_key
        handshakes = 0
        for _ in range(650):
            await pair.time(1)
            assert await pair.passes(pair.a, pair.b)
            assert await pair.passes(pair.b, pair.a)
            handshakes = max(handshakes, len((await pair.b.plane.status()).peers))
        assert handshakes == 1
        (peer,) = (await pair.b.plane.status()).peers
        assert peer.public_key != first
        record = pair.a.link.records[-1]
        assert peer.public_key.raw == record.wireguard_key
        announced = [record.next_wireguard_key for record in pair.a.link.records]
        assert peer.public_key.raw in announced

    scenario(work, tmp_path, config)


def test_a_key_is_not_taken_while_no_coordinator_knows_of_it(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        before = (await pair.a.plane.status()).private_key
        pair.coordinator.away = True
        await pair.time(900, step=5.0)
        assert (await pair.a.plane.status()).private_key == before

    scenario(work, tmp_path, config)


def test_a_partitioned_peer_finds_the_announced_key_by_trying(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        await pair.time(500, step=5.0)
        assert pair.a.link.records[-1].next_wireguard_key is not None
        # b hears nothing of the coordinator from here on, while a takes its next key.
        pair.coordinator.links.remove(pair.b.link)
        pair.b.link.tell(Disconnected("gone", 1.0))
        await pair.time(200, step=5.0)
        assert pair.a.link.records[-1].next_wireguard_key is None
        arrived = []
        for _ in range(300):
            await pair.time(1)
            arrived.append(await pair.passes(pair.b, pair.a))
        assert all(arrived[-60:])

    scenario(work, tmp_path, config)


def test_a_node_whose_wireguard_key_is_another_members_takes_a_fresh_one(tmp_path: Path) -> None:
    """As on a machine that was made from a copy of another's disk."""

    async def work(pair: Pair) -> None:
        before = pair.a.link.records[-1]
        refusal = messages.Refused(kind="key-taken", title="The WireGuard key is another member's", retry_after_s=1.0)
        pair.a.link.tell(Refused(refusal, final=False))
        await settle(pair.a, pair.b)
        after = pair.a.link.records[-1]
        assert after.version > before.version
        assert after.wireguard_key not in {before.wireguard_key, before.next_wireguard_key}
        assert after.next_wireguard_key is None
        await pair.time(3)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)
