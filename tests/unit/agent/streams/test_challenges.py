"""Gateways of one domain, which an authority for certificates looks at without asking which of them asked it."""

from __future__ import annotations

import pytest

from tests.unit.agent.streams.fakes import RUN, entry, member, problem, view, worked_out
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.connectors import Surroundings
from warren.agent.streams.entries import Streams, Wishes
from warren.ingress.sites import Ports
from warren.model.documents import Rule
from warren.model.services import CHALLENGE_PORT, Connector, Service

PORTS = Ports(8080, 8443)
WEB = Service(name="web", at=("member:carol",), target="localhost:8080", port=80)
DOMAIN = "shop.example.org"


def made(*at: str, certificate: str = "acme", ports: Ports | None = PORTS, **more: object) -> Streams:
    shop = Connector(name="shop", at=at, service="web", kind="http", domains=(DOMAIN,), certificate=certificate)  # type: ignore[arg-type]
    gateway = Gateway()
    around = Surroundings(RUN, gateway, domains={DOMAIN: ""}, ports=ports)
    where = view(WEB, connectors=[shop], **more)  # type: ignore[arg-type]
    return worked_out(where, wishes=Wishes(StreamConfig(gateway=gateway)), around=around)


def ids(found: Streams) -> set[str]:
    return {one.id for one in found.config.entries if "challenges" in one.id}


def test_what_the_others_ask_goes_to_caddy_and_nobody_else_may_ask() -> None:
    found = entry(made("member:me", "member:bob"), "home: challenges")
    assert [(one.side, one.address, one.port) for one in found.listen] == [
        ("overlay", str(member("me", 1).address6), CHALLENGE_PORT)
    ]
    assert found.limits.sources == (f"{member('bob', 2).address6}/128",)
    assert [(one.host, one.port) for one in found.way.backends] == [("127.0.0.1", 8080)]


def test_caddy_asks_each_of_the_others_by_a_socket_of_its_own() -> None:
    found = made("member:me", "member:carol", "member:bob")
    (site,) = found.sites
    asked = [entry(found, f"home: challenges at {name}") for name in ("bob", "carol")]
    assert site.others == tuple(RUN / one.listen[0].path for one in asked)
    assert [(one.way.backends[0].host, one.way.backends[0].port) for one in asked] == [
        (str(member("bob", 2).address6), CHALLENGE_PORT),
        (str(member("carol", 3).address6), CHALLENGE_PORT),
    ]


def test_before_caddy_listens_it_is_not_led_to() -> None:
    assert ids(made("member:me", "member:bob", ports=None)) == {"home: challenges at bob"}


@pytest.mark.parametrize(("at", "certificate"), [(("member:me",), "acme"), (("members",), "internal")])
def test_who_is_alone_or_needs_no_authority_asks_nobody(at: tuple[str, ...], certificate: str) -> None:
    found = made(*at, certificate=certificate)
    assert ids(found) == set()
    assert [site.others for site in found.sites] == [()]


def test_a_policy_that_keeps_gateways_apart_is_told_with_what_they_need() -> None:
    rule = Rule(action="allow", sources=("members",), destinations=("service:web",))
    found = made("member:me", "member:bob", policy=(rule,))
    assert f"have to reach each other at tcp/{CHALLENGE_PORT}" in problem(found, "home: connector shop")
    assert entry(found, "home: challenges at bob").way.refusal
    assert [site.domains for site in found.sites] == [(DOMAIN,)]
