"""What a coordinator does by itself: renewing leases in time and not all at once, and forgetting what is over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.coordinators import Clock, Node, World, replica, run, world
from warren.coordinator.memberships import RENEW_FROM, RENEW_UNTIL
from warren.coordinator.service import Options
from warren.coordinator.upkeep import DAY_S, INVITES_KEPT_S
from warren.proto.control.messages import Report


def test_leases_of_connected_nodes_are_renewed_in_time_and_spread() -> None:
    async def scenario(w: World) -> None:
        nodes = [Node(i + 1) for i in range(100)]
        ticket = await w.ticket(uses=100)
        await asyncio.gather(*(w.service.enrol(w.key, node.key, ticket.secret, "n") for node in nodes))
        for node in nodes[:90]:
            await w.service.connected(w.key, node.key, "192.0.2.1:1")
        begin, lease = w.clock.now, 86_400
        w.clock.now = begin + lease * RENEW_FROM - 1
        assert await w.service.renew_due() == 0
        renewed = []
        for part in range(11):
            w.clock.now = begin + lease * (RENEW_FROM + (RENEW_UNTIL - RENEW_FROM) * part / 10)
            renewed.append(await w.service.renew_due())
        assert sum(renewed) == 90
        assert max(renewed) < 30
        live = (await w.map()).live_members(begin + lease + 1)
        assert {member.key.raw for member in live} == {node.key for node in nodes[:90]}
        assert (await w.actions()).count("lease.renew") == 90

    run(scenario)


def test_a_lease_that_is_due_is_renewed_when_its_node_comes_back() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        before = (await w.service.member(w.admin, "home", "n")).lease_ends
        await w.service.admit(w.key, Node(1).key)
        assert (await w.service.member(w.admin, "home", "n")).lease_ends == before
        w.clock.now += 3 * 86_400  # it has ended long ago; a member is a member until it is taken away
        await w.service.admit(w.key, Node(1).key)
        after = (await w.service.member(w.admin, "home", "n")).lease_ends
        assert after.timestamp() == w.clock.now + 86_400

    run(scenario)


def test_ephemeral_members_vanish_when_they_are_gone_for_the_time_of_grace() -> None:
    async def scenario(w: World) -> None:
        for i, ephemeral in enumerate((True, True, False)):
            await w.join(Node(i + 1), f"n{i}", ephemeral=ephemeral)
        sessions = [await w.service.connected(w.key, Node(i + 1).key, "192.0.2.1:1") for i in range(3)]
        w.clock.now += 1000
        assert await w.service.sweep() == 0
        await w.service.disconnected(sessions[0])
        await w.service.disconnected(sessions[2])
        w.clock.now += 299
        assert await w.service.sweep() == 0
        w.clock.now += 1
        assert await w.service.sweep() == 1
        assert {member.name for member in await w.service.members(w.admin, "home")} == {"n1", "n2"}
        assert set((await w.map()).members()) == {Node(2).key, Node(3).key}
        assert (await w.actions())[-1] == "member.vanish"

    run(scenario)


def test_the_time_a_coordinator_was_away_is_not_held_against_ephemeral_members(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/c.db"
        async with world(url) as w:
            await w.join(Node(1), "n", ephemeral=True)
            await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
            admin = w.admin
        clock = Clock(w.clock.now + 10_000)
        async with replica(url, clock, seed=2) as service:
            clock.now += 299
            assert await service.sweep() == 0
            clock.now += 2
            assert await service.sweep() == 1
            assert await service.members(admin, "home") == ()

    asyncio.run(main())


def test_sessions_of_a_process_that_died_are_over_when_it_starts_again(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/c.db"
        async with world(url) as w:
            await w.join(Node(1), "n")
            await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
            w.service._started = False  # killed: it does not leave in order
        async with replica(url, w.clock, seed=2) as service:
            member = await service.member(w.admin, "home", "n")
            assert (member.connected, member.observed) == (False, "192.0.2.1:1")

    asyncio.run(main())


def test_invites_are_forgotten_a_day_after_their_end() -> None:
    async def scenario(w: World) -> None:
        await w.ticket(ttl_s=10)
        w.clock.now += 10
        assert await w.service.sweep() == 0
        assert len(await w.service.invites(w.admin, "home")) == 1
        w.clock.now += INVITES_KEPT_S
        assert await w.service.sweep() == 1
        assert await w.service.invites(w.admin, "home") == ()

    run(scenario)


def test_where_a_coordinator_answers_is_in_the_spec_and_follows_a_move(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/c.db"
        async with world(url) as w:
            pass
        clock = Clock(w.clock.now + 10)
        async with replica(url, clock, seed=2, at="https://moved.example") as service:
            moved = World(service, clock, w.admin, w.network)

            async def urls() -> list[str]:
                spec = (await moved.map()).spec
                assert spec is not None
                return [one.url for one in spec.coordinators]

            assert await urls() == ["https://coordinator.example:8443", "https://moved.example"]
            ticket = await moved.ticket()
            assert ticket.coordinators[0].url == "https://moved.example"
            clock.now += 31 * DAY_S
            await service.sweep()
            assert await urls() == ["https://moved.example"]

    asyncio.run(main())


def test_reports_that_cannot_be_written_yet_are_kept() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        for version in ("1", "2"):
            await w.service.report(w.key, Node(1).key, Report(uptime_s=0.0, version=version))
        await w.service.heartbeat()
        assert (await w.service.member(w.admin, "home", "n")).version == "2"
        await w.service.report(w.key, Node(2).key, Report(uptime_s=0.0))  # who has no session is not kept
        assert not w.service._sessions.reports

    run(scenario)


def test_a_member_that_is_gone_leaves_neither_session_nor_report() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.service.connected(w.key, Node(1).key, "192.0.2.1:1")
        await w.service.report(w.key, Node(1).key, Report(uptime_s=0.0))
        await w.service.heartbeat()
        await w.service.revoke_member(w.admin, "home", "n")
        status = await w.service.status(w.admin, "home")
        assert (status.connected, status.members) == (0, ())

    run(scenario, options=Options())
