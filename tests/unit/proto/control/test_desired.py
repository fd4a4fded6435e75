"""The plan of a desired state: what it says would change, what it refuses, and what it has written."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.networks import MadeNetwork
from warren.model.documents import NetworkSpec, Rule
from warren.model.netmap import Member
from warren.proto.control.administration import Change, DesiredState, MemberState, PolicyTest
from warren.proto.control.desired import Planned, plan, state_of


class World:
    """A network with three members and a policy, and a state that describes it as it is."""

    def __init__(self) -> None:
        self.home = MadeNetwork()
        self.members: list[Member] = [
            self.home.member("admin", tags=("admin",)),
            self.home.member("db", tags=("data",), routes=("192.168.9.0/24",)),
            self.home.member("web1", tags=("web",)),
        ]
        self.policy = (
            rule("allow", "tag:admin", "members"),
            rule("allow", "tag:web", "tag:data", protocol="tcp", ports=("5432",)),
        )
        self.spec: NetworkSpec = self.home.spec(policy=self.policy).document
        self.tests = (PolicyTest(source="web1", destination="db", port=5432, expect="allow"),)
        self.current = state_of(self.spec, self.members, self.tests)

    def plan(self, **changes: Any) -> Planned:
        values: dict[str, Any] = {"policy": self.policy, "tests": self.tests}
        return plan(self.current, DesiredState(**{**values, **changes}), self.members, self.spec)


def rule(action: str, source: str, destination: str, **values: Any) -> Rule:
    return Rule(action=action, sources=(source,), destinations=(destination,), **values)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


def problems(planned: Planned) -> dict[str, str]:
    return {problem.where: problem.what for problem in planned.plan.problems}


def test_a_state_that_is_so_already_changes_nothing(world: World) -> None:
    for planned in (world.plan(), plan(world.current, world.current, world.members, world.spec)):
        assert planned.plan.changes == ()
        assert planned.plan.problems == ()
        assert planned.plan.version == world.spec.version
        assert not planned.spec_changes
        assert not planned.members
        assert planned.state == world.current


def test_a_plan_says_each_change_in_a_line(world: World) -> None:
    planned = world.plan(
        lease_s=3600,
        members={"db": MemberState(tags=("data",)), "web1": MemberState(tags=("web", "edge"))},
        policy=(world.policy[0], rule("deny", "tag:web", "tag:admin"), world.policy[1]),
        tests=(),
    )
    assert planned.plan.problems == ()
    assert planned.plan.changes == (
        Change(action="change", subject="lease", before="86400 s", after="3600 s"),
        Change(action="remove", subject="routes of db", before="192.168.9.0/24", after=None),
        Change(action="change", subject="tags of web1", before="web", after="edge, web"),
        Change(action="add", subject="policy rule 2", before=None, after="deny from tag:web to tag:admin"),
        Change(action="remove", subject="policy test 1", before="allow tcp 5432 from web1 to db", after=None),
    )
    assert planned.spec_changes
    node = world.home.node
    assert planned.members == {
        node("db").verify_key.raw: MemberState(tags=("data",)),
        node("web1").verify_key.raw: MemberState(tags=("edge", "web")),
    }


def test_what_is_not_there_is_named(world: World) -> None:
    planned = world.plan(
        members={"web2": MemberState()},
        policy=(
            rule("allow", "tag:wbe", "members"),
            rule("allow", "member:dv", "members"),
            rule("allow", "members", "10.1.2.0/24"),
        ),
        tests=(PolicyTest(source="wbe1", destination="db", protocol="icmp", expect="deny"),),
    )
    assert problems(planned) == {
        "members.web2": "there is no member web2; let it join first, or take it out of the file (did you mean web1?)",
        "policy[0].sources": "no member has the tag wbe, so tag:wbe matches nobody (did you mean web?)",
        "policy[1].sources": "there is no member dv, so member:dv matches nobody",
        "policy[2].destinations": (
            "10.1.2.0/24 is neither in the network nor behind a member, so it matches nobody; give it a route first"
        ),
        "tests[0]": "'wbe1' is neither a member nor an address (did you mean web1?)",
    }


def test_a_tag_that_the_same_state_gives_is_known(world: World) -> None:
    policy = (rule("allow", "tag:new", "members"),)
    assert "policy[0].sources" in problems(world.plan(policy=policy, tests=()))
    assert problems(world.plan(policy=policy, tests=(), members={"db": MemberState(tags=("new",))})) == {}
    wanted = DesiredState(policy=policy)
    assert plan(world.current, wanted, world.members, world.spec, known_tags={"new"}).plan.problems == ()


def test_overlapping_routes_are_refused(world: World) -> None:
    planned = world.plan(members={"web1": MemberState(tags=("web",), routes=("192.168.9.128/25", "10.77.5.0/24"))})
    assert [(problem.where, problem.what) for problem in planned.plan.problems] == [
        (
            "members.web1.routes",
            "the route 10.77.5.0/24 of web1 lies within the network's own 10.77.0.0/16; no address may have two places",
        ),
        (
            "members.web1.routes",
            (
                "the route 192.168.9.128/25 of web1 lies within the route 192.168.9.0/24 of db; "
                "no address may have two places"
            ),
        ),
    ]


def test_a_failing_policy_test_is_a_problem(world: World) -> None:
    tests = (
        PolicyTest(source="web1", destination="db", port=22, expect="allow"),
        PolicyTest(source="admin", destination="db", protocol="icmp", expect="deny"),
        PolicyTest(source="admin", destination="db", expect="deny"),
        PolicyTest(source="admin", destination="db", protocol="icmp", port=1, expect="allow"),
    )
    found = problems(world.plan(tests=tests))
    assert found["tests[0]"].startswith("tcp 22 from web1 to db does not pass (no rule matches; fd")
    assert found["tests[1]"].startswith("icmp from admin to db passes (by policy[0]; fd")
    assert found["tests[1]"].endswith("but deny is expected")
    assert found["tests[2]"] == "a test of tcp needs a port"
    assert found["tests[3]"] == "icmp has no ports; leave the port out"
