"""What a node believes of its network, and until when: documents, leases, the coordinator's time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.agent.fakes import (
    replace_struct,
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.agent.network.coordination import Coordination
from warren.agent.state import NetworkState
from warren.api.node_events import UpdateReceived
from warren.model.documents import Candidate
from warren.model.envelope import pack_envelope
from warren.model.verified import sign
from warren.proto.control import messages


def test_a_revoked_member_is_no_peer_at_once(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        assert await pair.passes(pair.b, pair.a)
        pair.coordinator.revoke(pair.b.key)
        await pair.a.turn()
        assert (await pair.a.plane.status()).peers == ()
        assert not await pair.passes(pair.b, pair.a)
        await pair.b.turn()
        assert pair.b.runner.situation.status().state == "revoked"
        assert (await pair.b.plane.status()).peers == ()

    scenario(work, tmp_path)


def test_a_member_whose_lease_ends_is_no_peer_and_knows_it_itself(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        now_s = int(pair.coordinator.now_s())
        pair.coordinator.change_member(pair.b.key, not_after=now_s + 20)
        await settle(pair.a, pair.b)
        pair.coordinator.away = True
        assert await pair.passes(pair.a, pair.b)
        await pair.time(25)
        assert (await pair.a.plane.status()).peers == ()
        assert (await pair.b.plane.status()).peers == ()
        assert pair.b.runner.situation.status().state == "expired"
        pair.coordinator.change_member(pair.b.key, not_after=now_s + 86_400)
        await pair.time(3)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


def test_a_turn_is_due_when_a_lease_ends(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        now_s = pair.coordinator.now_s()
        pair.coordinator.change_member(pair.b.key, not_after=int(now_s) + 2)
        assert await pair.a.turn() <= 2.0

    scenario(work, tmp_path)


@pytest.mark.parametrize("offset_s", [-86_400.0, 86_400.0 * 3650, -1.7e9])
def test_leases_are_judged_by_the_coordinators_clock(tmp_path: Path, offset_s: float) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        node = await pair.node("a", "192.0.2.10")
        node.host.wall_offset_s = offset_s
        await settle(node)
        status = node.runner.situation.status()
        assert status.state == "up"
        (warning,) = status.warnings
        assert "this machine's clock is" in warning
        await node.end()

    asyncio.run(main())


def test_documents_that_nobody_signed_change_nothing(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        record = pair.b.link.records[-1]
        forged = sign(
            replace_struct(record, node=pair.coordinator.key.raw, version=99, wireguard_key=bytes([9]) * 32),
            pair.coordinator.authority,
        )
        stolen = replace_struct(forged.envelope, signer=pair.b.key.raw)
        before = await pair.a.plane.status()
        pair.a.link.tell(UpdateReceived(messages.Update(revision=99, put=(stolen,))))
        await pair.a.turn()
        assert (await pair.a.plane.status()).peers == before.peers

    scenario(work, tmp_path)


def test_a_record_that_a_member_sent_itself_counts_like_one_of_the_coordinator(tmp_path: Path) -> None:
    """So a member that moved is found while no coordinator is there; what is not a record is not taken."""

    async def work(pair: Pair) -> None:
        host, network = pair.a.host, pair.coordinator.key
        coordination = Coordination(network, host.world(), NetworkState(host.directory, network), "home", ())
        before, spec = coordination.documents.members()[pair.b.key.raw], coordination.documents.spec
        record = pair.b.link.records[-1]
        moved = replace_struct(
            record, version=record.version + 1, candidates=(Candidate(kind="host", address="198.51.100.9", port=9),)
        )
        newer = sign(replace_struct(spec, version=spec.version + 1, suffix="example"), pair.coordinator.authority)
        for data in (b"nonsense", pack_envelope(newer.envelope)):
            coordination.learned(data)
        assert not coordination.take().documents
        assert coordination.documents.members()[pair.b.key.raw] == before
        assert coordination.documents.spec == spec
        key = pair.b.shared.keys.node_key(network)
        coordination.learned(pack_envelope(sign(moved, key).envelope))
        assert coordination.take().documents
        assert coordination.documents.members()[pair.b.key.raw].record == moved

    scenario(work, tmp_path)
