"""A coordinator and its nodes through crashes, lost messages and partitions, held to a reference model.

`WARREN_SEEDS=1000` plays that many seeds in each form; `WARREN_SEED=7` plays that one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from tests.support.coordination_node import SimNode
from tests.support.coordination_play import Play
from tests.support.coordination_world import Outcome
from warren.coordinator import maps, upkeep
from warren.coordinator.rows import InviteRow, MemberRow
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Rule, Ticket
from warren.model.tickets import read_ticket
from warren.proto.control.administration import Actor, InviteRequest, MemberChange
from warren.proto.control.client import EnrolRequest
from warren.proto.control.desired_state import ApplyRequest, DesiredState

SEEDS = int(os.environ.get("WARREN_SEEDS", "25"))
STEPS = 200
POINTS_MAX = 200


async def play(seed: int) -> Play:
    run = Play(seed)
    try:
        await run.begin()
        for _ in range(STEPS):
            await run.step()
        await run.quiesce()
    except BaseException:
        print(f"WARREN_SEED={seed}, after {len(run.log)} steps, the last of them: {' '.join(run.log[-40:])}")  # noqa: T201
        raise
    finally:
        await run.end()
    return run


@pytest.mark.parametrize("chunk_bytes", [None, 700])
def test_whatever_happens_nothing_promised_is_broken(chunk_bytes: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """``chunk_bytes``: updates in many parts, as those of a large network."""
    monkeypatch.setattr(upkeep, "TOMBSTONES_KEPT_S", 60.0)  # instead of days: who was away longer needs the whole map
    if chunk_bytes is not None:
        monkeypatch.setattr(maps, "UPDATE_BYTES_MAX", chunk_bytes)
        monkeypatch.setattr(maps, "BASE_BYTES_MIN", 2 * chunk_bytes)
    one = os.environ.get("WARREN_SEED")
    runs = [asyncio.run(play(seed)) for seed in ([int(one)] if one else range(SEEDS))]
    if one is None:  # the plays are worth something only if things happen in them
        assert sum(run.world.crashes for run in runs) > 3 * SEEDS
        assert sum(len(run.model.joined) for run in runs) > 2 * SEEDS
        assert sum(len(run.model.revoked) for run in runs) > SEEDS // 2
        assert any(node.refused_as == "ticket-used" for run in runs for node in run.world.nodes)


# Each write, with the process killed at each of its points.


async def populated(count: int = 3) -> tuple[Play, list[SimNode]]:
    """A quiet network with that many members, connected."""
    run = Play(0)
    await run.begin()
    ticket = await invite(run, uses=count)
    nodes = [join(run, ticket, f"node{number}") for number in range(count)]
    await run.world.settle()
    for node in nodes:
        node.publish(run.world.now)
    await run.world.settle()
    assert all(node.published == 1 for node in nodes)
    run.model.check()
    return run, nodes


async def invite(run: Play, uses: int = 1) -> Ticket:
    request = InviteRequest(uses=uses, ttl_s=1000)
    made = (await run.world.ask(run.world.service.create_invite(await run.actor(), "home", request))).value
    assert made is not None
    run.model.invites[made.id] = uses
    return read_ticket(made.ticket, 0.0).document


def join(run: Play, ticket: Ticket, name: str) -> SimNode:
    node = SimNode(name, SigningKey(run.chance.randbytes(32)), run.model.network)
    node.enrol = EnrolRequest(ticket.secret, name)
    run.world.nodes.append(node)
    run.world.connect(node)
    return node


Write = Callable[[Play, Actor, list[SimNode]], Awaitable[Outcome[object]]]


async def create_invite(run: Play, actor: Actor, _: list[SimNode]) -> Outcome[object]:
    return await run.world.ask(run.world.service.create_invite(actor, "home", InviteRequest(uses=2, ttl_s=60)))


async def rename(run: Play, actor: Actor, nodes: list[SimNode]) -> Outcome[object]:
    change = MemberChange(name="renamed", tags=("new",))
    return await run.world.ask(run.world.service.change_member(actor, "home", str(nodes[0].key.verify_key), change))


async def revoke(run: Play, actor: Actor, nodes: list[SimNode]) -> Outcome[object]:
    return await run.world.ask(run.world.service.revoke_member(actor, "home", str(nodes[0].key.verify_key)))


async def apply(run: Play, actor: Actor, _: list[SimNode]) -> Outcome[object]:
    request = ApplyRequest(state=DesiredState(policy=POLICY, lease_s=300))
    return await run.world.ask(run.world.service.apply(actor, "home", request))


POLICY = (Rule(action="deny", sources=("members",), destinations=("members",)),)


def trace(run: Play) -> tuple[object, ...]:
    """What these writes change, as it is on the disk."""
    members = sorted((row.name, row.tags, row.node) for row in run.model.rows(MemberRow))
    versions = {(row.kind, row.subject): row.envelope for row in run.model.disk_documents()}
    return members, len(run.model.rows(InviteRow)), versions


@pytest.mark.parametrize("write", [create_invite, rename, revoke, apply])
def test_a_write_that_is_killed_anywhere_is_done_wholly_or_not_at_all(write: Write) -> None:
    async def run_to(point: int) -> bool:
        """Whether the process was killed at that point of the write."""
        run, nodes = await populated()
        before, actor = trace(run), await run.actor()
        run.world.store.crash_after(point)
        outcome = await write(run, actor, nodes)
        await run.world.turns()
        lost = not run.world.is_up
        after = trace(run)
        if outcome.value is not None:
            assert after != before, "it was acknowledged and not done"
        if lost:
            await run.world.start()
        run.world.store.crash_after(None)
        assert trace(run)[:2] == after[:2], "a start changed it"
        run.model.policy.uncertain(POLICY)
        for node in nodes:
            run.world.connect(node)
        await run.world.settle()
        run.model.check()
        run.model.check_quiet()
        outcomes.add("not at all" if after == before else "wholly")
        await run.end()
        return lost

    outcomes: set[str] = set()
    points = next(point for point in range(1, POINTS_MAX) if not asyncio.run(run_to(point)))
    assert points > 5
    assert outcomes == {"wholly", "not at all"}


def test_an_enrolment_that_is_killed_anywhere_succeeds_when_it_is_repeated() -> None:
    """Its ticket is for one: what the killed process began must neither use it up for nobody nor for two."""

    async def run_to(point: int) -> bool:
        run, _ = await populated(1)
        ticket = await invite(run)
        run.world.store.crash_after(point)
        node = join(run, ticket, "late")
        await run.world.settle()
        crashed = run.world.crashes > 0
        if crashed:
            await run.world.start()
            run.world.connect(node)
            await run.world.settle()
        run.world.store.crash_after(None)
        assert node.is_member
        other = join(run, ticket, "other")
        await run.world.settle()
        assert other.refused_as == "ticket-used"
        run.model.check()
        await run.end()
        return crashed

    points = next(point for point in range(1, POINTS_MAX) if not asyncio.run(run_to(point)))
    assert points > 10


def test_of_a_hundred_who_redeem_one_ticket_at_once_one_joins() -> None:
    async def run() -> None:
        run, _ = await populated(1)
        ticket = await invite(run)
        nodes = [join(run, ticket, "eager") for _ in range(100)]
        await run.world.settle()
        assert [node.is_member for node in nodes].count(True) == 1
        assert {node.refused_as for node in nodes if not node.is_member} == {"ticket-used"}
        run.model.check()
        await run.end()

    asyncio.run(run())


# Revocation


def test_a_revoked_member_is_gone_at_once_where_connected_and_with_its_lease_elsewhere() -> None:
    async def run() -> None:
        run, (gone, near, far) = await populated()
        world = run.world
        far.partitioned = True
        lease_ends = gone.map.members()[gone.id].membership.not_after
        assert (await revoke(run, await run.actor(), [gone])).value is not None
        await world.settle()
        assert gone.refused_as == "revoked"
        assert gone.id not in {member.membership.node for member in near.map.live_members(world.now)}
        assert gone.id in {member.membership.node for member in far.map.live_members(world.now)}
        world.now = lease_ends
        assert gone.id not in {member.membership.node for member in far.map.live_members(world.now)}
        world.connect(gone)
        await world.settle()
        assert gone.refused_as == "revoked"
        ticket = await invite(run)
        gone.is_member, gone.enrol = False, EnrolRequest(ticket.secret, "back")
        world.connect(gone)
        await world.settle()
        assert (gone.is_member, gone.refused_as) == (False, "revoked")
        assert VerifyKey(gone.id) != run.model.network
        await run.end()

    asyncio.run(run())


def test_a_revocation_during_which_the_database_fails_anywhere_is_refused_or_reaches_everybody() -> None:
    """Also when somebody connects before the heartbeat, and so brings the coordinator's own map up to date."""

    async def run_to(point: int) -> bool:
        """Whether the database failed at that point."""
        run, (gone, near, back) = await populated()
        world, actor = run.world, await run.actor()
        world.store.fail_after(point)
        outcome = await revoke(run, actor, [gone])
        await world.turns()
        failed = world.store.has_failed()
        world.connect(back)
        await world.settle()
        await world.ask(world.service.heartbeat())
        await world.settle()
        run.model.check()
        run.model.check_quiet()
        assert (outcome.value is None) == gone.is_member
        assert len(near.map.members()) == (3 if outcome.value is None else 2)
        told_late.append(failed and outcome.value is not None)
        await run.end()
        return failed

    told_late: list[bool] = []
    next(point for point in range(1, POINTS_MAX) if not asyncio.run(run_to(point)))
    assert any(told_late)


def test_members_that_stay_connected_keep_their_leases() -> None:
    async def run() -> None:
        run, nodes = await populated()
        for _ in range(60):
            run.world.now += 15.0
            await run.world.ask(run.world.service.heartbeat())
            await run.world.ask(run.world.service.renew_due())
            await run.world.settle()
            for node in nodes:
                assert len(node.map.live_members(run.world.now)) == len(nodes)
        run.model.check()
        await run.end()

    asyncio.run(run())
