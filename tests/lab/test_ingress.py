"""Services of a hidden, rootless member, used from outside through gateways, with the programs that people use."""

from __future__ import annotations

import json
import ssl
import subprocess
from functools import partial
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.stream_traffic import serve_page
from tests.support.stream_world import StreamWorld, agent_status, kill, wait
from warren.lab import Host, Lab

pytestmark = pytest.mark.timeout(300)

PAGE = "a page of the hidden member"


def curl(host: Host, url: str, *options: str) -> str:
    """What curl prints; its error is raised."""
    return host.run(["curl", "-sS", "--max-time", "20", *options, url]).stdout


def fetched(host: Host, url: str, *options: str) -> bool:
    """Whether it is the page."""
    return PAGE in host.run(["curl", "-sS", "--max-time", "15", *options, url], check=False).stdout


@pytest.fixture
def world(lab: Lab) -> StreamWorld:
    made = StreamWorld(lab, gateways=("gw1", "gw2"))
    made.start()
    made.hidden.begin(serve_page, "::1", 8080, PAGE)
    return made


def tls_server(host: Host, port: int, domain: str) -> Path:
    """A server that ends TLS itself, with a certificate of its own; returns the file of the certificate."""
    certificate, key = host.directory / "page.pem", host.directory / "page.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}", "-days", "2"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    host.begin(_serve_tls, port, str(certificate), str(key))
    return certificate


def _serve_tls(port: int, certificate: str, key: str) -> None:
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"{PAGE}\n{self.headers.get('X-Forwarded-For', 'nobody spoke for the client')}".encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


def test_an_outsider_with_ipv4_alone_uses_a_hidden_members_services_in_every_way(world: StreamWorld) -> None:
    hidden, gateway, visitor = world.hidden, world.gateways[0], world.visitor
    outside = world.address(gateway)
    certificate = tls_server(hidden, 8443, "secure.example.org")
    hidden.start(
        [
            *("dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1"),
            *("--port=5353", "--bind-interfaces", "--user=root", "--address=/answer.example/192.0.2.77"),
        ],
        name="dnsmasq",
    )
    at_hidden = ["--at", "member:hidden"]
    world.service("page", *at_hidden, "--target", "[::1]:8080")  # IPv6 alone
    world.service("secure", *at_hidden, "--target", "127.0.0.1:8443")
    for protocol in ("udp", "tcp"):
        world.service(f"names-{protocol}", *at_hidden, "--target", "127.0.0.1:5353", "--protocol", protocol)
    at = ["--at", "member:gw1"]
    world.connector("plain", "--service", "page", *at, "--listen", "*:8080")
    for protocol in ("udp", "tcp"):
        world.connector(protocol, "--service", f"names-{protocol}", *at, "--listen", "*:53")
    passed = ["--kind", "tls", "--domain", "secure.example.org"]
    world.connector("passed", "--service", "secure", *at, *passed)
    world.connector("web", "--service", "page", *at, "--kind", "http", "--certificate", "none")
    world.connector("safe", "--service", "page", *at, "--kind", "http", "--certificate", "internal")
    for name in ("plain", "udp", "tcp", "passed", "web", "safe"):
        world.wait_done(gateway, f"connector {name}")

    def by_name(domain: str, port: int) -> list[str]:
        return ["--resolve", f"{domain}:{port}:{outside}"]

    wait(visitor, lambda: fetched(visitor, f"http://{outside}:8080/"), lambda: str(agent_status(gateway)))
    a_gateway_publishes_a_dns_server_and_still_answers_for_names_itself(world)
    trusting = ["--cacert", str(certificate), *by_name("secure.example.org", 443)]
    secure = curl(visitor, "https://secure.example.org/", *trusting)
    assert PAGE in secure
    assert "nobody spoke" in secure  # what is passed on is not looked into

    lying = ["-H", "X-Forwarded-For: 6.6.6.6"]
    web = curl(visitor, "http://web.gw1.example.com/", *by_name("web.gw1.example.com", 80), *lying)
    assert PAGE in web
    assert f"x-forwarded-for: {world.address(visitor)}\n" in web
    assert "6.6.6.6" not in web
    safe = ["-k", *by_name("safe.gw1.example.com", 443), *by_name("safe.gw1.example.com", 80)]
    page = curl(visitor, "https://safe.gw1.example.com/", *safe, "--http2")
    assert f"x-forwarded-for: {world.address(visitor)}\n" in page
    assert "x-forwarded-proto: https\n" in page
    asked = ["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]
    moved = curl(visitor, "http://safe.gw1.example.com/a?b=c", *safe, *asked)
    assert moved.split() == ["308", "https://safe.gw1.example.com/a?b=c"]
    other = visitor.run(
        ["curl", "-sSk", "https://nobody.example.org/", *by_name("nobody.example.org", 443)], check=False
    )
    assert other.returncode == 35  # TLS: nobody here has that name


def a_gateway_publishes_a_dns_server_and_still_answers_for_names_itself(world: StreamWorld) -> None:
    gateway, visitor = world.gateways[0], world.visitor

    def dig(host: Host, server: str, *what: str) -> list[str]:
        found = host.run(["dig", f"@{server}", "+short", "+tries=1", "+time=5", *what], check=False)
        return found.stdout.split()

    def all_is_answered() -> bool:
        inside = [world.network.address(gateway, version) for version in (6, 4)]
        return all(
            dig(visitor, world.address(gateway), "host.answer.example", option) == ["192.0.2.77"]
            and dig(gateway, "127.0.0.1", "host.answer.example", option) == ["192.0.2.77"]
            and all(dig(gateway, one, "gw1.home.internal", "AAAA", option) == [inside[0]] for one in inside)
            for option in ("+notcp", "+tcp")
        )

    wait(gateway, all_is_answered, lambda: str(agent_status(gateway)))
    world.network.nodes[gateway.name].process.kill()
    world.restart(gateway)  # its name service begins again, beside the stream process that goes on
    wait(gateway, all_is_answered, lambda: str(agent_status(gateway)))


@pytest.mark.logs_errors
def test_gateways_whose_processes_are_killed_serve_again_and_for_each_other(world: StreamWorld) -> None:
    world.service("page", "--at", "member:hidden", "--target", "[::1]:8080")
    a_domain_that_does_not_point_at_the_gateway_is_told_and_left_out(world)
    a_gateway_whose_processes_are_killed_serves_again(world)
    when_one_of_two_gateways_is_killed_the_other_serves_the_same_name(world)


def when_one_of_two_gateways_is_killed_the_other_serves_the_same_name(world: StreamWorld) -> None:
    first, second = world.gateways
    visitor = world.visitor
    passed = ["--kind", "http", "--certificate", "internal", "--domain", "www.example.org"]
    world.connector("www", "--service", "page", "--at", "member:gw1", "--at", "member:gw2", *passed)
    for gateway in world.gateways:
        world.wait_done(gateway, "connector www")

    def served(*gateways: Host) -> bool:
        at = f"www.example.org:443:{','.join(map(world.address, gateways))}"
        return fetched(visitor, "https://www.example.org/", "-k", "--connect-timeout", "3", "--resolve", at)

    for gateway in world.gateways:
        wait(visitor, partial(served, gateway), partial(json.dumps, agent_status(gateway)))
    kill(first, "warren")
    kill(first, "caddy")
    assert served(first, second)


def a_gateway_whose_processes_are_killed_serves_again(world: StreamWorld) -> None:
    gateway, visitor = world.gateways[0], world.visitor
    world.connector("plain", "--service", "page", "--at", "member:gw1", "--kind", "http", "--certificate", "none")
    world.wait_done(gateway, "connector plain")
    by_name = ["--resolve", f"plain.gw1.example.com:80:{world.address(gateway)}"]

    def served() -> bool:
        return fetched(visitor, "http://plain.gw1.example.com/", *by_name)

    wait(visitor, served, lambda: str(agent_status(gateway)))
    for victim in ("caddy", "warren.l4", "warren.engine.userspace"):
        kill(gateway, victim)
        wait(visitor, served, lambda victim=victim: f"{victim}: {agent_status(gateway)}")
    world.network.nodes["gw1"].process.signal(SIGKILL)
    world.network.nodes["gw1"].process.wait(10)
    assert served()  # nothing hangs on the agent
    world.restart(gateway)
    assert served()


def a_domain_that_does_not_point_at_the_gateway_is_told_and_left_out(world: StreamWorld) -> None:
    gateway = world.gateways[0]
    elsewhere = ["--kind", "http", "--domain", "elsewhere.invalid"]
    world.connector("lost", "--service", "page", "--at", "member:gw1", *elsewhere)

    def task() -> dict[str, object]:
        return world.task(gateway, "connector lost")

    wait(gateway, lambda: task().get("state") == "failed", lambda: str(task()))
    reason = str(task()["reason"])
    assert "elsewhere.invalid" in reason
    assert "\n" not in reason
