"""Connectors at a node: what it takes, from whom, and what it refuses to be."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from tests.unit.agent.streams.doors_made import GATEWAY, PORTS, WEB, connector, made, site
from tests.unit.agent.streams.fakes import RUN, entry, member, problem, view, worked_out
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.entries import Wishes
from warren.agent.streams.permits import Taking
from warren.model.documents import Rule
from warren.model.services import Connector, Service


def test_a_connector_for_this_host_alone_leads_to_the_nearest_member() -> None:
    found = entry(made(connector("a", listen="8080"), gateway=None), "home: connector a")
    assert [(one.side, one.address, one.port) for one in found.listen] == [("host", "127.0.0.1", 8080)]
    assert [one.name for one in found.way.backends] == ["me", "bob", "carol"]


def test_a_connector_of_another_node_is_none_of_ours() -> None:
    assert "home: connector a" not in {
        one.id for one in made(Connector(name="a", at=("member:bob",), service="web")).items
    }


@pytest.mark.parametrize("listen", ["*:8080", "203.0.113.7:8080", "[2001:db8::7]:8080"])
def test_nothing_is_taken_from_outside_unless_the_operator_lets_it(listen: str) -> None:
    found = made(connector("a", listen=listen), gateway=None)
    assert "[gateway] enabled = true" in problem(found, "home: connector a")
    assert all(one.id != "home: connector a" for one in found.config.entries)
    assert entry(made(connector("a", listen=listen)), "home: connector a").listen[0].port == 8080


@pytest.mark.parametrize(
    ("listen", "place"), [("", "127.0.0.1:80"), ("1023", "127.0.0.1:1023"), ("[::1]:53", "[::1]:53")]
)
def test_ports_that_programs_take_for_roots_are_the_operators_to_give(listen: str, place: str) -> None:
    found = made(connector("a", listen=listen), gateway=None)
    said = problem(found, "home: connector a")
    assert f'[connectors] allow = ["{place}", "127.0.0.1:1024-65535"]; or have the connector listen at' in said
    assert all(one.id != "home: connector a" for one in found.config.entries)
    assert problem(made(connector("a", listen=listen)), "home: connector a") == ""  # a gateway


@pytest.mark.parametrize("gateway", [GATEWAY, None])
def test_a_unix_socket_is_listened_on_only_if_the_operator_names_it(gateway: Gateway | None) -> None:
    one = connector("a", listen="unix:/run/docker.sock")
    said = problem(made(one, gateway=gateway), "home: connector a")
    assert '[connectors] allow = ["unix:/run/docker.sock", "' in said
    assert problem(made(one, gateway=gateway, allow=("unix:/run/*",)), "home: connector a") == ""


@pytest.mark.parametrize("listen", ["80", "unix:/run/s"])
@pytest.mark.parametrize("gateway", [GATEWAY, None])
def test_what_the_operator_is_told_to_write_takes_nothing_away(listen: str, gateway: Gateway | None) -> None:
    wanted = [connector("a", listen=listen), connector("b", listen="8080")]
    before = [problem(made(one, gateway=gateway), f"home: connector {one.name}") for one in wanted]
    assert before[1] == ""
    for said in filter(None, before):
        allow = tuple(json.loads(said[said.index("[", said.index("allow =")) : said.rindex("]") + 1]))
        assert all(
            problem(made(one, gateway=gateway, allow=allow), f"home: connector {one.name}") == "" for one in wanted
        )


@pytest.mark.parametrize(
    ("listen", "allow", "problematic"),
    [
        ("8080", "127.0.0.1:8000-8999", False),
        ("9080", "127.0.0.1:8000-8999", True),
        ("80", "127.0.0.1:80", False),
        ("[::1]:8080", "127.0.0.0/8:*", True),
        ("[::1]:8080", "[::1]:*", False),
        ("8080", "*:8080", False),
        ("*:8080", "*:8080", False),
        ("*:8081", "*:8080", True),
        ("*:8080", "0.0.0.0/0:*", True),
        ("203.0.113.7:8080", "203.0.113.0/24:*", False),
        ("8080", "unix:/run/*", True),
    ],
)
def test_the_operator_says_where_connectors_listen(listen: str, allow: str, problematic: bool) -> None:
    found = made(connector("a", listen=listen), allow=(allow,))
    said = problem(found, "home: connector a")
    assert ("[connectors] allow, can add it" in said) is problematic
    assert problematic or said == ""


def test_what_is_public_needs_a_gateway_whatever_is_allowed() -> None:
    said = problem(made(connector("a", listen="*:8080"), gateway=None, allow=("*:*",)), "home: connector a")
    assert "[gateway] enabled = true" in said


def test_a_web_site_listens_where_browsers_ask_first_too() -> None:
    assert "listen at *:80;" in problem(made(site("shop"), allow=("*:443",)), "home: connector shop")
    assert problem(made(site("shop"), allow=("*:443", "*:80")), "home: connector shop") == ""
    plain = site("plain", certificate="none")
    assert problem(made(plain, allow=("*:80",)), "home: connector plain") == ""
    passed = connector("raw", kind="tls", domains=("raw.example.org",))
    assert problem(made(passed, allow=("*:443",)), "home: connector raw") == ""


def test_connectors_can_be_switched_off() -> None:
    found = worked_out(view(WEB, connectors=[connector("a", listen="8080")]), taking=Taking(enabled=False))
    assert "has switched connectors off" in problem(found, "home: connector a")


@pytest.mark.parametrize("kind", ["port", "tls", "http"])
def test_a_gateway_publishes_nothing_of_its_own_host(kind: str) -> None:
    domains = () if kind == "port" else ("x.example.org",)
    alone = Service(name="web", at=("member:me",), target="127.0.0.1:22", port=22)
    certificate = {"certificate": "internal"} if kind == "http" else {}
    one = Connector(
        name="a", at=("member:me",), service="web", kind=kind, listen="*:8022", domains=domains, **certificate
    )  # type: ignore[arg-type]
    where = Surroundings(RUN, GATEWAY, ports=PORTS)
    found = worked_out(view(alone, connectors=[one]), wishes=Wishes(StreamConfig(gateway=GATEWAY)), around=where)
    assert "only this node serves web" in problem(found, "home: connector a")
    assert not any(
        backend.host in {"127.0.0.1", str(member("me", 1).service_address("web"))}
        for each in found.config.entries
        if each.kind in {"plain", "sni"} and "service" not in each.id
        for way in (each.way, *(name.way for name in each.names if not name.ended))
        for backend in way.backends
    )
    found = made(connector("a", listen="*:8022"))
    assert [one.name for one in entry(found, "home: connector a").way.backends] == ["bob", "carol"]


def test_limits_and_the_proxy_protocol_go_along() -> None:
    one = connector("a", listen="*:1", sources=("192.0.2.0/24",), rate=2.5, streams_max=7, accepts_proxy_protocol=True)
    found = entry(made(one), "home: connector a")
    assert (found.limits.sources, found.limits.rate, found.limits.streams_max) == (("192.0.2.0/24",), 2.5, 7)
    assert found.proxy_in


def test_a_connector_whose_service_speaks_otherwise_or_is_not_there() -> None:
    names = Service(name="web", at=("member:bob",), target="localhost:53", protocol="udp")
    found = worked_out(
        view(names, connectors=[connector("a", kind="tls", domains=("x.example.org",))]), gateway=GATEWAY
    )
    assert "the service speaks UDP" in problem(found, "home: connector a")
    found = worked_out(view(connectors=[connector("a")]))
    assert problem(found, "home: connector a") == "there is no service web in this network"


def test_what_the_policy_forbids_has_a_listener_that_refuses_and_a_task_that_says_so() -> None:
    rule = Rule(action="deny", sources=("member:me",), destinations=("service:web",))
    found = worked_out(view(WEB, connectors=[connector("a", listen="*:1")], policy=(rule,)), gateway=GATEWAY)
    way = entry(found, "home: connector a").way
    assert way.backends == ()
    assert way.refusal == problem(found, "home: connector a")
    assert "policy" in way.refusal


# Web sites


def test_a_site_gets_a_socket_to_come_back_by_and_names_at_the_gateways_place() -> None:
    found = made(site("shop"))
    back, names, plain = (entry(found, one) for one in ("home: connector shop", "gateway *:443", "gateway *:80"))
    (taken,) = found.sites
    assert back.listen[0].path == str(taken.upstream)
    assert [one.name for one in back.way.backends] == ["bob", "carol"]
    assert [(one.domain, one.ended, one.way.backends[0].port) for one in names.names] == [
        ("shop.example.org", True, PORTS.https)
    ]
    assert (plain.kind, plain.way.backends[0].port) == ("ended", PORTS.http)
    assert found.config.peer_lookup == str(RUN / "sites" / "peers.sock")


def test_a_site_without_a_domain_has_its_name_in_the_gateways() -> None:
    assert made(site("shop", domains=())).sites[0].domains == ("shop.gw.example.org",)
    found = made(site("shop", domains=()), gateway=Gateway())
    assert "agent.toml, [gateway] domain" in problem(found, "home: connector shop")
    assert found.sites == ()


def test_a_site_whose_domain_leads_elsewhere_is_left_out_until_it_does_not() -> None:
    shop = site("shop", certificate="acme", domains=("a.example.org", "b.example.org"))
    waiting = made(shop)
    assert waiting.domains == {"a.example.org", "b.example.org"}
    assert waiting.sites == ()
    assert [one.pending for one in waiting.items if one.id == "home: connector shop"] == [True]
    found = made(shop, domains={"a.example.org": "", "b.example.org": "b leads elsewhere"})
    assert found.sites[0].domains == ("a.example.org",)
    assert problem(found, "home: connector shop") == "b leads elsewhere"
    none = made(shop, domains={"a.example.org": "a leads elsewhere", "b.example.org": "b leads elsewhere"})
    assert (none.sites, problem(none, "home: connector shop")) == ((), "a leads elsewhere; b leads elsewhere")
    assert {one.id for one in none.config.entries} == {"home: service web"}


def test_without_caddy_everything_but_its_sites_works_and_those_say_what_to_install() -> None:
    passed = connector("raw", kind="tls", domains=("raw.example.org",))
    found = made(site("shop"), passed, ports=None, caddy_problem="install caddy")
    assert problem(found, "home: connector shop") == "install caddy"
    assert [one.domain for one in entry(found, "gateway *:443").names] == ["raw.example.org"]
    assert not {"gateway *:80", "home: connector shop"} & {one.id for one in found.config.entries}
    assert found.sites  # it is tried again


def test_a_certificate_that_cannot_be_had_is_told() -> None:
    assert problem(made(site("shop"), problems={"home: connector shop": "no"}), "home: connector shop") == "no"


def test_ftp_clients_may_be_told_the_address_that_the_operator_states() -> None:
    files = Service(name="web", at=("members",), target="localhost:21", port=21, helper="ftp")
    for service, shown in ((files, "203.0.113.7"), (WEB, "")):
        where = Surroundings(RUN, GATEWAY, known_as=IPv4Address("203.0.113.7"), ports=PORTS)
        public = connector("a", listen="*:2121")
        found = worked_out(
            view(service, connectors=[public]), wishes=Wishes(StreamConfig(gateway=GATEWAY)), around=where
        )
        assert entry(found, "home: connector a").known_as == shown
