"""``warren up`` as an ordinary user: a member like any other, on a host in which nothing changes."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.labs import IS_ROOT
from tests.support.overlay import Underlay, data_plane_pids, wait_pinged
from tests.support.pings import answers, pinging
from tests.support.rootless import USER, OrdinaryUser
from warren.lab import Host, Lab
from warren.lab.network import Network

pytestmark = pytest.mark.timeout(300)
HELPER, DATA_PLANE = "warren.engine.rootless", "warren.engine.userspace"


class Pair:
    """Alice, whose host is a member, and Bob, an ordinary user of his."""

    def __init__(self, lab: Lab) -> None:
        underlay = Underlay(lab)
        self.network: Network = underlay.network()
        self.network.start()
        self.server = underlay.server
        self.alice: Host = underlay.host("alice")
        self.host: Host = underlay.host("bob")
        self.network.join(self.alice)
        self.bob = OrdinaryUser(self.host, self.network)


@pytest.fixture
def pair(lab: Lab) -> Pair:
    return Pair(lab)


def seen_of(host: Host) -> list[object]:
    """What an agent of root changes in a host."""
    return [
        [link["ifname"] for link in json.loads(host.run(["ip", "-j", "link"]).stdout)],
        host.run(["ip", "addr", "show", "scope", "global"]).stdout.count("inet"),
        host.run(["ip", "route", "show", "table", "all"]).stdout,
        host.run(["nft", "list", "ruleset"]).stdout,
        host.run(["cat", "/etc/resolv.conf"]).stdout,
        host.run(
            ["sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start"]
        ).stdout,
    ]


def refusals_are_one_line(bob: OrdinaryUser) -> None:
    assert "no agent runs here, there is no " in bob.warren("status", check=False).stderr
    alone = bob.warren("up", check=False)
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
    refused = bob.warren("up", "--engine", "userspace", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "the userspace engine does not work here" in refused.stderr
    closed_device = bob.host.directory / "closed"
    bob.host.run(["install", "-m", "600", "/dev/null", closed_device])
    bob.host.run(["mount", "--bind", closed_device, "/dev/net/tun"])
    closed = bob.warren("up", check=False)
    assert (closed.returncode, closed.stderr.count("\n")) == (1, 1)
    assert "/dev/net/tun" in closed.stderr
    bob.host.run(["umount", "/dev/net/tun"])
    bob.host.run(["install", "-d", "-m", "755", "-o", USER, bob.run_directory])
    shared = bob.warren("up", bob.network.ticket(), check=False)
    assert (shared.returncode, shared.stderr.splitlines()[-1].count("is open to other users: `chmod 700 ")) == (1, 1)
    bob.host.run(["chmod", "700", bob.run_directory])


def test_an_ordinary_user_takes_part_and_nothing_of_the_host_changes(pair: Pair) -> None:
    bob, alice = pair.bob, pair.alice
    if IS_ROOT:
        refusals_are_one_line(bob)
    before = seen_of(pair.host)
    bob.join()
    status = json.loads(bob.warren("status", "--json").stdout)
    assert status["engine"] == "rootless"
    assert status["networks"][0]["engine"] == "rootless"
    assert status["engine_why"]
    other = bob.warren("up", pair.network.ticket(), "--engine", "userspace", check=False)
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    assert "has the engine rootless; stop it first" in other.stderr
    assert "engine: rootless, since " in bob.agent.output()  # type: ignore[union-attr]

    wait_pinged(alice, bob.address())
    wait_pinged(alice, bob.address(4))
    assert "2 received" in bob.warren("ping", "-c", "2", "alice").stdout
    assert "2 received" in bob.warren("ping", "-4", "-c", "2", "alice.home.internal").stdout
    assert "bob" in pair.network.warren(alice, "ping", "-c", "1", "bob").stdout
    assert bob.failed_tasks() == {}
    assert seen_of(pair.host) == before
    for path in (bob.run_directory, bob.run_directory / "wireguard", bob.state):
        assert pair.host.run(["stat", "-c", "%a", path]).stdout.strip() == "700"
    for path in ("agent.sock", "nest.sock", "wireguard/w-home.sock"):
        assert pair.host.run(["stat", "-c", "%a", bob.run_directory / path]).stdout.strip() == "600"

    assert bob.warren("down").stdout.startswith("The agent has stopped")
    assert bob.agent is not None
    assert bob.agent.wait(60) == 0
    assert [bob.pids(HELPER), bob.pids(DATA_PLANE)] == [[], []]
    assert pair.host.run(["find", bob.run_directory, "-type", "s"]).stdout == ""
    assert seen_of(pair.host) == before
    assert "no agent runs here" in bob.warren("status", check=False).stderr


ASK = """
import sys, dns.message, dns.query, dns.rcode
question = dns.message.make_query("bob.home.internal", "AAAA")
print(dns.rcode.to_text(dns.query.udp(question, sys.argv[1], timeout=20).rcode()))
"""


def names_are_answered_to_programs_in_the_nest_alone(alice: Host, bob: OrdinaryUser) -> None:
    assert bob.exec(sys.executable, "-c", ASK, bob.address()).stdout == "NOERROR\n"
    assert alice.run([sys.executable, "-c", ASK, bob.address()]).stdout == "REFUSED\n"
    assert alice.run([sys.executable, "-c", ASK, bob.address(4)]).stdout == "REFUSED\n"


def test_the_policy_is_enforced_in_the_nest_and_others_learn_no_names_of_it(pair: Pair) -> None:
    bob, alice = pair.bob, pair.alice
    bob.join()
    for port in ("80", "81"):
        bob.start_exec("python3", "-m", "http.server", "--bind", "::", port, name=f"web{port}")
    url = f"http://[{bob.address()}]"
    alice.wait_for(["curl", "-sf", "-m2", "-o", "/dev/null", f"{url}:80"])
    alice.wait_for(["curl", "-sf", "-m2", "-o", "/dev/null", f"{url}:81"])
    names_are_answered_to_programs_in_the_nest_alone(alice, bob)

    file = pair.server.directory / "home.toml"
    rule = 'action = "allow"\nfrom = ["members"]\nto = ["members"]\n'
    file.write_text(f'network = "home"\n\n[[policy]]\n{rule}protocol = "tcp"\nports = ["80"]\n')
    pair.network.warren(pair.server, "network", "apply", str(file), "--yes")
    alice.wait_for(lambda: alice.run(["curl", "-sm1", f"{url}:81"], check=False).returncode != 0)
    alice.run(["curl", "-sf", "-m20", "-o", "/dev/null", f"{url}:80"])
    assert alice.run(["curl", "-sm1", f"{url}:81"], check=False).returncode != 0
    assert bob.failed_tasks() == {}


@pytest.mark.logs_errors
def test_what_is_killed_is_healed_and_the_tunnel_goes_on(pair: Pair) -> None:
    bob, alice = pair.bob, pair.alice
    bob.join()
    address = bob.address()
    wait_pinged(alice, address)
    (helper,), (plane,) = bob.pids(HELPER), bob.pids(DATA_PLANE)
    ping = pinging(alice, address)

    bob.kill(helper)  # the helper
    pair.host.wait_for(lambda: bob.pids(HELPER) not in ([], [helper]))
    pair.host.wait_for(lambda: bob.exec("ping", "-c1", "-W1", "alice.home.internal", check=False).returncode == 0)
    pair.host.wait_for(lambda: bob.failed_tasks() == {})
    assert bob.agent is not None
    assert "the rootless engine's helper has ended" in bob.agent.output()

    bob.agent.kill()  # the agent
    bob.up()
    assert "took over the rootless engine's helper" in bob.agent.output()
    assert "took over the data plane of w-home" in bob.agent.output()
    assert bob.exec("getent", "hosts", "alice.home.internal").stdout

    (helper,) = bob.pids(HELPER)
    bob.agent.kill()  # both: the data plane alone holds the nest
    bob.kill(helper)
    bob.up()
    assert answers(ping).lost == 0
    assert bob.pids(DATA_PLANE) == [plane]
    assert bob.exec("ping", "-c1", "-W15", "alice.home.internal").returncode == 0

    bob.kill(plane)  # the data plane
    wait_pinged(alice, address)
    assert bob.pids(DATA_PLANE) not in ([], [plane])
    assert bob.address() == address
    pair.host.wait_for(lambda: bob.failed_tasks() == {})
    bob.warren("down")
    pair.host.wait_for(lambda: [bob.pids(HELPER), bob.pids(DATA_PLANE)] == [[], []], what="nothing of it to be left")


@pytest.mark.skipif(not IS_ROOT, reason="takes both engines by turns")
def test_after_a_kill_another_engine_takes_over_from_the_first(lab: Lab) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    network.join(alice)
    network.join(bob, "--engine", "rootless")
    address = network.address(bob)
    wait_pinged(alice, address)
    assert "w-home" not in bob.run(["ip", "link"]).stdout

    network.nodes["bob"].process.kill()
    network.up(bob, "--engine", "userspace")
    wait_pinged(alice, address)
    assert "w-home" in bob.run(["ip", "link"]).stdout
    bob.wait_for(lambda: len(data_plane_pids(bob)) == 1)
    bob.wait_for(
        lambda: bob.run(["pgrep", "-f", HELPER, "--ns", str(bob.pid), "--nslist", "mnt"], check=False).returncode == 1
    )

    network.nodes["bob"].process.kill()
    network.up(bob, "--engine", "rootless")
    wait_pinged(alice, address)
    bob.wait_for(lambda: "w-home" not in bob.run(["ip", "link"]).stdout)
    assert "warren" not in bob.run(["nft", "list", "tables"]).stdout
    bob.wait_for(lambda: len(data_plane_pids(bob)) == 1)
