"""Connectors that share a place."""

from __future__ import annotations

import pytest

from tests.unit.agent.streams.doors_made import connector, made, site
from tests.unit.agent.streams.fakes import entry, problem
from warren.l4.config import Limits


def test_names_that_are_passed_on_and_names_of_sites_share_a_port() -> None:
    limited = connector("raw", kind="tls", domains=("raw.example.org",), sources=("192.0.2.0/24",), rate=1.0)
    found = made(limited, site("shop"))
    names = {one.domain: one for one in entry(found, "gateway *:443").names}
    assert names["raw.example.org"].limits == Limits(sources=("192.0.2.0/24",), rate=1.0)
    assert [one.name for one in names["raw.example.org"].way.backends] == ["bob", "carol"]
    assert (names["raw.example.org"].ended, names["shop.example.org"].ended) == (False, True)
    assert entry(found, "gateway *:443").limits == Limits(streams_max=8192)
    assert "home: connector raw" not in {one.id for one in found.config.entries}


def test_a_domain_belongs_to_the_first_that_asks_for_it() -> None:
    raw = connector("raw", kind="tls", domains=("shop.example.org",))
    found = made(site("shop"), raw, site("again", domains=("shop.example.org",), listen="*:8443"))
    assert "home: connector shop has one of its domains" in problem(found, "home: connector raw")
    assert "home: connector shop has one of its domains" in problem(found, "home: connector again")
    assert [one.domain for one in entry(found, "gateway *:443").names] == ["shop.example.org"]
    assert len(found.sites) == 1


def test_a_place_takes_the_proxy_protocol_of_all_or_of_none() -> None:
    one = connector("a", kind="tls", domains=("a.example.org",), accepts_proxy_protocol=True)
    found = made(one, connector("b", kind="tls", domains=("b.example.org",)))
    assert entry(found, "gateway *:443").proxy_in
    assert "only one of them takes the PROXY protocol" in problem(found, "home: connector b")


@pytest.mark.parametrize("limit", [{"sources": ("192.0.2.0/24",)}, {"rate": 1.0}])
def test_a_site_without_tls_may_have_limits_only_when_it_is_alone(limit: dict[str, object]) -> None:
    plain = site("plain", certificate="none", **limit)
    alone = entry(made(plain), "gateway *:80").limits
    assert (alone.sources, alone.rate) == (limit.get("sources", ()), limit.get("rate"))
    for other in (site("shop"), site("other", certificate="none", listen="*:8080")):
        found = made(plain, other)
        assert "without TLS nobody can tell its clients" in problem(found, "home: connector plain")
        assert {one.connector for one in found.sites} == {f"home: connector {other.name}"}


def test_port_80_is_for_sites_that_are_public() -> None:
    assert "gateway *:80" not in {one.id for one in made(site("shop", listen="127.0.0.1:443")).config.entries}
    assert entry(made(site("shop", listen="203.0.113.7:443")), "gateway 203.0.113.7:80").kind == "ended"


def test_a_shared_place_is_a_task_of_each_network_that_shares_it() -> None:
    (gate,) = [one for one in made(site("shop")).items if one.id == "gateway *:443"]
    assert (gate.task, gate.kind, gate.networks) == ("gateway *:443", "gateway", ("home",))
