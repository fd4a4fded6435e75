"""Whom selectors pick, and where a service is served."""

from __future__ import annotations

import pytest

from tests.support.networks import COLLIDING, MadeNetwork
from warren.model.addresses import service_address
from warren.model.documents import NetworkSpec
from warren.model.services import Connector, Service
from warren.model.serving import (
    connectors_of,
    selected,
    service_addresses,
    service_named,
    services_of,
    serving,
)

HOME = MadeNetwork()
A = HOME.member("a", tags=("gw", "web"), routes=("192.168.9.0/24",))
B = HOME.member("b", tags=("web",))
V6 = HOME.member("v6", address4=None)
MEMBERS = (B, A, V6)


def service(name: str, *at: str) -> Service:
    return Service(name=name, at=at, target="localhost:80")


@pytest.mark.parametrize(
    ("selectors", "names"),
    [
        ("members", "b a v6"),
        ("member:a", "a"),
        ("member:x", ""),
        ("tag:web", "b a"),
        ("tag:gw member:v6", "a v6"),
        ("tag:we", ""),
        (f"{A.address4}/32", "a"),
        (f"{A.address6}/128", "a"),
        (str(A.prefix6), "a"),
        (f"{A.prefix6[2]}/128", ""),
        (str(HOME.prefix6), "b a v6"),
        ("10.77.0.0/16", "b a"),
        ("192.168.9.0/24", ""),
        ("0.0.0.0/0", "b a"),
        ("", ""),
    ],
)
def test_selectors_pick_members_in_their_order(selectors: str, names: str) -> None:
    assert [member.name for member in selected(selectors.split(), MEMBERS)] == names.split()


def test_a_service_is_served_by_those_whom_it_names_at_an_address_in_their_prefix() -> None:
    spec: NetworkSpec = HOME.spec(services=(service("page", "tag:web"), service("idle", "member:x"))).document
    assert serving(spec, MEMBERS, "page") == (B, A)
    assert serving(spec, MEMBERS, "idle") == ()
    assert serving(spec, MEMBERS, "nothing") == ()
    assert service_named(spec, "nothing") is None
    assert service_named(spec, "idle") == spec.services[1]
    assert A.service_address("page") == service_address(A.prefix6, "page")
    assert A.service_address("page") in A.prefix6
    assert A.service_address("page") not in {A.address6, A.service_address("idle"), B.service_address("page")}
    assert service_addresses(spec.services, MEMBERS) == {
        B.service_address("page"): spec.services[0],
        A.service_address("page"): spec.services[0],
    }


def test_a_members_own_services_and_connectors_are_those_that_name_it() -> None:
    connectors = tuple(Connector(name=name, at=(at,), service="s") for name, at in (("x", "tag:gw"), ("y", "members")))
    spec: NetworkSpec = HOME.spec(
        services=(service("s", "tag:gw"), service("t", "members")), connectors=connectors
    ).document
    assert services_of(spec, A) == spec.services
    assert services_of(spec, B) == spec.services[1:]
    assert connectors_of(spec, A) == connectors
    assert connectors_of(spec, V6) == connectors[1:]


def test_of_two_services_with_one_address_the_first_that_a_member_serves_has_it() -> None:
    one, other = COLLIDING
    assert A.service_address(one) == A.service_address(other)
    services = (service(one, "member:a"), service(other, "members"))
    found = service_addresses(services, MEMBERS)
    assert found[A.service_address(one)].name == one
    assert found[B.service_address(one)].name == other
