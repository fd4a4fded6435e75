"""What a node serves, and how it reaches services of others."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from msgspec import structs

from tests.unit.agent.streams.fakes import entry, member, problem, view, worked_out
from warren.agent.streams.order import Class, Nearness, Orders
from warren.agent.streams.permits import Allowed, PermitTable, Serving, serving_of
from warren.agent.streams.services import STREAMS_MAX, service_backends
from warren.l4.closed_places import objection
from warren.l4.config import Health
from warren.l4.permitted import admits
from warren.model.documents import Rule
from warren.model.policy import DEFAULT_POLICY
from warren.model.services import CONNECTOR_PORT, Connector, Service

WEB = Service(name="web", at=("members",), target="localhost:8080", port=80)
DENY = Rule(action="deny", sources=("member:me",), destinations=("service:web",))


def names(*args: object, **changes: object) -> tuple[str, ...]:
    """Who serves ``web``, in order."""
    made = view(WEB, **changes)  # type: ignore[arg-type]
    return service_backends(made, WEB, Orders({}), **dict(args)).names  # type: ignore[arg-type]


def test_a_node_listens_at_the_services_own_address_and_goes_on_to_the_target() -> None:
    made = view(Service(name="web", at=("tag:gate",), target="localhost:8080", port=80, idle_s=30))
    found = entry(worked_out(made), "home: service web")
    address = made.directory.own.service_address("web")
    assert [(one.side, one.address, one.port, one.freebind) for one in found.listen] == [
        ("overlay", str(address), 80, True)
    ]
    (backend,) = found.way.backends
    assert (backend.side, backend.host, backend.port) == ("host", "localhost", 8080)
    assert (found.way.idle_s, found.way.connect_timeout_s) == (30.0, 5.0)
    assert found.health is not None
    assert found.health.every_s == 10.0


def test_what_is_not_this_nodes_to_serve_is_not_served() -> None:
    assert worked_out(view(Service(name="web", at=("member:bob",), target="localhost:80"))).items == ()


def test_the_operator_has_the_last_word_on_what_is_served() -> None:
    made = view(Service(name="ssh", at=("members",), target="127.0.0.1:22"))
    allow = (Allowed("127.0.0.1:80", None, "x"),)
    found = worked_out(made, serving=Serving(allow=allow))
    assert found.config.entries == ()
    assert "does not allow 127.0.0.1:22" in problem(found, "home: service ssh")
    assert worked_out(made, serving=Serving(enabled=False)).config.entries == ()


@pytest.mark.parametrize(("helper", "protocol"), [("ftp", "tcp"), ("tftp", "udp"), ("none", "udp")])
def test_the_kind_of_a_service_is_that_of_its_entry(helper: str, protocol: str) -> None:
    service = Service(name="files", at=("members",), target="localhost:21", helper=helper, protocol=protocol)  # type: ignore[arg-type]
    found = entry(worked_out(view(service)), "home: service files")
    assert found.kind == ("plain" if helper == "none" else helper)
    assert found.listen[0].protocol == protocol
    assert found.limits.streams_max == (4096 if protocol == "udp" else STREAMS_MAX)
    assert found.health == Health(every_s=10.0)
    unwatched = entry(worked_out(view(structs.replace(service, health_s=0))), "home: service files")
    assert unwatched.health is None


def test_only_nodes_with_a_connector_may_say_who_a_client_is() -> None:
    service = Service(name="web", at=("members",), target="localhost:80", proxy_protocol=True)
    at_bob = Connector(name="a", at=("member:bob",), service="web")
    other = Connector(name="b", at=("member:carol",), service="other")
    made = view(service, connectors=[at_bob, other])
    found = entry(worked_out(made), "home: service web")
    assert [one.port for one in found.listen] == [80, CONNECTOR_PORT]
    assert found.proxy_in_from == (f"{member('bob', 2).address6}/128",)
    assert found.way.backends[0].proxy_out
    at_both = Connector(name="a", at=("member:bob", "member:me"), service="web")
    found = entry(worked_out(view(service, connectors=[at_both])), "home: service web")
    me = made.directory.own
    assert found.proxy_in_from[-1] == f"{me.service_address('web')}/128"
    assert entry(worked_out(view(WEB)), "home: service web").proxy_in_from == ()


def test_the_nearest_member_that_serves_is_first() -> None:
    assert names() == ("me", "bob", "carol")
    far = {"me": Nearness(Class.SELF), "bob": Nearness(Class.UNREACHABLE), "carol": Nearness(Class.RELAYED, 90)}
    assert names(near=far) == ("me", "carol", "bob")
    assert names(("others_only", True), near=far) == ("carol", "bob")


def test_backends_are_the_services_addresses_of_members() -> None:
    found = service_backends(view(WEB), WEB, Orders({}), others_only=True)
    bob, carol = member("bob", 2), member("carol", 3)
    assert [(one.side, one.host, one.port) for one in found.usable] == [
        ("overlay", str(bob.service_address("web")), 80),
        ("overlay", str(carol.service_address("web")), 80),
    ]


def test_what_the_policy_forbids_is_refused_with_the_rule_that_does() -> None:
    found = service_backends(view(WEB, policy=(DENY, *DEFAULT_POLICY)), WEB, Orders({}), others_only=True)
    assert found.usable == ()
    assert "the policy of home does not let this node use service web of bob at tcp/80: rule 1 denies it" in (
        found.refusal
    )
    nothing = service_backends(view(WEB, policy=()), WEB, Orders({}), others_only=True)
    assert nothing.refusal.endswith("no rule allows it")


def test_members_that_the_policy_forbids_are_passed_over() -> None:
    rule = Rule(action="deny", sources=("members",), destinations=("member:bob",))
    found = service_backends(view(WEB, policy=(rule, *DEFAULT_POLICY)), WEB, Orders({}), others_only=True)
    assert (found.names, found.refusal) == (("carol",), "")


def test_a_service_that_nobody_serves_and_one_that_only_a_gateway_does() -> None:
    alone = Service(name="web", at=("member:me",), target="localhost:80")
    found = service_backends(view(alone), alone, Orders({}), others_only=True)
    assert "only this node serves web" in found.nobody
    gone = Service(name="web", at=("member:gone",), target="localhost:80")
    assert service_backends(view(gone), gone, Orders({})).nobody == (
        "nobody in home serves web now; `warren service list home` has who should"
    )


def test_while_the_nodes_own_lease_has_ended_it_reaches_nobody_and_its_entries_stay() -> None:
    expired = view(WEB, state="expired")
    assert "lease of this node has ended" in service_backends(expired, WEB, Orders({})).refusal
    stays = entry(worked_out(expired), "home: service web")
    before = entry(worked_out(view(WEB)), "home: service web")
    way = structs.replace(before.way, closed=stays.way.closed)  # no member's subnets
    assert stays == structs.replace(before, clients=None, way=way)  # and its streams, which may go on later


def test_subnets_behind_a_node_without_root_are_taken_transparently() -> None:
    found = worked_out(view(transparent_port=20_001))
    by_tcp, by_udp = found.config.entries
    assert {one.kind for one in found.config.entries} == {"transparent"}
    assert {one.allowed for one in found.config.entries} == {("198.51.100.0/24",)}
    assert [one.protocol for one in (*by_tcp.listen, *by_udp.listen)] == ["tcp", "udp"]
    assert all(one.side == "overlay" and one.port == 20_001 for one in by_tcp.listen)
    assert worked_out(view()).config.entries == ()


@pytest.mark.parametrize("allow", [None, "168.63.129.16:80"])
def test_an_authority_gets_from_no_cloud_what_is_for_this_machine_by_calling_that_a_subnet(allow: str | None) -> None:
    serving = Serving() if allow is None else serving_of(PermitTable(allow=(allow,)))
    for one in worked_out(view(transparent_port=20_001), serving=serving).config.entries:
        for ip in map(ip_address, ("168.63.129.16", "fd00:ec2::254")):
            opened = allow is not None and allow.startswith(f"{ip}:")
            assert bool(objection(ip, 80, one.way)) is not opened
        assert not objection(ip_address("198.51.100.7"), 80, one.way)


def test_whom_the_policy_lets_use_a_service_is_known_to_its_entry() -> None:
    deny = Rule(action="deny", sources=("member:bob",), destinations=("service:web",))
    made = view(WEB, policy=(deny, *DEFAULT_POLICY))
    clients = entry(worked_out(made), "home: service web").clients
    assert clients is not None
    own = made.directory.own
    bob = next(one for one in made.directory.members if one.name == "bob")
    assert admits(clients, own.address6)
    assert not admits(clients, bob.address6)
    others = [one for one in made.directory.members if one not in {own, bob}]
    assert all(admits(clients, one.address6) for one in others)
    other_port = Rule(
        action="deny", sources=("member:bob",), destinations=("service:web",), protocol="tcp", ports=("81",)
    )
    clients = entry(worked_out(view(WEB, policy=(other_port, *DEFAULT_POLICY))), "home: service web").clients
    assert clients is not None
    assert admits(clients, bob.address6)
