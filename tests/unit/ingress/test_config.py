"""Caddy's configuration, as it is made from the sites."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warren.ingress.certificates import certificates
from warren.ingress.config import beginning, configuration, doors_in, ports_in
from warren.ingress.sites import Ports, Settings, Site

SETTINGS = Settings(Path("/var/lib/warren"), Path("/run/warren"))
PORTS = Ports(8001, 8002)
SHOP = Site("shop", ("shop.example", "www.shop.example"), "acme", Path("/run/warren/shop.sock"))
HOME = Site("home", ("home.example",), "internal", Path("/run/warren/home.sock"))
FORBIDDEN = [{"handler": "static_response", "status_code": 403}]
PLAIN = Site("plain", ("plain.example",), "none", Path("/run/warren/plain.sock"))


def made(*sites: Site, settings: Settings = SETTINGS) -> dict[str, Any]:
    return configuration(sites, settings, PORTS, Path("/run/warren/peers.sock"))


def routes(config: dict[str, Any], server: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The handlers of each list of hosts; of any host under ()."""
    found = config["apps"]["http"]["servers"][server]["routes"][2:]
    known = [route for route in found if route.get("handle") != FORBIDDEN]
    return {tuple(route["match"][0]["host"]) if "match" in route else (): route["handle"] for route in known}


def test_sites_with_tls_and_without_have_a_server_each() -> None:
    config = made(SHOP, HOME, PLAIN)
    assert list(routes(config, "https")) == [HOME.domains, SHOP.domains, ()]
    assert list(routes(config, "http")) == [PLAIN.domains, HOME.domains, SHOP.domains, ()]
    (redirect,) = routes(config, "http")[SHOP.domains]
    assert redirect["status_code"] == 308
    assert redirect["headers"]["Location"] == ["https://{http.request.host}{http.request.uri}"]
    assert routes(config, "http")[()][0]["status_code"] == 404
    assert routes(config, "https")[()][0]["status_code"] == 421
    assert config["apps"]["tls"] == certificates((HOME, SHOP), SETTINGS, PORTS)
    assert not config["apps"]["pki"]["certificate_authorities"]["local"]["install_trust"]


def test_plain_http_leads_to_where_the_site_is() -> None:
    elsewhere = Site("shop", ("shop.example",), "internal", Path("/x"), https_port=8443)
    (redirect,) = routes(made(elsewhere), "http")[("shop.example",)]
    assert redirect["headers"]["Location"] == ["https://{http.request.host}:8443{http.request.uri}"]


@pytest.mark.parametrize(("server", "site"), [("https", SHOP), ("http", PLAIN)])
def test_each_request_is_cleaned_and_then_passed_on(server: str, site: Site) -> None:
    clean, only_websockets, pass_on = routes(made(SHOP, PLAIN), server)[site.domains]
    assert {"*forwarded*", "*warren*", "*real-ip*", "*_*"} <= set(clean["request"]["delete"])
    assert only_websockets["routes"][0]["handle"][0]["request"]["delete"] == ["Upgrade", "HTTP2-Settings"]
    assert pass_on["upstreams"] == [{"dial": f"unix/{site.upstream}"}]
    assert pass_on["transport"]["keep_alive"] == {"idle_timeout": "60s", "max_idle_conns_per_host": 64}
    told = pass_on["headers"]["request"]["set"]
    assert told["X-Forwarded-For"] == told["X-Real-Ip"] == ["{http.regexp.client.1}"]
    assert told["X-Forwarded-Proto"] == ["{http.request.scheme}"]


@pytest.mark.parametrize(("server", "site"), [("https", SHOP), ("http", PLAIN)])
def test_a_site_is_for_those_whose_address_is_known(server: str, site: Site) -> None:
    found = made(SHOP, PLAIN)["apps"]["http"]["servers"][server]["routes"]
    known, others = [route for route in found if route.get("match", [{}])[0].get("host") == list(site.domains)]
    (name,) = known["match"][0]["vars_regexp"].items()
    assert name[0] == "{http.request.remote}"
    pattern = re.compile(name[1]["pattern"])
    for remote in ("@192.0.2.7/0123456789abcdef", "@2001:db8::7/0123456789abcdef"):
        match = pattern.search(remote)
        assert match is not None
        assert match.groups() == tuple(remote[1:].split("/"))
    for remote in ("127.0.0.1:40000", "@", "", "@192.0.2.7", "192.0.2.7/0123456789abcdef", "@x/0123456789abcdef"):
        assert pattern.search(remote) is None
    assert others["handle"] == FORBIDDEN
    assert others["terminal"]
    assert known["terminal"]


def test_of_a_websocket_that_the_site_has_agreed_to_the_stream_process_is_told() -> None:
    *_, pass_on = routes(made(SHOP), "https")[SHOP.domains]
    (agreed,) = pass_on["handle_response"]
    assert agreed["match"] == {"status_code": [101]}
    tell, answer = agreed["routes"][0]["handle"]
    assert answer == {"handler": "copy_response"}
    assert tell["errors"] == {"routes": []}
    (telling,) = tell["routes"][0]["handle"]
    assert telling["upstreams"] == [{"dial": "unix//run/warren/peers.sock"}]
    assert telling["rewrite"] == {"method": "GET", "uri": "/websocket/{http.regexp.client.2}?"}


def test_when_another_serves_each_request_but_for_a_websocket_is_the_last_of_its_connection() -> None:
    settings = replace(SETTINGS, generation=7)
    for server in made(SHOP, PLAIN, settings=settings)["apps"]["http"]["servers"].values():
        left = server["routes"][1]
        (match,) = left["match"]
        assert match["file"] == {"root": "/run/warren/caddy/7", "try_files": ["left"]}
        assert "Upgrade" in match["not"][0]["header_regexp"]
        assert left["handle"][1]["response"]["set"] == {"Connection": ["close"]}
        assert "terminal" not in left


def test_caddy_listens_on_loopback_and_among_sites_only_with_limits_and_without_http_3() -> None:
    servers = made(SHOP, PLAIN)["apps"]["http"]["servers"]
    assert servers["http"]["listen"] == ["127.0.0.1:8001", "unix//run/warren/caddy-8001.sock"]
    assert servers["https"]["listen"] == ["127.0.0.1:8002", "unix//run/warren/caddy-8002.sock"]
    for server in servers.values():
        assert set(server["protocols"]) <= {"h1", "h2"}
        assert server["automatic_https"] == {"disable": True}
        assert (server["read_header_timeout"], server["idle_timeout"]) == ("5s", "60s")
        assert server["max_header_bytes"] == 32_768


def test_a_host_that_is_not_the_tls_name_is_not_served() -> None:
    assert made(SHOP)["apps"]["http"]["servers"]["https"]["strict_sni_host"] is True


def test_the_order_of_the_sites_does_not_matter() -> None:
    assert made(SHOP, HOME, PLAIN) == made(PLAIN, HOME, SHOP)


def test_it_is_asked_over_its_own_socket_and_keeps_no_copy() -> None:
    settings = replace(SETTINGS, generation=7)
    start = beginning(settings)
    assert start["admin"]["listen"] == "unix//run/warren/caddy/7/admin.sock"
    assert start["admin"]["config"] == {"persist": False}
    assert start["storage"] == {"module": "file_system", "root": "/var/lib/warren/caddy"}
    assert start.items() <= made(SHOP, settings=settings).items()
    assert "apps" not in start


def test_the_ports_are_found_again() -> None:
    assert ports_in(json.loads(json.dumps(made(SHOP)))) == PORTS
    assert ports_in(beginning(SETTINGS)) is None
    sockets = [Path("/run/warren/caddy-8001.sock"), Path("/run/warren/caddy-8002.sock")]
    assert doors_in(json.loads(json.dumps(made(SHOP)))) == sockets
    assert doors_in(beginning(SETTINGS)) == []
    assert ports_in({"apps": {"http": {"http_port": "x"}}}) is None


def test_a_challenge_that_another_gateway_asked_for_is_looked_for_there_once_and_in_turn() -> None:
    both = Site("shop", SHOP.domains, "acme", SHOP.upstream, others=(Path("/run/one.sock"), Path("/run/two.sock")))
    config = made(both, HOME)
    asking, *_ = config["apps"]["http"]["servers"]["http"]["routes"][2:]
    (match,) = asking["match"]
    assert (match["host"], match["path"]) == (list(SHOP.domains), ["/.well-known/acme-challenge/*"])
    assert match["header"] == {"X-Warren-Challenge": None}  # what was passed on already is not passed on
    dialled = []
    handlers = asking["handle"]
    while handlers[0]["handler"] == "subroute":
        (asked,) = handlers[0]["routes"][0]["handle"]
        assert asked["headers"]["request"]["set"] == {"X-Warren-Challenge": ["1"]}
        assert asked["handle_response"][0]["match"] == {"status_code": [3, 4, 5]}
        dialled += [upstream["dial"] for upstream in asked["upstreams"]]
        handlers = handlers[0]["errors"]["routes"][0]["handle"]
    assert dialled == ["unix//run/one.sock", "unix//run/two.sock"]
    assert handlers == [{"handler": "static_response", "status_code": 404}]
