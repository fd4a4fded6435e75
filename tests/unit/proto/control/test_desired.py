"""The plan of a desired state: what it says would change, what it refuses, and what it has written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import COLLIDING, MadeNetwork
from warren.model.documents import NetworkSpec, Rule
from warren.model.netmap import Member
from warren.model.services import Service
from warren.proto.control.desired import Planned, plan, rule_text, state_of
from warren.proto.control.desired_state import (
    Change,
    ConnectorState,
    DesiredState,
    MemberState,
    PolicyTest,
    ServiceState,
)


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
        Change(action="change", subject="lease", before="1d", after="1h"),
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


def test_a_member_that_the_file_does_not_name_keeps_what_it_has(world: World) -> None:
    planned = world.plan(members={"web1": MemberState()}, policy=(rule("allow", "tag:data", "members"),), tests=())
    assert problems(planned) == {}
    assert planned.state.members["db"] == MemberState(tags=("data",), routes=("192.168.9.0/24",))
    assert set(planned.members) == {world.home.node("web1").verify_key.raw}


def test_the_order_of_tags_is_no_change(world: World) -> None:
    both = world.plan(members={"web1": MemberState(tags=("web", "edge", "edge"))})
    assert both.state.members["web1"].tags == ("edge", "web")
    world.members[2] = world.home.member("web1", tags=("web", "edge"))
    world.current = state_of(world.spec, world.members, world.tests)
    assert world.plan(members={"web1": MemberState(tags=("edge", "web"))}).plan.changes == ()


def test_a_tag_that_the_state_takes_away_is_no_longer_known(world: World) -> None:
    planned = world.plan(members={"web1": MemberState()}, tests=())
    assert problems(planned) == {"policy[1].sources": "no member has the tag web, so tag:web matches nobody"}


@pytest.mark.parametrize(
    ("route", "what"),
    [
        ("192.168.1.1/24", "192.168.1.1/24 has host bits set"),
        ("x", "'x' does not appear to be an IPv4 or IPv6 network"),
        ("0.0.0.0/0", "0.0.0.0/0 is everything; name the subnets that are behind the member"),
        ("127.0.0.0/8", "127.0.0.0/8 has loopback addresses in it"),
        ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104 is to be written ::ffff:a00:0/104"),
        ("192.168.9.0/24", "192.168.9.0/24 is there twice"),
    ],
)
def test_a_route_that_cannot_be_is_named_by_its_key(world: World, route: str, what: str) -> None:
    planned = world.plan(members={"db": MemberState(tags=("data",), routes=("192.168.9.0/24", route))})
    assert problems(planned)["members.db.routes[1]"] == what


def test_a_route_is_there_for_the_policy_of_the_same_state(world: World) -> None:
    policy = (rule("allow", "members", "10.5.0.0/16"), rule("allow", "10.5.6.0/24", "members"))
    assert set(problems(world.plan(policy=policy, tests=()))) == {"policy[0].destinations", "policy[1].sources"}
    planned = world.plan(policy=policy, tests=(), members={"web1": MemberState(routes=("10.5.0.0/17",))})
    assert problems(planned) == {}


def test_prefixes_of_the_network_are_known(world: World) -> None:
    selectors = (str(world.home.prefix6), "10.77.3.0/24", "0.0.0.0/0", "::/0", str(world.members[0].prefix6))
    policy = (Rule(action="allow", sources=selectors, destinations=("members",)),)
    assert problems(world.plan(policy=policy, tests=())) == {}


def test_a_network_without_ipv4_has_no_ipv4_places() -> None:
    home = MadeNetwork(prefix4=None)
    spec, members = home.spec().document, [home.member("a")]
    wanted = DesiredState(policy=(rule("allow", "members", "10.0.0.0/8"),))
    assert "policy[0].destinations" in problems(plan(state_of(spec, members), wanted, members, spec))


def test_a_policy_test_asks_every_family(world: World) -> None:
    policy = (rule("allow", "members", str(world.home.prefix6)),)
    found = problems(world.plan(policy=policy, tests=world.tests))
    assert found == {
        "tests[0]": (
            "tcp 5432 from web1 to db does not pass (no rule matches; 10.77.0.3 to 10.77.0.2), but allow is expected"
        )
    }
    v6 = str(world.members[1].address6)
    only6 = (PolicyTest(source="web1", destination=v6, port=5432, expect="allow"),)
    assert problems(world.plan(policy=policy, tests=only6)) == {}


def test_a_policy_test_needs_a_family_in_common(world: World) -> None:
    tests = (PolicyTest(source="10.77.0.1", destination="2001:db8::1", port=1, expect="deny"),)
    assert problems(world.plan(tests=tests)) == {
        "tests[0]": "10.77.0.1 and 2001:db8::1 have no address family in common"
    }


def test_suffix_and_lease_that_are_not_given_stay(world: World) -> None:
    planned = world.plan(suffix="example")
    assert [change.subject for change in planned.plan.changes] == ["suffix"]
    assert (planned.state.suffix, planned.state.lease_s) == ("example", 86_400)
    assert planned.spec_changes


def test_members_that_may_relay_are_a_change_and_stay_when_they_are_not_given(world: World) -> None:
    planned = world.plan(relay_members=("tag:web",))
    assert [(change.subject, change.after) for change in planned.plan.changes] == [("relay members", "tag:web")]
    assert planned.spec_changes
    assert planned.state.relay_members == ("tag:web",)
    assert not world.plan().plan.changes


def test_a_selector_of_relaying_members_that_nobody_can_meet_is_a_problem(world: World) -> None:
    assert problems(world.plan(relay_members=("tag:wbe", "nonsense"))).keys() == {
        "relay_members[0]",
        "relay_members[1]",
    }


def test_problems_have_a_ceiling(world: World) -> None:
    members = {f"m{number}": MemberState() for number in range(500)}
    assert len(world.plan(members=members).plan.problems) == 100


def test_a_reordered_policy_is_a_change(world: World) -> None:
    planned = world.plan(policy=world.policy[::-1])
    assert planned.spec_changes
    assert [(change.action, change.subject) for change in planned.plan.changes] == [
        ("add", "policy rule 1"),
        ("remove", "policy rule 2"),
    ]


RULES = st.lists(st.sampled_from([rule("allow", "members", f"tag:{tag}", comment=tag) for tag in "abcde"]), max_size=8)


@given(before=RULES, after=RULES)
def test_the_changes_of_a_list_lead_from_one_to_the_other(before: list[Rule], after: list[Rule]) -> None:
    home = MadeNetwork()
    members = [home.member("all", tags=tuple("abcde"))]
    spec = home.spec(policy=tuple(before)).document
    planned = plan(state_of(spec, members), DesiredState(policy=tuple(after)), members, spec)
    lines = [rule_text(each) for each in before]
    removed = {change.subject: change for change in planned.plan.changes if change.action == "remove"}
    for number in range(len(lines), 0, -1):
        change = removed.get(f"policy rule {number}")
        if change is not None:
            assert lines.pop(number - 1) == change.before
    for change in planned.plan.changes:
        at = int(change.subject.split()[-1]) - 1
        if change.action == "add":
            assert change.after is not None
            lines.insert(at, change.after)
        elif change.action == "change":
            assert (lines[at], change.after is not None) == (change.before, True)
            lines[at] = change.after or ""
    assert lines == [rule_text(each) for each in after]
    assert planned.spec_changes == (before != after)
    assert bool(planned.plan.changes) == (before != after)


STATES = st.builds(
    MemberState,
    tags=st.lists(st.sampled_from(["web", "data", "x"]), max_size=3).map(tuple),
    routes=st.lists(st.sampled_from(["192.168.9.0/24", "10.5.0.0/16", "0.0.0.0/0", "y"]), max_size=2).map(tuple),
)


@given(
    members=st.dictionaries(st.sampled_from(["admin", "db", "web1", "other"]), STATES),
    selectors=st.lists(st.sampled_from(["members", "tag:x", "tag:y", "member:db", "10.5.0.0/16"]), min_size=1),
)
def test_what_was_applied_plans_nothing_more(members: dict[str, MemberState], selectors: list[str]) -> None:
    world = World()
    policy = (Rule(action="allow", sources=tuple(selectors), destinations=("members",)),)
    planned = world.plan(members=members, policy=policy, tests=())
    if planned.plan.problems:
        return
    spec = world.home.spec(policy=planned.state.policy).document
    after = [
        Member(msgspec.structs.replace(member.membership, **msgspec.structs.asdict(state)))
        for member in world.members
        for state in [planned.state.members[member.name]]
    ]
    changed = {
        member.membership.node for old, member in zip(world.members, after, strict=True) if old.tags != member.tags
    }
    assert changed <= set(planned.members)
    again = plan(state_of(spec, after), DesiredState(members=members, policy=policy), after, spec)
    assert (again.plan.changes, again.plan.problems, dict(again.members)) == ((), (), {})


# Services and connectors


def service(**changes: Any) -> ServiceState:
    return ServiceState(**{"at": ("tag:web",), "target": "localhost:80", **changes})


def connector(**changes: Any) -> ConnectorState:
    return ConnectorState(**{"at": ("member:admin",), "service": "web", **changes})


def with_services(world: World, **changes: Any) -> Planned:
    return world.plan(**{"services": {"web": service()}, "connectors": {"shop": connector()}, **changes})


def test_services_and_connectors_are_a_line_each(world: World) -> None:
    planned = with_services(
        world,
        services={
            "web": service(port=8080, idle_s=90, health_s=0, proxy_protocol=True, comment="the shop"),
            "files": service(target="nas.lan:21", helper="ftp", connect_timeout_s=9, health_s=60),
        },
        connectors={
            "shop": connector(kind="http", domains=("a.b", "c.d"), certificate="internal", listen="*:8443"),
            "ssh": connector(service="files", sources=("10.0.0.0/8",), rate=0.5, streams_max=9),
        },
    )
    assert planned.plan.problems == ()
    assert [(change.subject, change.after) for change in planned.plan.changes] == [
        (
            "service files",
            "tcp 21 at tag:web to nas.lan:21; helper ftp; connecting within 9s; health check each 1m",
        ),
        ("service web", "tcp 8080 at tag:web to localhost:80; PROXY protocol; idle 1m30s; no health check (the shop)"),
        ("connector shop", "http a.b, c.d on *:8443 at member:admin to service web; certificate internal"),
        (
            "connector ssh",
            "port at member:admin to service files; from 10.0.0.0/8; 0.5 a second of each source; 9 at once",
        ),
    ]
    assert planned.spec_changes
    assert [one.name for one in planned.spec.services] == ["files", "web"]
    assert planned.spec.services[0] == Service(
        name="files", at=("tag:web",), target="nas.lan:21", helper="ftp", connect_timeout_s=9, health_s=60
    )


def test_what_is_not_given_stays_and_what_is_given_is_all(world: World) -> None:
    planned = with_services(world, services={"web": service(), "old": service()})
    assert planned.plan.problems == ()
    world.spec = msgspec.structs.replace(planned.spec, version=world.spec.version)
    world.current = state_of(world.spec, world.members, world.tests)
    assert world.plan().plan.changes == ()
    assert world.plan().state.services == world.current.services
    assert [
        (change.action, change.subject, change.after)
        for change in with_services(world, services={"web": service(target="h:81")}).plan.changes
    ] == [("remove", "service old", None), ("change", "service web", "tcp 81 at tag:web to h:81")]
    gone = with_services(world, services={}, connectors={})
    assert [change.action for change in gone.plan.changes] == ["remove"] * 3
    assert gone.plan.problems == ()
    assert problems(world.plan(services={})) == {"connectors.shop.service": "there is no service web"}


def test_what_cannot_be_served_or_connected_is_named_by_its_key(world: World) -> None:
    planned = with_services(
        world,
        services={"web": service(), "dns": service(target="h:53", protocol="udp")},
        connectors={
            "a": connector(service="wbe"),
            "b": connector(service="dns", kind="tls", domains=("a.b",)),
            "c": connector(kind="tls", domains=("a.b",)),
            "d": connector(kind="tls", domains=("c.d", "a.b")),
            "e": connector(listen="*:443"),
        },
    )
    assert problems(planned) == {
        "connectors.a.service": "there is no service wbe (did you mean web?)",
        "connectors.b": "kind tls carries streams of TCP, and the service speaks UDP; take kind port",
        "connectors.c.domains": "connector b has a.b at admin already; leave it to one of them",
        "connectors.d.domains": "connector b has a.b at admin already; leave it to one of them",
        "connectors.e.listen": "connector b listens at tcp *:443 of admin already; choose another port or address",
    }


def test_who_has_a_place_keeps_it_against_who_comes_by_an_earlier_name(world: World) -> None:
    planned = with_services(world, connectors={"z": connector()})
    world.spec = msgspec.structs.replace(planned.spec, version=world.spec.version)
    world.current = state_of(world.spec, world.members, world.tests)
    planned = with_services(world, connectors={"a": connector(), "z": connector()})
    assert list(problems(planned)) == ["connectors.a.listen"]


def test_services_whose_hashes_collide_cannot_be_together(world: World) -> None:
    one, other = sorted(COLLIDING)
    planned = with_services(world, services={one: service(), other: service(), "web": service()})
    assert problems(planned) == {
        f"services.{other}": f"it would have the addresses of service {one}; choose another name"
    }


def test_a_policy_and_its_tests_may_speak_of_services(world: World) -> None:
    policy = (rule("allow", "tag:admin", "service:web", protocol="tcp", ports=("80",)),)
    asked = (
        PolicyTest(source="admin", destination="service:web", port=80, expect="allow"),
        PolicyTest(source="admin", destination="service:web", port=65_535, expect="allow"),
        PolicyTest(source="db", destination="service:web", port=80, expect="deny"),
        PolicyTest(source="admin", destination="web1", port=80, expect="deny"),
    )
    assert problems(with_services(world, policy=policy, tests=asked)) == {}
    found = problems(
        with_services(
            world,
            policy=(rule("allow", "members", "service:wbe"), rule("allow", "members", "service:idle")),
            services={"web": service(), "idle": service(at=("member:x",))},
            tests=(
                PolicyTest(source="admin", destination="service:web", port=80, expect="allow"),
                PolicyTest(source="admin", destination="service:wbe", port=80, expect="allow"),
                PolicyTest(source="admin", destination="service:idle", port=80, expect="allow"),
                PolicyTest(source="service:web", destination="admin", port=80, expect="allow"),
            ),
        )
    )
    assert found.pop("tests[0]").startswith("tcp 80 from admin to service:web does not pass (no rule matches; fd")
    assert found == {
        "policy[0].destinations": "there is no service wbe, so service:wbe matches nothing (did you mean web?)",
        "tests[1]": "there is no service wbe (did you mean web?)",
        "tests[2]": "no member serves idle",
        "tests[3]": "'service:web' is neither a member nor an address",
    }


def warnings(planned: Planned) -> dict[str, str]:
    return {warning.where: warning.what for warning in planned.plan.warnings}


def test_what_is_perhaps_not_meant_is_a_warning(world: World) -> None:
    planned = with_services(
        world,
        services={"web": service(at=("tag:web", "member:wbe1", "10.77.9.9/32"))},
        connectors={"shop": connector(at=("tag:wbe", "member:db"), listen="8080")},
    )
    assert planned.plan.problems == ()
    assert warnings(planned) == {
        "services.web.at[1]": "there is no member wbe1, so member:wbe1 matches nobody (did you mean web1?)",
        "services.web.at[2]": "no member has its own address in 10.77.9.9/32",
        "connectors.shop.at[0]": "no member has the tag wbe, so tag:wbe matches nobody (did you mean web?)",
        "connectors.shop": (
            "the policy does not let db reach service web (tcp 80), so all its streams are refused there"
        ),
    }
    high = {"shop": connector(listen="8080")}
    assert warnings(with_services(world, connectors=high)) == {}, "admin may reach everything"


def test_a_member_that_serves_by_itself_asks_no_policy(world: World) -> None:
    planned = with_services(world, policy=(), tests=(), connectors={"own": connector(at=("tag:web",), listen="8080")})
    assert warnings(planned) == {}


def test_what_members_take_only_if_their_operators_say_so_is_a_warning(world: World) -> None:
    found = warnings(with_services(world, services={"web": service(target="169.254.169.254:80")}))
    assert found.keys() == {"services.web.target", "connectors.shop.listen"}
    assert "[services] allow" in found["services.web.target"]
    assert found["connectors.shop.listen"].endswith(
        '[connectors] allow = ["127.0.0.1:80"]; to listen at another port, say 8080, needs no such word'
    )


def test_services_at_more_places_than_networks_have_members_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warren.proto.control.desired_services.SERVICE_ADDRESSES_MAX", 4)
    both = {"web": service(at=("members",)), "db": service(at=("member:db", "member:admin"))}
    assert problems(with_services(world, services=both)) == {
        "services": "members would serve 5 services, counted at each; 4 are the most; have fewer members serve them"
    }
