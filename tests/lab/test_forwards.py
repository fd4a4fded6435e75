"""Forwards between real agents: every kind of end, what the policy says, and what outlives what."""

from __future__ import annotations

import json
import socket
from signal import SIGKILL
from typing import Any

import pytest

from tests.support.overlay import Underlay
from tests.support.stream_traffic import (
    datagram_answers,
    ended_how,
    many_streams,
    serve_echo_datagrams,
    serve_hashes,
)
from tests.support.stream_world import agent_status
from warren.lab import Host, Lab
from warren.lab.network import Network, environment, warren_command

pytestmark = pytest.mark.timeout(300)
PORT = 7000
OPEN = '[[policy]]\naction = "allow"\nfrom = ["members"]\nto = ["members"]\n'
ROUTE = '[members.bob]\nroutes = ["192.0.2.77/32"]\n'
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
HTTPServer(("127.0.0.1", 8080), Page).serve_forever()
"""


class World:
    """Alice makes forwards; bob and carol have programs that answer."""

    def __init__(self, lab: Lab, *options: str) -> None:
        """``options``: of ``warren up`` on alice."""
        underlay = Underlay(lab)
        self.network: Network = underlay.network()
        self.network.start()
        self.alice, self.bob, self.carol = self.hosts = [underlay.host(name) for name in ("alice", "bob", "carol")]
        ticket = self.network.ticket("--uses", "3")
        for host in self.hosts:
            self.network.join(host, *(options if host is self.alice else ()), ticket=ticket, wait=False)
        for host in self.hosts:
            self.network.wait_up(host)
        for host in self.hosts:
            others = [one for one in self.hosts if one is not host]
            host.wait_for(lambda host=host, others=others: self.network.knows(host, others), 60)

    def forward(self, host: Host, *arguments: str) -> dict[str, Any]:
        """``warren forward … --json``."""
        return dict(json.loads(self.network.warren(host, "forward", *arguments, "--json").stdout))

    def refused(self, host: Host, *arguments: str) -> str:
        """What it says, in one line, when it cannot."""
        done = self.network.warren(host, "forward", *arguments, "--keep", check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    def apply(self, text: str) -> None:
        """``warren network apply`` with what ``text`` says of the network."""
        file = self.network.server.directory / "home.toml"
        file.write_text(f'network = "home"\n\n{text}')
        self.network.warren(self.network.server, "network", "apply", str(file), "--yes")

    def stream(self, host: Host, name: str) -> dict[str, Any]:
        """What the agent says of that entry."""
        (found,) = [one for one in agent_status(host)["streams"] if one["id"] == name]
        return dict(found)


def works(host: Host, address: str, port: int, count: int = 1) -> bool:
    return host.call(many_streams, address, port, count, 1000, 1).intact == count


def fetched(host: Host) -> str:
    return host.run(["curl", "-sS", "--max-time", "15", "http://127.0.0.1:7110/"], check=False).stdout


def exchange_by_path(path: str, data: bytes) -> bytes:
    """What an echoing server behind a Unix socket says of a stream with ``data``."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(path)
        stream.sendall((1).to_bytes(8) + len(data).to_bytes(8) + data)
        stream.shutdown(socket.SHUT_WR)
        said = b""
        while piece := stream.recv(4096):
            said += piece
        return said


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def test_forwards_lead_to_members_behind_them_and_to_this_host_and_what_cannot_work_leaves_nothing(
    world: World,
) -> None:
    alice, bob, network = world.alice, world.bob, world.network
    bob.run(["ip", "address", "add", "192.0.2.77/32", "dev", "lo"])
    bob.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"])
    for address, port in (("::", PORT), (network.address(bob, 4), PORT), ("192.0.2.77", PORT + 1)):
        bob.begin(serve_hashes, address, port)
    bob.begin(serve_echo_datagrams, network.address(bob, 4), 7007)  # by IPv4 alone, where there is IPv6, too
    alice.begin(serve_hashes, "127.0.0.1", PORT)
    world.apply(f'{OPEN}\n[[policy]]\naction = "allow"\nfrom = ["members"]\nto = ["192.0.2.77/32"]\n\n{ROUTE}')

    # To a member, by its name and over IPv6 and IPv4; what is left is UDP, Unix sockets and the way back.
    assert world.forward(alice, "7100", f"bob:{PORT}", "--keep")["places"] == ["127.0.0.1:7100"]
    path = alice.directory / "db.sock"
    for place, target in (
        ("[::1]:7100", f"bob.home:{PORT}"),
        ("7101", f"{network.address(bob, 4)}:{PORT}"),
        ("*:7107", "bob:7007/udp"),
        (f"unix:{path}", f"bob:{PORT}"),
        ("overlay:7102", f"localhost:{PORT}"),
    ):
        world.forward(alice, place, target, "--keep")
    alice.wait_for(lambda: "192.0.2.77" in alice.run(["ip", "route"]).stdout, 60)
    world.forward(alice, "7103", f"192.0.2.77:{PORT + 1}", "--keep")
    assert works(alice, "127.0.0.1", 7100, 20)
    assert works(alice, "::1", 7100)
    assert works(alice, "127.0.0.1", 7101)
    assert works(alice, "127.0.0.1", 7103)
    assert exchange_by_path(str(path), b"abc").endswith(b"abc")
    sent = [b"1", b"22", b"333"]
    assert alice.call(datagram_answers, "127.0.0.1", 7107, sent) == sent
    assert alice.call(datagram_answers, "::1", 7107, sent) == sent
    for family in (6, 4):
        assert works(bob, network.address(alice, family), 7102)
    assert world.stream(alice, "forward 127.0.0.1:7100")["opened"] == 20

    # A forward that a command holds ends with it, however that ends.
    held = alice.start([*warren_command(), "forward", "7200", f"bob:{PORT}"], name="forward", env=environment(alice))
    alice.wait_for(lambda: "leads to" in held.output(), 60)
    assert works(alice, "127.0.0.1", 7200)
    held.signal(SIGKILL)
    alice.wait_for(lambda: alice.call(ended_how, "127.0.0.1", 7200) == "refused", 60)

    # What cannot work says so in one line, and nothing of it stays.
    before = agent_status(alice)["streams"]
    alice.begin(serve_hashes, "127.0.0.1", 7300)
    for place, target, told in (
        ("7300", f"bob:{PORT}", "127.0.0.1:7300 is in use by another program"),
        ("7301", f"nobody:{PORT}", "no member and no service is called nobody"),
        ("7301", "10.1.2.3:80", "10.1.2.3 is no address of the overlay, and behind no member"),
        ("7301", "page.svc", "no member and no service is called page.svc"),
        ("7100", f"bob:{PORT}", "there is a forward at 127.0.0.1:7100 already"),
    ):
        assert told in world.refused(alice, place, target)
    assert [one["id"] for one in agent_status(alice)["streams"]] == [one["id"] for one in before]
    assert alice.call(ended_how, "127.0.0.1", 7301) == "refused"
    network.warren(alice, "forward", "--remove", "7100")
    assert alice.call(ended_how, "127.0.0.1", 7100) == "refused"
    said = network.warren(alice, "forward", "--list").stdout
    assert "forward 127.0.0.1:7101" in said
    assert "forward 127.0.0.1:7100 " not in said


def test_kept_forwards_outlive_agents_and_go_where_somebody_serves_and_the_policy_lets_them(world: World) -> None:
    alice, bob, network = world.alice, world.bob, world.network
    bob.begin(serve_hashes, "::", PORT)
    world.forward(alice, "7100", f"bob:{PORT}", "--keep")
    alice.wait_for(lambda: works(alice, "127.0.0.1", 7100), 60)
    with alice.socket() as stream:
        stream.settimeout(60)
        stream.connect(("127.0.0.1", 7100))
        stream.sendall((1).to_bytes(8) + (6).to_bytes(8) + b"abc")
        process = network.nodes["alice"].process
        process.signal(SIGKILL)
        process.wait(30)
        assert works(alice, "127.0.0.1", 7100)  # nothing hangs on the agent
        network.up(alice)
        alice.wait_for(lambda: world.stream(alice, "forward 127.0.0.1:7100")["opened"] >= 3, 60)
        stream.sendall(b"def")
        stream.shutdown(socket.SHUT_WR)
        said = b""
        while piece := stream.recv(4096):
            said += piece
    assert said.endswith(b"abcdef")
    network.warren(alice, "down")
    network.nodes["alice"].process.wait(60)
    assert alice.call(ended_how, "127.0.0.1", 7100) == "refused"
    network.up(alice)
    alice.wait_for(lambda: works(alice, "127.0.0.1", 7100), 60)

    # A service by its name: from another member when one stops serving.
    servers = {}
    for host in (world.bob, world.carol):
        servers[host.name] = host.start(["python3", "-c", SERVER, host.name], name="page")
    network.warren(
        network.server,
        *("service", "add", "home", "page", "--at", "member:bob", "--at", "member:carol"),
        *("--target", "localhost:8080", "--wait", "0"),
    )
    alice.wait_for(lambda: network.warren(alice, "forward", "7110", "page", "--keep", check=False).returncode == 0, 60)
    assert world.stream(alice, "forward 127.0.0.1:7110")["target"] == "page"
    alice.wait_for(lambda: fetched(alice) in servers, 60)
    first = fetched(alice)
    assert {fetched(alice) for _ in range(5)} == {first}  # the order is kept
    servers[first].signal(SIGKILL)
    (second,) = servers.keys() - {first}
    alice.wait_for(lambda: fetched(alice) == second, 60)
    host = world.bob if first == "bob" else world.carol
    host.wait_for(lambda: world.stream(host, "home: service page")["state"] == "unhealthy", 60)
    assert "localhost:8080" in world.stream(host, "home: service page")["reason"]
    network.warren(network.server, "service", "remove", "home", "page")
    alice.wait_for(lambda: world.stream(alice, "forward 127.0.0.1:7110")["state"] == "failed", 60)
    assert alice.call(ended_how, "127.0.0.1", 7110, 20.0) == "reset"

    # The policy is asked before each stream.
    ports = f'protocol = "tcp"\nports = ["{PORT}"]\n'
    world.apply(f'[[policy]]\naction = "deny"\nfrom = ["member:alice"]\nto = ["member:bob"]\n{ports}\n{OPEN}')
    alice.wait_for(lambda: world.stream(alice, "forward 127.0.0.1:7100")["state"] == "failed", 60)
    assert alice.call(ended_how, "127.0.0.1", 7100, 20.0) == "reset"
    found = world.stream(alice, "forward 127.0.0.1:7100")
    assert found["refused"] == {"policy": 1}
    sentence = f"the policy of home does not let this node reach {network.address(bob)} at tcp/{PORT}: rule 1 denies it"
    assert sentence in found["reason"]
    assert sentence in found["last_refusal"]
    alice.wait_for(lambda: sentence in network.nodes["alice"].process.output())
    assert sentence in world.refused(alice, "7101", f"bob:{PORT}")
    task = {one["name"]: one for one in network.status(alice)["tasks"]}["forward 127.0.0.1:7100"]
    assert (task["state"], task["reason"]) == ("failed", found["reason"])


def test_a_rootless_node_forwards_both_ways_and_offers_a_subnet_and_socks(lab: Lab) -> None:
    world = World(lab, "--engine", "rootless")
    alice, bob, network = world.alice, world.bob, world.network
    alice.run(["ip", "address", "add", "192.0.2.77/32", "dev", "lo"])
    bob.begin(serve_hashes, network.address(bob), PORT)
    alice.begin(serve_hashes, "127.0.0.1", PORT)
    alice.begin(serve_hashes, "192.0.2.77", PORT)
    alice.begin(serve_echo_datagrams, "192.0.2.77", 7007)
    behind = '[[policy]]\naction = "allow"\nfrom = ["members"]\nto = ["192.0.2.77/32"]\n'
    world.apply(f"{OPEN}\n{behind}\n{ROUTE.replace('bob', 'alice')}")
    world.forward(alice, "7100", f"bob:{PORT}", "--keep")
    world.forward(alice, "overlay:7102", f"localhost:{PORT}", "--keep")
    world.forward(alice, "--socks", "1080", "--keep")
    alice.wait_for(lambda: works(alice, "127.0.0.1", 7100, 10), 60)
    for family in (6, 4):
        bob.wait_for(lambda family=family: works(bob, network.address(alice, family), 7102), 60)
    bob.wait_for(lambda: works(bob, "192.0.2.77", PORT, 10), 60)
    sent = [b"1", b"22", b"333"]
    assert bob.call(datagram_answers, "192.0.2.77", 7007, sent) == sent
    bob.start(["python3", "-c", SERVER.replace("127.0.0.1", "0.0.0.0"), "bob"], name="page")  # noqa: S104
    fetch = ["curl", "-sS", "--max-time", "15", "--socks5-hostname", "127.0.0.1:1080", "-4", "http://bob.home:8080/"]
    alice.wait_for(lambda: alice.run(fetch, check=False).stdout == "bob", 60)
    tasks = {one["name"]: one["state"] for one in network.status(alice)["tasks"]}
    assert (tasks["subnets by tcp"], tasks["subnets by udp"], tasks["subnets"]) == ("done", "done", "done")
