"""What would be wrong after a change of one thing is said before it is made, in words of people."""

from __future__ import annotations

import pytest

from tests.support.coordinators import Node, World, run
from tests.unit.coordinator.asked import ALL, connector, service, spec
from warren.coordinator.problems import Problem
from warren.coordinator.state_problems import first_problem, new_problems
from warren.model.documents import Rule
from warren.proto.control.administration import MemberChange
from warren.proto.control.desired_state import ApplyRequest, DesiredState, PolicyTest
from warren.proto.control.desired_state import Problem as KeyProblem


def test_a_service_that_the_policy_speaks_of_stays() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.service.add_service(w.admin, "home", service())
        rule = Rule(action="allow", sources=("members",), destinations=("service:web",), protocol="tcp", ports=("80",))
        test = PolicyTest(source="n", destination="service:web", port=80, expect="allow")
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(rule,), tests=(test,))))
        with pytest.raises(Problem, match="policy rule 1: there is no service web") as refused:
            await w.service.remove_service(w.admin, "home", "web")
        assert refused.value.kind == "conflict"
        assert [one.where for one in refused.value.problems] == ["policy[0].destinations", "tests[0]"]
        assert len((await spec(w)).services) == 1
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(ALL,))))
        await w.service.remove_service(w.admin, "home", "web")

    run(scenario)


def test_a_member_does_not_come_to_have_two_connectors_in_one_place_by_another_tag() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n", tags=("a",))
        await w.service.add_service(w.admin, "home", service())
        await w.service.add_connector(w.admin, "home", connector("one", at="tag:a"))
        await w.service.add_connector(w.admin, "home", connector("two", at="tag:b"))
        with pytest.raises(Problem, match=r"connector one listens at tcp 127\.0\.0\.1:80 of n already") as refused:
            await w.service.change_member(w.admin, "home", "n", MemberChange(tags=("a", "b")))
        assert refused.value.remedy == "Change the connectors first; nothing was changed."
        await w.service.change_member(w.admin, "home", "n", MemberChange(tags=("b",)))

    run(scenario)


def test_what_was_wrong_before_hinders_nothing() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        rule = Rule(action="allow", sources=("member:n",), destinations=("members",))
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(rule,))))
        await w.service.revoke_member(w.admin, "home", "n")
        await w.service.add_service(w.admin, "home", service(at="members"))
        await w.service.remove_service(w.admin, "home", "web")

    run(scenario)


def test_a_change_that_cannot_be_is_refused_whole() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "web", tags=("front",))
        await w.join(Node(2), "db")
        policy = (Rule(action="allow", sources=("tag:front",), destinations=("member:db",)),)
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=policy)))
        await w.service.change_member(w.admin, "home", "db", MemberChange(routes=("10.9.0.0/16",)))
        before = await w.map()
        for change, kind in (
            (MemberChange(name="db"), "name-taken"),
            (MemberChange(routes=("10.9.1.0/24",)), "invalid"),
            (MemberChange(routes=("::/0",)), "invalid"),
            (MemberChange(routes=("10.8.0.1/24",)), "invalid"),
            (MemberChange(tags=()), "conflict"),
        ):
            with pytest.raises(Problem) as refused:
                await w.service.change_member(w.admin, "home", "web", change)
            assert refused.value.kind == kind
        with pytest.raises(Problem) as refused:
            await w.service.change_member(w.admin, "home", "db", MemberChange(name="data"))
        assert refused.value.kind == "conflict"
        assert str(refused.value) == (
            "policy rule 1: there is no member db, so member:db matches nobody; change the policy or its tests first; "
            "nothing was changed"
        )
        assert (await w.map()).revision == before.revision

    run(scenario)


def test_problems_are_placed_as_a_person_sees_them_and_the_first_is_said() -> None:
    problems = [
        KeyProblem(where=where, what="it is wrong")
        for where in (
            "policy[0].sources",
            "tests[11]",
            "services.web.at[0]",
            "connectors.shop.listen",
            "members.n.routes",
        )
    ]
    assert first_problem(problems) == "policy rule 1: it is wrong (and 4 more)"
    assert [first_problem([problem]).partition(":")[0] for problem in problems] == [
        "policy rule 1",
        "policy test 12",
        "service web",
        "connector shop",
        "members.n.routes",
    ]


def test_only_what_was_not_wrong_before_is_new() -> None:
    known, fresh = (KeyProblem(where="tests[0]", what=what) for what in ("this", "that"))
    assert new_problems([known, fresh], [known]) == (fresh,)
