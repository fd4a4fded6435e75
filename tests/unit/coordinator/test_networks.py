"""Networks: made, planned and applied, all of it or nothing, and written in the audit log."""

from __future__ import annotations

import msgspec
import pytest

from tests.support.coordinators import URL, Node, World, run
from warren.coordinator.problems import Problem
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator, Rule
from warren.model.policy import DEFAULT_POLICY
from warren.proto.control.administration import MemberChange, NetworkRequest
from warren.proto.control.desired_state import ApplyRequest, DesiredState, MemberState, PolicyTest

DENY = Rule(action="deny", sources=("members",), destinations=("members",))


def test_a_fresh_network_has_a_signed_spec_with_one_visible_rule() -> None:
    async def scenario(w: World) -> None:
        spec = (await w.map()).spec
        assert spec is not None
        assert (spec.name, spec.policy, spec.version) == ("home", DEFAULT_POLICY, w.network.version)
        assert spec.coordinators == (Coordinator(url=URL, key=w.service.identity.verify_key.raw),)
        assert await w.service.network(w.admin, "home") == await w.service.network(w.admin, w.network.id) == w.network
        assert (await w.map()).revision == w.network.revision

    run(scenario)


@pytest.mark.parametrize("block", ["8.8.0.0/16", "10.77.0.1/16", "10.0.0.0/30", "fd00::/64", "10.77.0.0", "x"])
def test_an_ipv4_block_that_cannot_be_is_refused_by_its_key(block: str) -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(Problem) as refused:
            await w.service.create_network(w.admin, NetworkRequest(name="more", prefix4=block))
        assert refused.value.kind == "invalid"
        assert [problem.where for problem in refused.value.problems] == ["prefix4"]
        assert len(await w.service.networks(w.admin)) == 1

    run(scenario)


def test_a_taken_name_is_a_conflict() -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(Problem) as refused:
            await w.service.create_network(w.admin, NetworkRequest(name="home"))
        assert refused.value.kind == "conflict"

    run(scenario)


def test_what_holds_now_is_planned_as_no_change_and_applied_as_none() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web", tags=("front",))
        state = await w.service.desired_state(w.admin, "home")
        plan = await w.service.plan(w.admin, "home", state)
        assert (plan.changes, plan.problems) == ((), ())
        before, events = await w.map(), await w.actions()
        assert await w.service.apply(w.admin, "home", ApplyRequest(state=state, version=plan.version)) == plan
        assert (await w.map()).revision == before.revision
        assert await w.actions() == events

    run(scenario)


def test_an_apply_reaches_the_documents_in_one_step() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "web")
        await w.join(Node(2), "db")
        known = await w.map()
        wanted = DesiredState(
            suffix="example",
            lease_s=7200,
            members={"web": MemberState(tags=("front",), routes=("10.9.0.0/24",))},
            policy=(Rule(action="allow", sources=("tag:front",), destinations=("member:db",)),),
            tests=(PolicyTest(source="web", destination="db", port=80, expect="allow"),),
        )
        plan = await w.service.apply(w.admin, "home", ApplyRequest(state=wanted))
        assert {change.subject for change in plan.changes} >= {"suffix", "lease", "tags of web", "routes of web"}
        await w.map(known)
        assert known.spec is not None
        assert (known.spec.suffix, known.spec.lease_s, known.spec.policy) == ("example", 7200, wanted.policy)
        member = known.members()[node.key]
        assert (member.tags, member.membership.routes) == (("front",), ("10.9.0.0/24",))
        network = await w.service.network(w.admin, "home")
        assert (network.suffix, network.lease_s, network.version) == ("example", 7200, known.spec.version)
        assert (await w.service.desired_state(w.admin, "home")).tests == wanted.tests
        assert (await w.actions())[-1] == "network.apply"

    run(scenario)


def test_a_state_with_errors_applies_nothing_and_names_every_key() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        before = await w.map()
        wanted = DesiredState(
            suffix="example",
            members={"nobody": MemberState(tags=("x",)), "web": MemberState(routes=("0.0.0.0/0",))},
            policy=(Rule(action="allow", sources=("member:ghost",), destinations=("members",)),),
        )
        plan = await w.service.plan(w.admin, "home", wanted)
        with pytest.raises(Problem) as refused:
            await w.service.apply(w.admin, "home", ApplyRequest(state=wanted))
        assert refused.value.kind == "invalid"
        assert refused.value.problems == plan.problems
        assert len(plan.problems) >= 3
        assert (await w.map()).revision == before.revision

    run(scenario)


def test_a_policy_test_that_would_break_stops_the_apply() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        await w.join(Node(2), "db")
        question = PolicyTest(source="web", destination="db", port=22, expect="allow")
        with pytest.raises(Problem) as refused:
            await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(DENY,), tests=(question,))))
        assert refused.value.problems[0].where == "tests[0]"

    run(scenario)


def test_a_plan_of_another_version_is_not_applied() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        wanted = DesiredState(policy=(DENY,))
        plan = await w.service.plan(w.admin, "home", wanted)
        await w.service.change_member(w.admin, "home", "web", _tags("new"))
        with pytest.raises(Problem) as refused:
            await w.service.apply(w.admin, "home", ApplyRequest(state=wanted, version=plan.version))
        assert refused.value.kind == "version-conflict"
        again = await w.service.plan(w.admin, "home", wanted)
        await w.service.apply(w.admin, "home", ApplyRequest(state=wanted, version=again.version))

    run(scenario)


def test_a_shorter_lease_is_renewed_earlier_but_revocations_count_the_longer_one() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "web")
        await w.service.connected(w.key, node.key, "192.0.2.1:1")
        ends = (await w.service.member(w.admin, "home", "web")).lease_ends
        state = msgspec.structs.replace(await w.service.desired_state(w.admin, "home"), lease_s=600)
        await w.service.apply(w.admin, "home", ApplyRequest(state=state))
        w.clock.now += 301
        assert await w.service.renew_due() == 1
        member = await w.service.member(w.admin, "home", "web")
        assert member.lease_ends.timestamp() == w.clock.now + 600
        revoked = await w.service.revoke_member(w.admin, "home", "web")
        assert revoked.lease_ended == ends

    run(scenario)


def test_every_change_is_in_the_audit_log_with_who_and_when() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web")
        await w.service.change_member(w.admin, "home", "web", _tags("x"))
        await w.service.revoke_member(w.admin, "home", "web")
        events = await w.service.events(w.admin, "home")
        assert [(event.actor, event.action) for event in events] == [
            ("token:first", "network.create"),
            ("token:first", "invite.create"),
            ("node:web", "member.join"),
            ("token:first", "member.change"),
            ("token:first", "member.revoke"),
        ]
        assert [event.detail for event in events[1:4:2]] == ["for one machine, within 1h", "tags x, before none"]
        assert {event.network for event in events} == {w.network.id}
        assert all(event.at.timestamp() == w.clock.now for event in events)
        sequences = [event.sequence for event in events]
        assert sequences == sorted(set(sequences))
        later = await w.service.events(w.admin, "home", after=sequences[2], limit=1)
        assert [event.action for event in later] == ["member.change"]
        first = await w.service.events(w.admin, None, after=0, limit=2)
        assert [event.action for event in first] == ["coordinator.create", "token.create"]
        assert await w.service.events(w.admin, "home", limit=2) == events[-2:]

    run(scenario)


def test_a_network_is_its_key() -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(Problem, match="there is no network"):
            await w.service.network(w.admin, "away")
        with pytest.raises(Problem) as refused:
            await w.service.network(w.admin, str(VerifyKey(bytes(32))))
        assert refused.value.kind == "not-found"
        with pytest.raises(Problem) as refused:
            await w.service.updates_since(bytes(32), 0)
        assert refused.value.kind == "unknown-network"

    run(scenario)


def _tags(*tags: str) -> MemberChange:
    return MemberChange(tags=tags)
