"""Members as administrators see them, change them and end them."""

from __future__ import annotations

import pytest

from tests.support.coordinators import Node, World, run
from warren.coordinator.problems import Problem
from warren.coordinator.upkeep import DAY_S
from warren.proto.control.administration import MemberChange
from warren.proto.control.messages import Interface, Report, Task


def test_the_inventory_shows_what_a_member_said_and_how_it_is_connected() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "web", tags=("front",), ephemeral=True)
        idle = await w.service.member(w.admin, "home", "web")
        assert (idle.connected, idle.last_seen, idle.observed, idle.reachability) == (False, None, "", "unknown")
        session = await w.service.connected(w.key, node.key, "[2001:db8::1]:4711")
        await w.service.publish(w.key, node.key, node.record(w.key, address="2001:db8::7"))
        report = Report(
            uptime_s=1.0,
            version="9",
            system="Linux",
            stated=("203.0.113.1",),
            interfaces=(Interface(name="eth0", mac="02:00:00:00:00:01"),),
            tasks=(Task(name="dns", state="failed", reason="no resolver"),),
        )
        await w.service.report(w.key, node.key, report)
        for _ in range(2):  # before and after it is written
            seen = await w.service.member(w.admin, "home", node.text)
            assert (seen.connected, seen.observed) == (True, "[2001:db8::1]:4711")
            assert seen.candidates == ("[2001:db8::7]:51820",)
            assert (seen.version, seen.system, seen.stated) == ("9", "Linux", ("203.0.113.1",))
            assert (seen.interfaces, seen.tasks) == (report.interfaces, report.tasks)
            await w.service.heartbeat()
        status = await w.service.status(w.admin, "home")
        assert (status.connected, status.members, status.network.members) == (1, (seen,), 1)
        w.clock.now += 100
        await w.service.disconnected(session)
        gone = await w.service.member(w.admin, "home", "web")
        assert (gone.connected, gone.connected_since, gone.observed) == (False, None, "[2001:db8::1]:4711")
        assert gone.last_seen is not None
        assert gone.last_seen.timestamp() == w.clock.now

    run(scenario)


def test_a_member_is_renamed_and_retagged_by_a_new_membership() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "web")
        known = await w.map()
        changed = await w.service.change_member(
            w.admin, "home", "web", MemberChange(name="front", tags=("b", "a", "a"), routes=("10.9.0.0/24",))
        )
        assert (changed.name, changed.tags, changed.routes) == ("front", ("a", "b"), ("10.9.0.0/24",))
        await w.map(known)
        assert known.members()[node.key].name == "front"
        await w.join(Node(2), "web")  # the old name was given up by an administrator and is free
        assert {member.name for member in await w.service.members(w.admin, "home")} == {"front", "web"}

    run(scenario)


def test_a_change_that_is_none_writes_nothing() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        before = await w.map()
        await w.service.change_member(w.admin, "home", "web", MemberChange(name="web", tags=()))
        assert (await w.map()).revision == before.revision

    run(scenario)


def test_who_is_not_a_member_is_not_found() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        for ref in ("nobody", Node(2).text, "x" * 300):
            with pytest.raises(Problem) as refused:
                await w.service.member(w.admin, "home", ref)
            assert refused.value.kind == "not-found"
            assert len(str(refused.value)) < 300

    run(scenario)


def test_a_revocation_lists_a_key_until_its_last_lease_has_ended() -> None:
    async def scenario(w: World) -> None:
        for i in range(2):
            await w.join(Node(i + 1), f"n{i}")
        revoked = await w.service.revoke_member(w.admin, "home", "n0")
        assert revoked.lease_ended.timestamp() == w.clock.now + 86_400
        assert await w.service.revoke_member(w.admin, "home", Node(1).text) == revoked
        assert (await w.actions()).count("member.revoke") == 1
        known = await w.map()
        assert known.is_revoked(Node(1).key)
        assert list(known.members()) == [Node(2).key]
        w.clock.now += 86_399
        await w.service.sweep()
        await w.service.revoke_member(w.admin, "home", "n1")
        await w.map(known)
        assert known.is_revoked(Node(1).key)
        assert known.is_revoked(Node(2).key)
        w.clock.now += 86_400 + 3600 + DAY_S
        await w.service.sweep()
        await w.map(known)
        assert known.revocation is not None
        assert known.revocation.nodes == ()
        names = [one.name for one in await w.service.revocations(w.admin, "home")]
        assert names == ["n1", "n0"]  # who was is still known, and still refused

    run(scenario)
