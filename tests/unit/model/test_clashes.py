"""Which connectors are in each other's way, and which services."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.networks import COLLIDING, MadeNetwork
from warren.model.clashes import clashes, closed_target, colliding_service, permitted_place
from warren.model.members import Member
from warren.model.services import Connector, Service, place_of
from warren.model.serving import selected

HOME = MadeNetwork()
GW = HOME.member("gw", tags=("gateway",))
WEB = HOME.member("web", tags=("web",))
MEMBERS = (GW, WEB)
SERVICES = {
    "web": Service(name="web", at=("members",), target="h:80"),
    "dns": Service(name="dns", at=("members",), target="h:53", protocol="udp"),
}


def connector(name: str, at: str = "member:gw", **more: Any) -> Connector:
    return Connector(**{"name": name, "at": tuple(at.split()), "service": "web", **more})


def found(*connectors: Connector, members: tuple[Member, ...] = MEMBERS) -> list[tuple[str, str]]:
    return [(clash.connector, clash.field) for clash in clashes(connectors, SERVICES, members)]


NONE: list[tuple[str, str]] = []
LISTEN, DOMAINS = [("b", "listen")], [("b", "domains")]


def tls(*domains: str, **more: Any) -> dict[str, Any]:
    return {"kind": "tls", "domains": domains, **more}


def http(*domains: str, **more: Any) -> dict[str, Any]:
    return {"kind": "http", "domains": domains, **more}


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ({"listen": "*:1"}, {"listen": "*:1"}, LISTEN),
        ({"listen": "*:1"}, {"listen": "*:2"}, NONE),
        ({"listen": "*:1"}, {"listen": "127.0.0.1:1"}, LISTEN),
        ({"listen": "127.0.0.1:1"}, {"listen": "127.0.0.2:1"}, NONE),
        ({"listen": "0.0.0.0:1"}, {"listen": "127.0.0.2:1"}, LISTEN),
        ({"listen": "0.0.0.0:1"}, {"listen": "[::1]:1"}, NONE),
        ({"listen": "[::1]:1"}, {"listen": "[::]:1"}, LISTEN),
        ({"listen": "*:1"}, {"listen": "[::1]:1"}, LISTEN),
        ({"listen": "*:53"}, {"listen": "*:53", "service": "dns"}, NONE),
        ({"listen": "*:53", "service": "dns"}, {"listen": "*:53", "service": "dns"}, LISTEN),
        ({"listen": "unix:/a"}, {"listen": "unix:/a"}, LISTEN),
        ({"listen": "unix:/a"}, {"listen": "unix:/b"}, NONE),
        ({}, {"listen": "80"}, LISTEN),
        (tls("a.b"), tls("c.d"), NONE),
        (tls("a.b"), tls("c.d", "a.b"), DOMAINS),
        (tls("a.b"), tls("a.b", listen="*:8443"), NONE),
        (tls("a.b"), tls("c.d", listen="192.0.2.1:443"), LISTEN),
        (tls("a.b"), {"listen": "*:443"}, LISTEN),
        (tls("a.b"), http("c.d"), NONE),
        (tls("a.b"), http("a.b"), DOMAINS),
        (http(), http(), NONE),
        (http("a.b"), http("a.b"), DOMAINS),
        (http("a.b"), http("a.b", certificate="none"), DOMAINS),
        (http("a.b"), http("c.d", certificate="none"), NONE),
        (tls("a.b"), http("a.b", certificate="none"), NONE),
        (http("a.b"), {"listen": "*:80"}, LISTEN),
        ({"listen": "*:80"}, http("a.b"), LISTEN),
        (http("a.b", certificate="none", listen="*:443"), tls("c.d"), LISTEN),
        (http("a.b"), http("a.b", listen="*:8443"), DOMAINS),
    ],
)
def test_of_two_at_one_member_the_second_may_be_in_the_way(
    one: dict[str, Any], other: dict[str, Any], clash: list[tuple[str, str]]
) -> None:
    assert found(connector("a", **one), connector("b", **other)) == clash
    assert found(connector("a", **one), connector("b", at="member:web", **other)) == []


def test_the_reason_says_who_where_and_what_to_do() -> None:
    (clash,) = clashes((connector("a"), connector("b", "members", listen="*:80")), SERVICES, MEMBERS)
    assert clash.what == "connector a listens at tcp 127.0.0.1:80 of gw already; choose another port or address"
    (clash,) = clashes((connector("a"), connector("b", **http())), SERVICES, MEMBERS)
    assert clash.what == (
        "connector a listens at tcp 127.0.0.1:80 of gw already, where kind http needs *:80 for browsers that come "
        "without TLS; move that one"
    )
    (clash,) = clashes((connector("a", **tls("a.b")), connector("b", **tls("a.b"))), SERVICES, MEMBERS)
    assert clash.what == "connector a has a.b at gw already; leave it to one of them"


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("members", "tag:web", True),
        ("tag:gateway", "tag:web", False),
        ("tag:gateway member:web", "tag:web", True),
        (str(GW.prefix6), "member:gw", True),
        ("tag:later", "tag:later", True),
        ("tag:later", "tag:much-later", False),
        ("member:x", "member:x", True),
    ],
)
def test_they_are_in_the_way_at_members_that_both_name_also_at_those_to_come(one: str, other: str, clash: bool) -> None:
    assert bool(found(connector("a", one), connector("b", other))) is clash


def test_one_whose_service_is_not_there_is_nobodys_business_here() -> None:
    assert found(connector("a", service="x"), connector("b")) == []


def test_who_is_in_the_way_takes_nothing_from_the_next() -> None:
    first, second, third = connector("a"), connector("b", listen="*:80"), connector("c", listen="[::1]:80")
    assert found(first, second, third) == [("b", "listen")]


CONNECTORS = st.lists(
    st.builds(
        lambda at, how: (at, how),
        st.lists(st.sampled_from(["member:gw", "tag:web", "members", "member:x"]), min_size=1, max_size=2),
        st.sampled_from(
            [
                *({"listen": place} for place in ("80", "*:80", "*:443", "[::1]:80", "unix:/x")),
                *(tls(*domains) for domains in (("a.b",), ("c.d",), ("a.b", "e.f"))),
                *(http(*domains) for domains in ((), ("a.b",), ("e.f",))),
                http("a.b", certificate="none"),
            ]
        ),
    ),
    max_size=5,
).map(lambda found: [connector(f"c{n}", " ".join(at), **how) for n, (at, how) in enumerate(found)])


@given(CONNECTORS)
def test_without_those_in_the_way_no_two_sockets_and_no_two_domains_meet(connectors: list[Connector]) -> None:
    wrong = {name for name, _ in found(*connectors)}
    rest = [one for one in connectors if one.name not in wrong]
    for member in MEMBERS:
        sockets: dict[str, str] = {}
        domains: set[tuple[str, str]] = set()
        for one in rest:
            if member not in selected(one.at, MEMBERS):
                continue
            place = str(place_of(one, SERVICES["web"]))
            manner = one.name if one.kind == "port" else "plain" if one.certificate == "none" else "tls"
            assert sockets.setdefault(place, manner) == manner
            for domain in one.domains:
                assert (domain, place) not in domains
                domains.add((domain, place))
        ports = [place for place in sockets if place.endswith(":80")]
        assert "*:80" not in ports or len(ports) == 1


def test_services_whose_addresses_would_be_the_same_are_found() -> None:
    one, other = (Service(name=name, at=("members",), target="h:80") for name in COLLIDING)
    assert colliding_service((SERVICES["web"], one, SERVICES["dns"])) is None
    assert colliding_service((SERVICES["web"], one, other)) == COLLIDING


# What only members take whose operators have said so

ROUTER = HOME.member("router", routes=("192.0.2.0/24",))
TWIN = HOME.member("twin", routes=("192.0.2.0/24",))
SPEC = HOME.spec().document


def closed(target: str, at: str = "member:web") -> str:
    service = Service(name="s", at=tuple(at.split()), target=target)
    return closed_target(service, SPEC, (*MEMBERS, ROUTER, TWIN)) or ""


@pytest.mark.parametrize(
    ("target", "what"),
    [
        (f"[{GW.address6}]:80", f"{GW.address6} is an address of this network"),
        (f"{GW.address4}:80", f"{GW.address4} is an address of this network"),
        (f"[{WEB.service_address('other')}]:80", "is an address of this network"),
        ("10.77.200.200:80", "10.77.200.200 is an address of this network"),
        ("gw.home.internal:80", "gw.home.internal is a name of this network"),
        ("Page.svc.home.internal.:80", "page.svc.home.internal is a name of this network"),
        ("192.0.2.7:80", "192.0.2.7 is behind router"),
        ("169.254.169.254:80", "169.254.169.254 is link-local, where a cloud"),
    ],
)
def test_targets_that_make_a_member_a_bridge_are_told_at_once(target: str, what: str) -> None:
    assert what in closed(target)
    assert "(agent.toml, [services] allow)" in closed(target)
    assert what in closed(target, "member:nobody-yet") or "behind" in what


@pytest.mark.parametrize(
    ("target", "at"),
    [
        ("127.0.0.1:80", "members"),
        ("db.lan:80", "members"),
        ("unix:/run/db", "members"),
        ("10.78.0.1:80", "members"),
        ("home.internal:80", "members"),
        (f"[{WEB.address6}]:80", "member:web"),
        (f"{WEB.address4}:80", "member:web"),
        ("web.home.internal:80", "member:web"),
        ("192.0.2.7:80", "member:router"),
        ("192.0.2.7:80", "member:router member:twin"),
    ],
)
def test_what_a_member_has_itself_is_no_bridge(target: str, at: str) -> None:
    service = Service(name="s", at=tuple(at.split()), target=target, port=80)
    assert closed_target(service, SPEC, (*MEMBERS, ROUTER, TWIN)) is None


def test_it_is_told_when_one_of_several_is_a_bridge() -> None:
    assert closed(f"[{WEB.address6}]:80", "members")
    assert closed("web.home.internal:80", "members")
    assert closed("192.0.2.7:80", "member:router member:web")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({}, 'allow = ["127.0.0.1:80"]; to listen at another port, say 8080,'),
        ({"listen": "[::1]:1023"}, 'allow = ["[::1]:1023"]; to listen at another port, say 9023,'),
        ({"listen": "unix:/run/s"}, 'allow = ["unix:/run/s"]'),
        ({"listen": "1024"}, ""),
        ({"listen": "*:80"}, ""),
        ({"listen": "192.0.2.1:80"}, ""),
        (http("a.example"), ""),
    ],
)
def test_places_that_operators_have_to_name_are_told_at_once(how: dict[str, Any], said: str) -> None:
    found = permitted_place(connector("a", **how), SERVICES["web"])
    assert said in found if found and said else found is None and not said
