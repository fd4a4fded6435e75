"""A coordinator and its nodes, real processes on an open underlay: what a person who pastes a ticket gets."""

from __future__ import annotations

import json
import re
import socket
from signal import Signals

import pytest

from tests.support.overlay import Underlay, data_plane_pids, output_of, pinged, wait_pinged
from tests.support.pings import Answers, counted
from warren.lab import Host, Lab
from warren.lab.network import Network, environment, warren_command, whole_status
from warren.lab.traffic import tcp_transfer, udp_series

MEGABYTE = 1 << 20
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def underlay(lab: Lab) -> Underlay:
    return Underlay(lab)


def started(underlay: Underlay, *names: str) -> tuple[Network, list[Host]]:
    """A network with dual-stack members that know of each other."""
    network, hosts = underlay.started(*names)
    for host in hosts:
        host.wait_for(lambda host=host: network.knows(host, [one for one in hosts if one is not host]), 60)
    return network, hosts


def test_six_members_of_all_families_reach_each_other_by_name_and_by_address(underlay: Underlay) -> None:
    underlay.nat64()
    network = underlay.network()
    network.start(*underlay.second_url)
    families = {"both1": "46", "both2": "46", "four1": "4", "four2": "4", "six1": "6", "six2": "6"}
    hosts = [underlay.host(name, family) for name, family in families.items()]
    ticket = network.ticket("--uses", "6")
    for host in hosts:
        network.join(host, ticket=ticket, wait=False)
    for host in hosts:
        network.wait_up(host)
    for host in hosts:
        others = [one for one in hosts if one is not host]
        host.wait_for(
            lambda host=host, others=others: (
                len(network.status(host)["peers"]) == len(others)
                and all(peer["candidates"] for peer in network.status(host)["peers"])
            ),
            30,
        )
    addresses = {host.name: (network.address(host, 6), network.address(host, 4)) for host in hosts}
    unanswered = {}
    for host in hosts:
        others = [one for one in hosts if one is not host]
        targets = [network.fqdn(one) for one in others]
        targets += [address for one in others for address in addresses[one.name]]
        missing = pinged(host, targets, wait_s=20)
        if missing:
            unanswered[host.name] = missing
    assert unanswered == {}


def test_a_member_that_is_revoked_during_a_transfer_is_cut_off_at_once(underlay: Underlay) -> None:
    network, (alice, bob, carol) = started(underlay, "alice", "bob", "carol")
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    wait_pinged(carol, to_bob)
    listener = bob.socket(socket.AF_INET6)
    with listener:
        listener.bind((to_bob, 0))
        listener.listen(1)
        listener.settimeout(20)
        sending = alice.begin(_send_until_broken, to_bob, listener.getsockname()[1])
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(3)
            assert connection.recv(MEGABYTE)
            network.warren(underlay.server, "network", "revoke", "home", "alice", "--yes")
            received_after = 0
            try:
                while data := connection.recv(MEGABYTE):
                    received_after += len(data)
                    assert received_after < 1 << 31, "the transfer goes on"
            except (TimeoutError, ConnectionError):
                pass  # nothing for three seconds, or bob's agent has ended it: it is cut
        sending.cancel()
    assert pinged(alice, [to_bob], wait_s=2) == [to_bob]
    assert pinged(bob, [network.address(carol)], wait_s=20) == []
    bob.wait_for(lambda: [peer["name"] for peer in network.status(bob)["peers"]] == ["carol"])
    alice.wait_for(lambda: network.status(alice)["state"] == "revoked")


def _send_until_broken(address: str, port: int) -> None:
    with socket.create_connection((address, port), 10) as connection:
        connection.settimeout(60)
        while True:
            connection.sendall(b"x" * 65536)


def test_traffic_and_restarts_do_not_need_the_coordinator(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    assert network.coordinator is not None
    network.coordinator.kill()
    assert tcp_transfer(alice, bob, to_bob, 8 * MEGABYTE).intact
    for host in (alice, bob):
        assert network.nodes[host.name].process.stop(timeout=60) == 0
        network.up(host)
    wait_pinged(alice, network.fqdn(bob))
    alice.wait_for(lambda: network.status(alice)["coordinator"]["error"], 60, what="word that nobody answers")
    assert not network.status(alice)["coordinator"]["connected"]
    network.run_coordinator()
    alice.wait_for(lambda: network.status(alice)["coordinator"]["connected"], 90)
    assert tcp_transfer(bob, alice, network.address(alice), MEGABYTE).intact


def test_a_member_that_moves_while_the_coordinator_is_away_is_found_again(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    to_alice, to_bob = network.address(alice), network.address(bob)
    wait_pinged(alice, to_bob)
    assert network.coordinator is not None
    network.coordinator.kill()
    alice.ip(
        "address flush dev eth0 scope global",
        "address add 198.51.100.77/24 dev eth0",
        "address add 2001:db8:1::77/64 dev eth0 nodad",
    )
    wait_pinged(alice, to_bob)
    wait_pinged(bob, to_alice)


def test_an_agent_that_is_killed_leaves_the_traffic_running_and_is_followed_without_a_loss(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    (before,) = data_plane_pids(alice)
    process = network.nodes["alice"].process
    pinging = alice.start(["ping", "-n", "-i", "0.05", "-c", "200", to_bob], name="pings")
    process.signal(Signals.SIGKILL)
    process.wait(30)
    network.up(alice)
    assert pinging.wait(60) == 0
    assert counted(pinging.output()) == Answers(sent=200, lost=0)
    assert data_plane_pids(alice) == [before]


def test_down_leaves_nothing_behind(underlay: Underlay) -> None:
    network = underlay.network()
    network.start()
    alice = underlay.host("alice")
    trace = "ip -br link; ip -br address; ip route; ip -6 route; nft list ruleset; cat /etc/resolv.conf"
    before = alice.run(["sh", "-c", trace]).stdout
    network.join(alice)
    assert alice.run(["sh", "-c", trace]).stdout != before
    network.warren(alice, "down")
    assert network.nodes["alice"].process.wait(60) == 0
    assert alice.run(["sh", "-c", trace]).stdout == before
    assert data_plane_pids(alice) == []


def test_a_node_is_in_two_networks_that_do_not_see_each_other(underlay: Underlay) -> None:
    home = underlay.network("home")
    home.start()
    work = underlay.network("work", prefix4="10.88.0.0/16")
    work.access, work.coordinator = home.access, home.coordinator
    work.warren(work.server, "network", "create", "work", "--ipv4", "10.88.0.0/16")
    alice, both, bob = (underlay.host(name) for name in ("alice", "both", "bob"))
    home.join(alice)
    work.join(bob)
    home.join(both)
    work.nodes["both"] = home.nodes["both"]
    said = both.run([*warren_command(), "up", "-"], input=f"{work.ticket()}\n", env=environment(both)).stdout
    assert "work" in said
    both.wait_for(lambda: work.knows(both, [bob]) and home.knows(both, [alice]), 60)
    assert pinged(both, [home.fqdn(alice), work.fqdn(bob)]) == []
    assert len(data_plane_pids(both)) == 2
    assert pinged(alice, [work.address(bob)], wait_s=2) == [work.address(bob)]


def test_a_change_of_the_policy_closes_a_port_also_for_what_is_connected(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    to_bob = network.address(bob)
    wait_pinged(alice, to_bob)
    assert udp_series(alice, bob, to_bob, count=20).received == 20
    state = underlay.server.directory / "home.toml"
    state.write_text(
        'network = "home"\n\n[[policy]]\naction = "allow"\nfrom = ["members"]\nto = ["members"]\nprotocol = "icmp"\n'
    )
    network.warren(underlay.server, "network", "apply", str(state), "--yes")
    bob.wait_for(lambda: network.status(bob)["map_version"] >= 2, 60)
    bob.wait_for(lambda: udp_series(alice, bob, to_bob, count=5, quiet_s=0.1).received == 0, 60)
    assert pinged(alice, [to_bob], wait_s=20) == []


def test_a_ticket_says_why_it_is_refused(underlay: Underlay) -> None:
    network = underlay.network()
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    used = network.ticket()
    network.join(alice, ticket=used)
    cases = {
        used: r"used",
        used[:-9]: r"damaged|cut off|incomplete",
        "warren-ticket:AAAA": r"damaged|cut off|incomplete|ticket",
        "hello": r"ticket",
    }
    for ticket, reason in cases.items():
        done = network.warren(bob, "up", ticket, check=False)
        assert done.returncode in {1, 2}
        (line,) = done.stderr.strip().splitlines()[-1:]
        assert line.startswith("warren: ")
        assert re.search(reason, line), line


def test_the_status_of_a_node_is_complete_in_json(underlay: Underlay) -> None:
    network, (alice, bob) = started(underlay, "alice", "bob")
    wait_pinged(alice, network.address(bob))
    alice.wait_for(lambda: network.peer(alice, bob)["path"] == "direct", 60, what="a direct path")
    alice.wait_for(lambda: network.peer(alice, bob)["rtt_ms"] is not None)
    alice.wait_for(lambda: {task["state"] for task in network.status(alice)["tasks"]} == {"done"})
    status = network.status(alice)
    (peer,) = status["peers"]
    assert peer["name"] == "bob"
    assert peer["state"] == "connected"
    assert peer["path"] == "direct"
    assert peer["endpoint"]
    assert peer["rtt_ms"] is not None
    assert peer["tx_bytes"] > 0
    assert [task["name"] for task in status["tasks"] if task["state"] != "done"] == []
    whole = json.loads(network.warren(alice, "status", "--json").stdout)
    assert whole.keys() == whole_status(alice).keys()
    assert [one.keys() for one in whole["networks"]] == [status.keys()]
    assert any(one["mac"] for one in whole["interfaces"])
    assert "bob" in network.warren(alice, "status").stdout
    members = json.loads(network.warren(underlay.server, "network", "members", "home", "--json").stdout)
    assert {member["name"] for member in members} == {"alice", "bob"}
    assert "Traceback" not in output_of(network.coordinator)
