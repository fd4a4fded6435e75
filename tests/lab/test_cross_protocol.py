"""A page of somebody else's in a browser on a node, or on the coordinator's machine, changes nothing there (forged
requests, DNS rebinding): whatever listens is sent HTTP by a name of the attacker's, with other protocols in its body.
"""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.cross_protocol import attacked, listening
from tests.support.stream_traffic import serve_page
from tests.support.stream_world import PATIENCE_S, StreamWorld, agent_status, processes
from warren.lab import Host, Lab


def admin_of(host: Host) -> str:
    """Where the Caddy that serves is asked; one that was replaced may still be there."""
    found = host.run(["sh", "-c", "ls -v /run/warren/caddy/*/admin.sock"], check=False).stdout.split()
    return found[-1] if found else ""


def caddy_config(host: Host) -> str:
    ask = ["curl", "-sf", "--unix-socket", admin_of(host), "http://warren/config/apps/http"]
    return host.run(ask, check=False).stdout


def state_of(world: StreamWorld, host: Host) -> list[object]:
    """What an attacker would like to change."""
    status = agent_status(host)
    networks = world.network.warren(world.server, "network", "list", "--json").stdout
    return [
        [(one["network"], one["state"], one["wireguard_key"], len(one["peers"])) for one in status["networks"]],
        [(one["id"], one["state"], one["places"], one["target"]) for one in status["streams"]],
        status["pid"],
        [processes(host, name) for name in ("warren.l4", "warren.engine")],
        (admin_of(host), caddy_config(host)),
        [one["name"] for one in json.loads(networks)],
    ]


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_http_from_a_strangers_page_changes_nothing_whatever_listens(lab: Lab) -> None:
    world = StreamWorld(lab)
    world.start()
    gateway, hidden = world.gateways[0], world.hidden
    hidden.begin(serve_page, "127.0.0.1", 8000, "a page")
    world.service("page", "--at", "member:hidden", "--target", "127.0.0.1:8000")
    web = ["--kind", "http", "--certificate", "internal", "--domain", "www.example.org"]
    world.connector("www", "--service", "page", "--at", "member:gw1", *web)
    world.network.warren(gateway, "forward", "--socks", "1080", "--keep")
    world.wait_done(gateway, "connector www")
    at = f"www.example.org:443:{world.address(gateway)}"
    world.visitor.wait_for(["curl", "-sfk", "-m5", "--resolve", at, "https://www.example.org/"], PATIENCE_S)
    gateway.wait_for(lambda: "www.example.org" in caddy_config(gateway), PATIENCE_S)
    admin = admin_of(gateway)
    before = state_of(world, gateway)
    places, paths = gateway.call(listening)
    assert ("127.0.0.1", 1080) in places
    assert admin in paths
    assert "/run/warren/agent.sock" in paths
    said = gateway.call(attacked, places, paths, timeout=120)
    assert said.get(admin, {"no Caddy"}) <= {"HTTP/1.1 403 Forbidden", "HTTP/1.0 403 Forbidden"}
    assert said["127.0.0.1 1080"] == set()
    refused = {one["id"]: one["refused"] for one in agent_status(gateway)["streams"]}
    assert refused["socks 127.0.0.1:1080"]["protocol"] > 0
    gateway.wait_for(lambda: state_of(world, gateway) == before, what="what was there before")  # health comes and goes
    places, paths = world.server.call(listening)
    assert ("127.0.0.1", 8443) in places
    said = world.server.call(attacked, places, paths, timeout=120)
    assert said["127.0.0.1 8443"] == {"HTTP/1.1 421 Misdirected Request"}
    gateway.wait_for(lambda: state_of(world, gateway) == before, what="what was there before")  # health comes and goes
