"""Web sites of a hidden member at gateways that get their certificates from an authority by ACME."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.acme import MISSING, Authority
from tests.support.stream_world import GATEWAY, PATIENCE_S, StreamWorld, agent_status, processes, wait
from tests.support.web_service import EchoSocket, serve_web, sha256_of, websocket
from warren.lab import Host, Lab
from warren.lab.network import environment

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

BYTES = 50_000_000
PAGE = "a page of the hidden member"
ACME = 'acme_directory = "{directory}"\nacme_ca = "{ca}"\nacme_email = "admin@example.org"\n'


class Gates:
    """Two gateways, an authority whose names all of them use, and a web server at the hidden member."""

    def __init__(self, lab: Lab) -> None:
        self.world = world = StreamWorld(lab, gateways=("gw1", "gw2"))
        host = world.internet.server("authority")
        self.authority = Authority(host, world.internet.address("authority"))
        self.authority.use_names([*world.gateways, world.visitor])
        acme = ACME.format(directory=self.authority.directory, ca=self.authority.certificate)
        world.agent_toml = GATEWAY + acme
        world.start()
        for address, name in (("::1", "page"), ("127.0.0.1", "page4")):
            world.hidden.begin(serve_web, address, 8080, PAGE)
            target = f"[{address}]:8080" if ":" in address else f"{address}:8080"
            world.service(name, "--at", "member:hidden", "--target", target)
        self.visitor6 = world.internet.server("visitor6", families="6")
        self.root = self.authority.root()

    def fetch(self, name: str, gateway: Host, *options: str) -> str:
        """What the visitor gets at that gateway, if its certificate is of the authority; empty: nothing."""
        at = f"{name}:443:{self.world.address(gateway)}"
        command = ["curl", "-sS", "--max-time", "15", "--cacert", str(self.root), "--resolve", at, *options]
        return self.world.visitor.run([*command, f"https://{name}/"], check=False).stdout

    def wait_for_page(self, name: str, gateway: Host) -> None:
        wait(
            self.world.visitor,
            lambda: PAGE in self.fetch(name, gateway),
            lambda: f"{name}: {agent_status(gateway)['streams']}",
        )


@pytest.mark.logs_errors
def test_gateways_get_certificates_by_acme_for_domains_that_lead_to_them(lab: Lab) -> None:
    gates = Gates(lab)
    a_certificate_is_obtained_through_the_front_doors(gates)
    a_domain_that_leads_elsewhere_is_told(gates)
    gates.authority.point("later.example.org", gates.world.address(gates.world.gateways[0]))
    much_and_long_comes_through_whatever_http_it_is(gates)
    a_websocket_outlives_new_sites_and_a_killed_agent(gates)
    a_visitor_with_ipv6_alone_uses_what_is_served_by_ipv4(gates)
    gateways_of_one_domain_answer_for_each_other(gates)
    a_domain_that_leads_here_now_is_taken_up(gates)
    nothing_is_left_of_a_gateway_that_is_down_but_its_certificates(gates)


def a_certificate_is_obtained_through_the_front_doors(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    gates.authority.point("www.example.org", world.address(gateway))
    at = ["--service", "page", "--at", "member:gw1", "--kind", "http"]
    world.connector("www", *at, "--domain", "www.example.org")
    gates.wait_for_page("www.example.org", gateway)
    world.wait_done(gateway, "connector www")


def a_domain_that_leads_elsewhere_is_told(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    gates.authority.point("later.example.org", world.address(world.server))
    at = ["--service", "page", "--at", "member:gw1", "--kind", "http"]
    world.connector("later", *at, "--domain", "later.example.org")
    wait(gateway, lambda: world.task(gateway, "connector later").get("state") == "failed", lambda: "told")
    reason = world.task(gateway, "connector later")["reason"]
    assert f"later.example.org leads to {world.address(world.server)}" in reason
    assert world.address(gateway) in reason


def a_domain_that_leads_here_now_is_taken_up(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    gates.wait_for_page("later.example.org", gateway)
    world.wait_done(gateway, "connector later")


def gateways_of_one_domain_answer_for_each_other(gates: Gates) -> None:
    """Pebble looks at the first address of a name, so the second gateway gets nothing without the first."""
    world = gates.world
    first, second = world.gateways
    gates.authority.point("both.example.org", world.address(first), world.address(second))
    at = ["--service", "page", "--at", "member:gw1", "--at", "member:gw2", "--kind", "http"]
    world.connector("both", *at, "--domain", "both.example.org")
    for gateway in world.gateways:
        gates.wait_for_page("both.example.org", gateway)
        world.wait_done(gateway, "connector both")


def much_and_long_comes_through_whatever_http_it_is(gates: Gates) -> None:
    visitor, gateway = gates.world.visitor, gates.world.address(gates.world.gateways[0])
    for http in ("--http1.1", "--http2"):
        command = ["curl", "-sS", http, "--cacert", str(gates.root), "--resolve", f"www.example.org:443:{gateway}"]
        url = f"https://www.example.org/{BYTES}"
        program = f"{' '.join(command)} {url} -w '%{{stderr}}%{{http_version}}' | sha256sum"
        done = visitor.run(["sh", "-c", program], timeout=100)
        assert done.stdout.split()[0] == sha256_of(BYTES)
        assert done.stderr == http.removeprefix("--http").removesuffix(".0")
    texts = [b"one", b"two" * 30]
    assert visitor.call(websocket, gateway, "www.example.org", str(gates.root), texts) == texts


def a_websocket_outlives_new_sites_and_a_killed_agent(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    at = ["--service", "page", "--at", "member:gw1", "--kind", "http", "--certificate", "none"]

    def served(site: str) -> bool:
        domain = f"{site}.gw1.example.com"
        by_name = ["--resolve", f"{domain}:80:{world.address(gateway)}"]
        return PAGE in world.visitor.run(["curl", "-sS", *by_name, f"http://{domain}/"], check=False).stdout

    def until(condition: Callable[[], bool]) -> None:
        wait(gateway, condition, lambda: f"{agent_status(gateway)['streams']}")

    plain = world.visitor.socket()
    plain.settimeout(PATIENCE_S)
    plain.connect((world.address(gateway), 443))
    with plain, EchoSocket(plain, "www.example.org", str(gates.root)) as web:
        world.connector("one", *at)
        until(lambda: served("one"))
        until(lambda: len(processes(gateway, "caddy run")) == 2)  # one that nobody uses ends a moment later
        world.network.nodes["gw1"].process.signal(SIGKILL)
        world.network.nodes["gw1"].process.wait(10)
        assert web.say(b"while no agent runs") == b"while no agent runs"
        world.restart(gateway)
        world.connector("two", *at)
        until(lambda: served("two"))
        world.network.warren(world.server, "connector", "remove", "home", "one")
        until(lambda: not served("one"))
        until(lambda: len(processes(gateway, "caddy run")) == 2)  # one that nobody uses ends a moment later
        assert web.say(b"after all that") == b"after all that"


def nothing_is_left_of_a_gateway_that_is_down_but_its_certificates(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    run, state = Path(environment(gateway)["WARREN_RUN"]), Path(environment(gateway)["WARREN_STATE"])
    names = set(gateway.run(["ls", str(run)]).stdout.split())
    assert {"caddy", "sites", "streams.sock"} <= names
    world.network.warren(gateway, "down")
    gateway.wait_for(lambda: not processes(gateway, "caddy run"))
    left = gateway.run(["find", str(run), "-mindepth", "1"], check=False).stdout.split()
    assert [path for path in left if "caddy" in path or "sites" in path or "streams" in path] == []
    assert list(state.glob("caddy/certificates/*/www.example.org/www.example.org.crt"))


def a_visitor_with_ipv6_alone_uses_what_is_served_by_ipv4(gates: Gates) -> None:
    world, gateway = gates.world, gates.world.gateways[0]
    world.connector("page4", "--service", "page4", "--at", "member:gw1", "--listen", "*:8081")
    world.wait_done(gateway, "connector page4")
    address = world.internet.address("gw1", 6)
    assert PAGE in gates.visitor6.run(["curl", "-sS", f"http://[{address}]:8081/"]).stdout
    at = ["--cacert", str(gates.root), "--resolve", f"www.example.org:443:[{address}]"]
    page = gates.visitor6.run(["curl", "-sS", *at, "https://www.example.org/"]).stdout
    assert f"x-forwarded-for: {world.internet.address('visitor6', 6)}\n" in page
